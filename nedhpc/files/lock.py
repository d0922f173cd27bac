"""One job per run folder: a lock that ends with the process that holds it."""

import contextlib
import errno
import fcntl
import logging
import os
import platform
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from nedhpc.errors import StorageError, UsageError
from nedhpc.files.provenance import utc
from nedhpc.files.sealed import make_folder
from nedhpc.parallel.comm import agree

log = logging.getLogger("nedhpc")

HELD = (errno.EAGAIN, errno.EACCES)
"""The system's errors if another process holds the lock."""
WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO, 524)
"""The errors of a file system without locks; 524 is ENOTSUPP of NFS."""


FLOCK = "hhqqi"
"""struct flock of Linux: l_type, l_whence, l_start, l_len, l_pid."""
_own: set[Path] = set()
"""The locks of this process."""


class Lock:
    """The file RUN_DIR/.lock of the job that writes there. Local.

    Args:
        path: the file.
        file: its open file; None on ranks that do not write.
    """

    def __init__(self, path: Path, file=None):
        self.path, self.file = path, file

    def check(self) -> None:
        """Check that the run folder is still the one that this job locked.

        A lock belongs to a file, but everything is written by path. So if the folder was moved or
        replaced, or if the lock was deleted, another job may write under the same path.

        Raises:
            StorageError: the path names another file than the locked one, or none.
        """
        if self.file is None:
            return
        held, folder = os.fstat(self.file.fileno()), self.path.parent
        try:
            found = os.stat(self.path)
        except OSError as error:
            reason = error.strerror
        else:
            if os.path.samestat(held, found):
                return
            reason = "it is another file now"
        raise StorageError(
            f"cannot write in {folder}: {self.path.name} is not the file that this run locked "
            f"({reason}), so the folder was moved, deleted or replaced, or the lock was deleted; "
            "nothing more is written, because another job may write there"
        )


@contextlib.contextmanager
def locked(comm, run_dir: str | Path) -> Iterator[Lock]:
    """Make the folder and hold RUN_DIR/.lock on rank 0. Collective on comm.

    It uses fcntl.lockf, because the system releases this lock when the process ends in any way, and
    because NFS shows it to other hosts too.

    Raises:
        UsageError: another job holds the lock, or the folder is not writable.
    """
    file = error = None
    path = Path(run_dir).absolute() / ".lock"
    if comm.rank == 0:
        try:
            make_folder(path.parent)
            file = open(path, "a+", buffering=1)
            error = _acquire(file, run_dir)
        except OSError as caught:
            error = UsageError(
                f"cannot write in {run_dir}: {caught.strerror}; give another place with --out"
            )
    try:
        agree(comm, error)
        if file is not None:
            _own.add(path)
        yield Lock(path, file)
    finally:
        _own.discard(path)
        if file is not None:
            with contextlib.suppress(OSError):  # if the disk is full, the text was not written
                file.close()


def _acquire(file, run_dir):
    """Lock the file and write its holder into it; returns an error if another job has it. Local."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as caught:
        if caught.errno in HELD:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            return UsageError(
                f"another job is writing in {run_dir} ({holder}); wait for its end, or give "
                "another --out"
            )
        if caught.errno not in WITHOUT:
            raise
        log.warning(
            "%s is on a file system without locks: nothing prevents a second job from writing "
            "there",
            run_dir,
        )
    job = os.environ.get("SLURM_JOB_ID")
    job = f", SLURM job {job}" if job else ""
    file.truncate(0)
    file.write(f"host {platform.node()}, pid {os.getpid()}{job}, since {utc()}\n")
    return None


def is_held(run_dir: str | Path) -> bool | None:
    """True if a job, also one on another host, writes in the folder. Local.

    The lock is only looked at, so that a job that starts at this moment is not refused.

    Returns:
        None if the system cannot tell.
    """
    path = Path(run_dir).absolute() / ".lock"
    if path in _own:  # to open and close the file again would release the lock
        return True
    try:
        with open(path, "rb") as file:
            asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found = fcntl.fcntl(file, fcntl.F_GETLK, asked)
    except OSError:
        return None
    return struct.unpack(FLOCK, found)[0] != fcntl.F_UNLCK if sys.platform == "linux" else None
