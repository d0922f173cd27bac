"""Files that the user edited on purpose. Local."""

from pathlib import Path

from nedhpc.files import checkpoint, series
from nedhpc.files.sealed import reseal


def accept(path: str | Path) -> str:
    """Seal an edited checkpoint or series, so that nedhpc reads it again.

    Returns:
        What the file is: "checkpoint" or "series".

    Raises:
        NotAStateError: the file is neither, or its content is malformed; it stays as it is.
        StorageError: the system cannot read or write the file.
    """
    found = []

    def check(file):
        found.append("checkpoint" if "format" in file.attrs else "series")
        checkpoint.parse(file, path) if found[0] == "checkpoint" else series.parse(file)

    reseal(path, check)
    return found[0]
