"""TOML text of a size and depth that is parsed at once, whoever wrote it. Local."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nedhpc.errors import UsageError

MAX_FILE_BYTES = 2**16
"""Size of the largest config file. The time for keys and their errors grows with it."""
MAX_DOTS = 100
"""Largest number of dots in a key; the parser's time grows with the square of it."""
NO_KEY = re.compile(r"[\n,=\[\]{}]")
"""Characters between two keys."""


def read(path: str | Path) -> dict[str, Any]:
    """The table of a TOML file.

    Raises:
        UsageError: the file cannot be read, is too large, or is not TOML.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the config {path}: {error.strerror}") from None
    except ValueError as error:  # a null character in the path
        raise UsageError(f"cannot read the config {path!r}: {error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(
            f"{path} is larger than {MAX_FILE_BYTES // 1024} KiB, so it is hardly a config; put "
            "data into a file of its own"
        )
    try:
        # Some editors put a byte-order mark first.
        return parse(content.decode("utf-8-sig").replace("\r\n", "\n"))
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}") from None


def parse(text: str) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        ValueError: it is not TOML, or its tables or numbers are too large.
    """
    run = 0
    for part in text.split("."):
        run = 0 if NO_KEY.search(part) else run + 1
        if run > MAX_DOTS:
            raise ValueError(f"a key has more than {MAX_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its arrays or tables are nested too deeply") from None


def undecodable(entry: Any, key: str = "") -> Iterator[str]:
    """A message for each text in a table that no file can hold. Local.

    Python makes such texts of file names and arguments that are not in the encoding of the locale.

    Args:
        entry: the table, or a part of it.
        key: its key.
    """
    if isinstance(entry, dict):
        for name, part in entry.items():
            yield from undecodable(part, f"{key}.{name}" if key else str(name))
    elif isinstance(entry, list | tuple):
        for part in entry:
            yield from undecodable(part, key)
    elif isinstance(entry, str) and entry.encode("utf-8", "ignore").decode() != entry:
        yield (
            f"{key} = {entry!a}: this is not {sys.getfilesystemencoding()}; rename the file or "
            "folder, or if the name is right, set PYTHONUTF8=1"
        )
