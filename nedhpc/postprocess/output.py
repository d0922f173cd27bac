"""Files that post-processing makes: complete, or not there. Local."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nedhpc.errors import UsageError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Context manager for the name under which a file is written before it is renamed to `path`.

    If the block fails, an old file stays as it is.

    Args:
        path: the file.

    Raises:
        UsageError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error  # h5py's own text is long
        raise UsageError(f"cannot write {path}: {reason}; give another place with -o") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
