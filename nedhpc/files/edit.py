"""Files that the user edited on purpose. Local."""

from pathlib import Path

from nedhpc.files import checkpoint, march, series, uncertainty
from nedhpc.files.sealed import reseal


def accept(path: str | Path) -> str:
    """Seal an edited file of a run, so that nedhpc reads it again.

    Returns:
        What the file is: "checkpoint", "march", "uncertainty" or "series".

    Raises:
        NotAStateError: the file is none of them, or its content is malformed; it stays as it is.
        StorageError: the system cannot read or write the file.
    """
    found = []

    def check(file):
        if "format" in file.attrs:
            found.append("checkpoint")
            checkpoint.parse(file, path)
        elif "theta" in file:
            found.append("march")
            march.parse(file)
        elif "factor" in file:
            found.append("uncertainty")
            uncertainty.parse(file)
        else:
            found.append("series")
            series.parse(file)

    reseal(path, check)
    return found[0]
