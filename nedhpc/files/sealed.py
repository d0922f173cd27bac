"""Sealed files: HDF5 files written whole or not at all, and checked to the last byte before use.

A sealed file begins with a block of 512 bytes (HDF5's user block, which HDF5 skips) that holds the
SHA-256 of all bytes after it. docs/file_format.md describes it. Local: the caller chooses the rank
that writes.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import h5py

from nedhpc.errors import NotAStateError, StorageError

SEAL = b"nedhpc sha256 "
"""Start of a sealed file."""
SEAL_BYTES = 512
"""Length of the first block."""
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""The system's errors if a path names no regular file. Other errors may be temporary."""
NO_FOLDER_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
"""The errors of file systems that cannot flush a folder, e.g. CIFS and FUSE."""
MALFORMED = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
)
"""The errors that h5py and the readers of groups raise if the content is not as expected."""


def seal(digest) -> bytes:
    """The first block of a file, for a hashlib SHA-256 object of its other bytes."""
    return (SEAL + digest.hexdigest().encode() + b"\n").ljust(SEAL_BYTES, b"\0")


def temporary_name(path: Path) -> str:
    """Name of the file that `replace` writes before it renames it to `path`."""
    return f".{path.name}.{os.getpid()}"


def replace(path: str | Path, *parts: bytes) -> None:
    """Write a file completely and flush it to disk; if that fails, leave the old file.

    Args:
        path: file to write; its folder must exist.
        parts: the content, written one after another.

    Raises:
        OSError: the disk does not store the bytes.
    """
    path = Path(path)
    temporary = path.with_name(temporary_name(path))
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(path):
    """Flush a folder, so that a rename in it outlives a crash of the machine."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(folder)


@contextlib.contextmanager
def sealed_file(path: str | Path) -> Iterator[h5py.File]:
    """Context manager for an h5py.File that is written to `path`, sealed and complete, at the end.

    The file is made in memory, so that the SHA-256 covers exactly the intended bytes, and so that a
    full disk raises a single OSError.

    Raises:
        OSError: the disk does not store the file; an old file stays.
    """
    with h5py.File("image", "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    replace(path, seal(hashlib.sha256(image)), image)


@contextlib.contextmanager
def open_sealed(path: str | Path) -> Iterator[h5py.File]:
    """Context manager for the h5py.File of a sealed file.

    HDF5 opens the file only after its SHA-256 was found right, so that a damaged file cannot
    mislead it. HDF5's own file lock is not needed, because the files never change in place.

    Raises:
        NotAStateError: a byte is missing or differs from what was written, or the content is
            malformed.
        StorageError: the system cannot read the file at present, e.g. EIO or EACCES.
    """
    _check_seal(path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except NotAStateError:
        raise
    except MALFORMED as error:
        reason = str(error) or type(error).__name__
        raise NotAStateError(f"{path} cannot be read: {reason}") from None


def _check_seal(path):
    """Raise unless the first block belongs to the bytes after it."""
    try:
        with open(path, "rb") as raw:
            first, digest = raw.read(SEAL_BYTES), hashlib.sha256()
            if not first.startswith(SEAL):
                raise NotAStateError(f"{path} is not a file of nedhpc, or its start is damaged")
            while piece := raw.read(2**20):
                digest.update(piece)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, OSError) and error.errno not in NO_FILE:
            raise StorageError(
                f"{path} cannot be read at present: {error.strerror}; the file may be intact: "
                "try again, or restore access to it"
            ) from None
        raise NotAStateError(f"{path} cannot be read: {error}") from None
    if first != seal(digest):
        raise NotAStateError(
            f"{path} is torn or corrupt: its SHA-256 is not the one that it was written with. If "
            "another program opened it for writing, docs/file_format.md says how to seal it again"
        )
