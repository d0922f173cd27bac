"""Sealed files: HDF5 files written whole or not at all, and checked before use.

A sealed file begins with a block of 512 bytes (HDF5's user block, which HDF5 skips) that holds the
SHA-256 of all bytes after it. An attribute holds the SHA-256 of the content. docs/file_format.md
describes both. Local: the caller chooses the rank that writes.
"""

import contextlib
import errno
import functools
import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import h5py

from nedhpc.errors import NedError, NotAStateError, StorageError
from nedhpc.files.content import CONTENT, digest, is_unchanged

log = logging.getLogger("nedhpc")
T = TypeVar("T")

SEAL = b"nedhpc sha256 "
"""Start of a sealed file."""
SEAL_BYTES = 512
"""Length of the first block."""
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""The system's errors if a path names no regular file. Other errors may be temporary."""
READ_BYTES = 2**24
"""Bytes that are read at once."""
RETRY_SECONDS = (0.1, 1.0)
"""Waits before a file is read again after an error, e.g. ESTALE of NFS."""
NO_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
"""The errors of file systems that cannot flush, e.g. CIFS and FUSE."""
NO_FOLDER_SYNC = (*NO_SYNC, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)
"""The errors of file systems that cannot open or flush a folder."""
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
            _sync(file.fileno(), path.parent, NO_SYNC)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(path):
    """Flush a folder, so that a rename in it outlives a crash of the machine."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
        _warn_of_folder(path, error.strerror)
        return
    try:
        _sync(folder, path, NO_FOLDER_SYNC)
    finally:
        os.close(folder)


def _sync(descriptor, folder, accepted):
    """Flush a file or folder; warn about errors that say that the file system cannot."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in accepted:
            raise
        _warn_of_folder(folder, error.strerror)


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it; their names outlive a crash of the machine.

    Raises:
        OSError: it cannot be made.
    """
    path = Path(path)
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):  # made by another process in the meantime
        path.mkdir()
    if not path.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    sync_folder(path.parent)


@functools.cache
def _warn_of_folder(path, reason):
    """Warn once for each folder."""
    log.warning(
        "the file system of %s cannot flush files or folders (%s): if the machine dies, the last "
        "checkpoint may be lost",
        path,
        reason,
    )


@contextlib.contextmanager
def sealed_file(path: str | Path) -> Iterator[h5py.File]:
    """Context manager for an h5py.File that is written to `path`, sealed and complete, at the end.

    The file is made in memory, so that the SHA-256 covers exactly the intended bytes, and so that a
    full disk raises a single OSError.

    Raises:
        OSError: the disk does not store the file; an old file stays.
    """
    with h5py.File(
        "image", "w", driver="core", backing_store=False, userblock_size=SEAL_BYTES
    ) as file:
        yield file
        image = _sealed_image(file)
    replace(path, seal(hashlib.sha256(image)), image)


def _sealed_image(file):
    """The bytes after the first block of an open file in memory, with the digest of its content."""
    file.attrs[CONTENT] = digest(file)
    file.flush()
    return file.id.get_file_image()


@contextlib.contextmanager
def open_sealed(path: str | Path) -> Iterator[h5py.File]:
    """Context manager for the h5py.File of a sealed file.

    The file is read once into memory. HDF5 then needs neither the disk nor its own file lock, which
    some file systems do not have.

    Raises:
        NotAStateError: the content is not what was written, or is malformed.
        StorageError: the system cannot read the file at present, e.g. EIO or EACCES.
    """
    content = _read(path, SEAL)
    is_intact = content[:SEAL_BYTES] == seal(hashlib.sha256(memoryview(content)[SEAL_BYTES:]))
    # Another program may have opened the file for writing. Even if it changed nothing, HDF5 may
    # then have moved bytes, so what the file holds decides.
    if not is_intact and not is_unchanged(content):
        raise NotAStateError(
            f"{path} is torn or corrupt: its SHA-256 is not the one that it was written with. If "
            f"you edited it, `nedhpc seal {path}` accepts the edit"
        )
    with _malformed(path), _opened(content) as file:
        del content
        yield file


def reseal(path: str | Path, check: Callable[[h5py.File], object]) -> None:
    """Seal a file that was edited on purpose.

    Args:
        path: the file.
        check: called with the open file; it raises if the content is malformed.

    Raises:
        NotAStateError: the file is not an HDF5 file, or `check` fails.
        StorageError: the system cannot read or write the file.
    """
    content = _read(path, b"")
    with _malformed(path), _opened(content, h5py.h5f.FILE_IMAGE_OPEN_RW) as file:
        check(file)
        image = _sealed_image(file)
    try:
        replace(path, seal(hashlib.sha256(image)), image)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None


@contextlib.contextmanager
def _opened(content, flags=0):
    """The h5py.File of a file's bytes."""
    with h5py.File(h5py.h5f.open_file_image(content, flags)) as file:
        yield file


@contextlib.contextmanager
def _malformed(path):
    """Raise the errors of h5py, and of readers of its groups, as a NotAStateError."""
    try:
        yield
    except NedError:
        raise
    except MALFORMED as error:
        reason = str(error) or type(error).__name__
        raise NotAStateError(f"{path} cannot be read: {reason}") from None


def _read(path, start):
    """The bytes of a file that begins with `start`."""

    def attempt():
        try:
            with open(path, "rb", buffering=0) as file:
                content = _bytes(file.fileno(), SEAL_BYTES)
                if not content.startswith(start):
                    raise NotAStateError(f"{path} is not a file of nedhpc, or its start is damaged")
                return content + _bytes(file.fileno())
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            if isinstance(error, ValueError) or error.errno in NO_FILE:
                raise NotAStateError(f"{path} cannot be read: {error}") from None
            raise

    return patiently(path, attempt)


def names(folder: str | Path) -> list[str]:
    """The names in a folder; [] if there is no such folder.

    Raises:
        StorageError: the system cannot read the folder at present.
    """

    def attempt():
        try:
            return os.listdir(folder)
        except OSError as error:
            if error.errno in NO_FILE:
                return []
            raise

    return patiently(folder, attempt)


def patiently(path: str | Path, read: Callable[[], T]) -> T:
    """read(), tried again after errors that may pass.

    Raises:
        StorageError: it fails each time.
    """
    for wait in (*RETRY_SECONDS, None):
        try:
            return read()
        except OSError as error:
            if wait is None:
                raise StorageError(
                    f"{path} cannot be read at present: {error.strerror}; what is there may be "
                    "intact: try again, or restore access to it"
                ) from None
            time.sleep(wait)
    raise AssertionError


def _bytes(descriptor, limit=sys.maxsize):
    """The next bytes of an open file: `limit` of them, or all that there are.

    Python's own files return None or too few bytes, and no error, if the system says EAGAIN.
    """
    parts = []
    while limit and (part := os.read(descriptor, min(limit, READ_BYTES))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)
