"""The SHA-256 of what an HDF5 file holds: its datasets and attributes in the order of their names.

It does not depend on where HDF5 stores them in the file. Local.
"""

import hashlib
import subprocess
import sys

import h5py
import numpy as np

from nedhpc.files.tables import dataset, is_plain

CONTENT = "content_sha256"
"""Attribute of the root that holds the digest."""
START_SECONDS, BYTES_PER_SECOND = 20.0, 2e7
"""Longest time in which another process may start, and read a file whose bytes have changed."""


def digest(file: h5py.File) -> str:
    """SHA-256 of the names, types, shapes and values of an open file, as hexadecimal digits.

    References between objects, which HDF5 keeps for dimension scales, do not count.

    Raises:
        ValueError: a dataset is not stored in the file, or claims more bytes than the file has.
    """
    found, names = hashlib.sha256(), ["/"]
    file.visit(names.append)
    for name in sorted(names):
        item = file[name]
        is_dataset = isinstance(item, h5py.Dataset)
        found.update(f"{name}\n{is_dataset}\n".encode())
        if is_dataset:
            _add(found, dataset(file, name)[()])
        for key in sorted(item.attrs.keys() - {CONTENT}):
            if is_plain(item.attrs.get_id(key).dtype):
                found.update(f"{key}\n".encode())
                _add(found, item.attrs[key])
    return found.hexdigest()


def _add(found, value) -> None:
    """Add type, shape and value of a number, string or array of them."""
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
        texts = [x.encode() if isinstance(x, str) else bytes(x) for x in array.ravel().tolist()]
        found.update(f"text {array.shape} {[len(text) for text in texts]}\n".encode())
        found.update(b"".join(texts))
    else:
        array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        found.update(f"{array.dtype.str} {array.shape}\n".encode())
        found.update(array.tobytes())


def is_unchanged(content: bytes) -> bool:
    """True if a file of these bytes still holds what its attribute says.

    Another process reads it, because HDF5 may crash or never return if the bytes are damaged.
    """
    if CONTENT.encode() not in content:
        return False
    command = [sys.executable, "-P", "-m", __name__]
    limit = START_SECONDS + len(content) / BYTES_PER_SECOND
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=limit)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def main() -> int:
    """The other process of `is_unchanged`: it reads the bytes from stdin and returns 0 if so."""
    with h5py.File(h5py.h5f.open_file_image(sys.stdin.buffer.read())) as file:
        return int(digest(file) != file.attrs[CONTENT])


if __name__ == "__main__":
    sys.exit(main())
