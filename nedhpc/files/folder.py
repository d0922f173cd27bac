"""The path of a run folder, and files in it that cannot be read. Local."""

import datetime
import itertools
from pathlib import Path

from nedhpc.errors import UsageError
from nedhpc.files.sealed import make_folder, sync_folder


def absolute(path: str | Path) -> Path:
    """The path from the root of the file system.

    A run keeps it from its start, because the user's code may change the current folder.

    Raises:
        UsageError: the path is empty, or it is relative and the current folder is gone.
    """
    if not str(path):
        raise UsageError("the path of a file or folder is empty; is a variable of the shell unset?")
    try:
        return Path(path).absolute()
    except FileNotFoundError:
        raise UsageError(f"{path}: the current folder was deleted") from None


def no_place(folder: str | Path, error: OSError) -> UsageError:
    """The error if a run cannot begin to write in a folder."""
    return UsageError(
        f"cannot write in {folder}: {error.strerror or error}; make it writable, or give another "
        "place with --out"
    )


def new_folder(parent: Path, name: str) -> Path:
    """Make the folder parent/<name>-<UTC>, which no other run has, and return it.

    Raises:
        UsageError: it cannot be made.
    """
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in itertools.count(1):
        path = parent / (f"{name}-{now}" if number == 1 else f"{name}-{now}-{number}")
        try:
            make_folder(parent)
            path.mkdir()
            sync_folder(parent)
            return path
        except FileExistsError:  # another run began in the same second
            if not parent.is_dir():
                raise UsageError(f"{parent} is not a folder; give another with --out") from None
        except OSError as error:
            raise no_place(parent, error) from None
    raise AssertionError


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read to *.aside, or *.aside.1, ... if that exists."""
    number, aside = 0, path.with_name(path.name + ".aside")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.aside.{number}")
    return path.rename(aside)
