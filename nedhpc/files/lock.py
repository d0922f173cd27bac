"""One job a run folder: a lock that ends with the process that holds it."""

import contextlib
import errno
import fcntl
import logging
import os
import platform
from pathlib import Path

from nedhpc.errors import UsageError
from nedhpc.files.provenance import utc
from nedhpc.parallel.comm import agree

log = logging.getLogger("nedhpc")

HELD = (errno.EAGAIN, errno.EACCES)
WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without locks answers."""


@contextlib.contextmanager
def locked(comm, run_dir):
    """Make the folder and hold RUN_DIR/.lock on rank 0; UsageError where another job has it or it is not writable. Collective.

    fcntl.lockf: the system releases it when the process ends, however that comes about; NFS shows it to other hosts too.
    """
    file = error = None
    if comm.rank == 0:
        try:
            Path(run_dir).mkdir(parents=True, exist_ok=True)
            file = open(Path(run_dir) / ".lock", "a+")
            error = _take(file, run_dir)
        except OSError as caught:
            error = UsageError(
                f"cannot write in {run_dir}: {caught.strerror}; give another place with --out"
            )
    try:
        agree(comm, error)
        yield
    finally:
        if file is not None:
            file.close()


def _take(file, run_dir):
    """Lock the open file and write who has it; the UsageError where another job does. Local."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as caught:
        if caught.errno in HELD:
            file.seek(0)
            return UsageError(
                f"another job is writing in {run_dir} ({file.read().strip() or 'unknown'}); wait for its end, or give another --out"
            )
        if caught.errno not in WITHOUT:
            raise
        log.warning(
            "%s is on a file system without locks: nothing keeps a second job out of it", run_dir
        )
    job = os.environ.get("SLURM_JOB_ID")
    file.truncate(0)
    file.write(
        f"host {platform.node()}, pid {os.getpid()}"
        + (f", SLURM job {job}" if job else "")
        + f", since {utc()}\n"
    )
    file.flush()
    return None
