"""One job per run folder: a lock that ends with the process that holds it."""

import contextlib
import errno
import fcntl
import logging
import os
import platform
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from nedhpc.errors import StorageError, UsageError
from nedhpc.files.folder import no_place
from nedhpc.files.provenance import utc
from nedhpc.files.sealed import RETRY_SECONDS, make_folder
from nedhpc.parallel.comm import agree

log = logging.getLogger("nedhpc")

HELD = (errno.EAGAIN, errno.EACCES)
"""The system's errors if another process holds the lock. Some file systems give them in passing."""
WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO, 524)
"""The errors of a file system without locks; 524 is ENOTSUPP of NFS."""
FLOCK = "hhqqi"
"""struct flock of Linux: l_type, l_whence, l_start, l_len, l_pid."""
_own: set[tuple[int, int]] = set()
"""Device and inode of the locks of this process.

A lock of fcntl does not refuse the process that holds it, and ends when it closes the file once.
"""


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
        UsageError: another job, or another run of this process, holds the lock, or the folder is
            not writable.
    """
    file = error = identity = None
    path = Path(run_dir).absolute() / ".lock"
    if comm.rank == 0:
        try:
            make_folder(path.parent)
            if path.exists() and _identity(os.stat(path)) in _own:
                error = _held(run_dir, "this process")
            else:
                file = open(path, "a+", buffering=1)
                error = _acquire(file, run_dir)
            if file is not None and error is None:
                identity = _identity(os.fstat(file.fileno()))
                _own.add(identity)
        except OSError as caught:
            error = no_place(run_dir, caught)
    try:
        agree(comm, error)
        yield Lock(path, file)
    finally:
        if identity is not None:
            _own.discard(identity)
        if file is not None:
            with contextlib.suppress(OSError):  # if the disk is full, the text was not written
                file.close()


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _held(run_dir, holder: str) -> UsageError:
    return UsageError(
        f"another job is writing in {run_dir} ({holder}); wait for its end, or give another --out"
    )


def _acquire(file, run_dir):
    """Lock the file and write its holder into it; returns an error if another job has it. Local."""
    for wait in (*RETRY_SECONDS, None):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as caught:
            if caught.errno in WITHOUT:
                log.warning(
                    "%s is on a file system without locks: nothing prevents a second job from "
                    "writing there",
                    run_dir,
                )
                break
            if caught.errno not in HELD:
                raise
        if wait is None:
            file.seek(0)
            return _held(run_dir, file.read().strip() or "unknown")
        time.sleep(wait)
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
    try:
        if _identity(os.stat(path)) in _own:  # to open and close it would release the lock
            return True
        with open(path, "rb") as file:
            asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found = fcntl.fcntl(file, fcntl.F_GETLK, asked)
    except OSError:
        return None
    return struct.unpack(FLOCK, found)[0] != fcntl.F_UNLCK if sys.platform == "linux" else None
