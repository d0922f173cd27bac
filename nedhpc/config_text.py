"""TOML text of a size and depth that is parsed at once, whoever wrote it. Local."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w

from nedhpc.errors import UsageError

MAX_FILE_BYTES = 2**16
"""Size of the largest config file. The time for keys and their errors grows with it."""
MAX_LENGTH = 2**18
"""Characters of the longest text. A resolved config is longer than the file that it comes from."""
MAX_DOTS = 100
"""Largest number of dots in a key; the parser's time grows with the square of it."""
MAX_DEPTH = 100
"""Deepest nesting of tables and arrays; whoever walks through them calls itself for each level."""
MAX_INTEGER = 2**63
"""Integers of TOML have 64 bits. Python refuses to print one of more than 4300 digits."""
OPAQUE = re.compile(
    r""""{3}(?:\\.|[^\\])*?(?:"{3,5}|\\?\Z)|'{3}.*?(?:'{3,5}|\Z)"""
    r"""|"(?:\\.|[^"\\\n])*"?|'[^'\n]*'?|#[^\n]*""",
    re.DOTALL,
)
"""Strings and comments, whose dots and separators mean nothing.

One that is not closed matches too, because the time would else grow with the square of its length.
"""
NO_KEY = re.compile(r"[\n,=\[\]{}]")
"""Characters between two keys."""
TOO_DEEP = "its arrays or tables are nested too deeply"


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
        ValueError: it is not TOML, or it, its keys, tables or integers are too large.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"it has {len(text)} characters; a config may have {MAX_LENGTH}")
    if any(key.count(".") > MAX_DOTS for key in NO_KEY.split(OPAQUE.sub("s", text))):
        raise ValueError(f"a key has more than {MAX_DOTS} dots")
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    _refuse_extremes(table)
    return table


def write(table: dict[str, Any]) -> str:
    """The TOML of a table, which `parse` reads.

    Raises:
        UsageError: a value has a type that TOML does not have, or is too large for `parse`.
    """
    try:
        text = tomli_w.dumps(table)
        parse(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"the config cannot be stored as TOML: {error}") from None
    return text


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


def _refuse_extremes(value: Any, key: str = "", depth: int = 0) -> None:
    """Raise ValueError if a value, which belongs to a key, is more than its readers can handle."""
    if depth > MAX_DEPTH:
        raise ValueError(TOO_DEEP)
    if isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
        raise ValueError(f"{key} is an integer of more than 64 bits")
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_extremes(item, name, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _refuse_extremes(item, key, depth + 1)
