"""Reading of data files: the user's inputs and targets from a table or from arrays. Local."""

import csv
import logging
import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nedhpc.errors import UsageError
from nedhpc.files.sealed import MALFORMED
from nedhpc.names import unknown
from nedhpc.problems.array_files import read_arrays, read_parquet
from nedhpc.problems.cells import Table, short, to_numbers
from nedhpc.problems.mesh_files import read_mesh
from nedhpc.problems.text_table import TextOptions, read_text

log = logging.getLogger("nedhpc")

TEXT = (".csv", ".dat", ".txt", ".tsv")
ARRAYS = (".npz", ".npy", ".h5", ".hdf5")
MESHES = (".vtu", ".vtk")
UNREADABLE = (
    *MALFORMED,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""The errors of numpy, h5py and pandas if the content of a file is not what its name says."""
SUFFIXES = (*TEXT, ".parquet", *ARRAYS, *MESHES)


def read_table(
    path: str | Path,
    *,
    inputs: Sequence[str] = (),
    targets: int | str | Sequence[str] = 1,
    separator: str = "",
    decimal: str = "",
    header: bool | None = None,
    missing: str = "refuse",
    key: str = "",
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs x and targets y of a data file. Local.

    Text files (.csv, .dat, .txt, .tsv) may have comment lines, a header, a row of units, quotes,
    and any usual separator and encoding. What a file leaves open is inferred and logged. Parquet
    files (.parquet) hold columns too. NumPy and HDF5 files (.npz, .npy, .h5, .hdf5) hold arrays
    x (N, D) and y (N, M), or one array of columns, or arrays that `inputs` and `targets` name. VTK
    files (.vtu, .vtk) hold coordinates x, y, z of points and arrays of values at them. No file is
    read by pickle.

    Args:
        path: the file.
        inputs: names of the input columns; default all that are not targets.
        targets: names of the target columns, or how many of the last columns are targets. A file
            with arrays x and y says it itself.
        separator: comma, semicolon, tab, blank or bar; default inferred.
        decimal: "." or ","; default inferred.
        header: whether the first line names the columns; default inferred.
        missing: "refuse", or "drop" to leave out rows that lack a value of a chosen column.
        key: config key that names the file, for messages.

    Returns:
        (x_ND, y_NM), float64.

    Raises:
        UsageError: the file cannot be read, or a chosen column holds something else than finite
            numbers. The message names the line and the column. Or a package is not installed.
    """
    path, targets = Path(path), [targets] if isinstance(targets, str) else targets
    inputs = [inputs] if isinstance(inputs, str) else inputs
    with readable(f"{key} = {str(path)!r}" if key else str(path)):
        if missing not in ("refuse", "drop"):
            raise UsageError(f"missing = {missing!r}: allowed are 'refuse' and 'drop'")
        table = _read(path, inputs, targets, TextOptions(separator, decimal, header))
        x_columns, y_columns = choose(table, inputs, targets)
        used = [to_numbers(table, column) for column in (*x_columns, *y_columns)]
        values = finite_rows(table, (*x_columns, *y_columns), used, missing, path.name)
    return values[:, : len(x_columns)], values[:, len(x_columns) :]


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Context manager that turns the errors of a file into a UsageError that begins with `where`.

    Raises:
        UsageError: the file cannot be read, or does not fit into memory.
    """
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    except MemoryError:
        raise UsageError(f"{where} does not fit into memory; use a smaller file") from None
    except UNREADABLE as error:
        reason = short(str(error) or type(error).__name__, 200)
        raise UsageError(f"{where} cannot be read: {reason}") from None


def _read(path: Path, inputs, targets, options: TextOptions) -> Table:
    if not os.path.isfile(path):
        raise UsageError("there is no such file")
    suffix = path.suffix.lower()
    if suffix in TEXT:
        return read_text(path, options)
    if options != TextOptions():
        raise UsageError("separator, decimal and header are options of text files")
    if suffix == ".parquet":
        return read_parquet(path)
    if suffix in ARRAYS:
        return read_arrays(path, inputs, targets)
    if suffix in MESHES:
        return read_mesh(path, inputs, targets)
    raise UsageError(f"its name ends in none of {' '.join(SUFFIXES)}")


def choose(table: Table, inputs: Sequence[str], targets: int | Sequence[str]):
    """Positions of the input and the target columns.

    Raises:
        UsageError: a name is unknown or not unique, a column is both, or no inputs are left.
    """
    count = len(table.columns)
    if isinstance(targets, int):
        num_targets = table.num_targets or targets
        if num_targets < 1:
            raise UsageError(f"targets = {targets}: needed is at least 1")
        if num_targets >= count:
            raise UsageError(
                f"it has {count} column{'s'[: count != 1]}, of which {num_targets} are targets; "
                "needed are inputs (N, D) and targets (N, M)"
            )
        y = list(range(count - num_targets, count))
    else:
        y = [column for name in targets for column in _named(table, name, "targets")]
    x = [column for name in inputs for column in _named(table, name, "inputs")]
    x = x or sorted({*range(count)} - {*y})
    twice = [column for column, times in Counter([*x, *y]).items() if times > 1]
    if twice:
        raise UsageError(f"{table.title(min(twice))} is chosen twice by `inputs` and `targets`")
    if not x or not y:
        raise UsageError("needed are at least one input and one target column")
    return x, y


def _named(table: Table, name: str, option: str) -> list[int]:
    """Positions of the columns with a name. Those of one array have the same name."""
    if not table.names:
        raise UsageError(f"{option} = {name!r}: the file does not name its columns")
    found = [column for column, other in enumerate(table.names) if other == name]
    if not found:
        allowed = dict.fromkeys(short(other) for other in table.names[:20])
        raise UsageError(unknown(f"{option} = {name!r}", "column", name, allowed))
    return found


def finite_rows(table: Table, columns, values, missing: str, file: str) -> np.ndarray:
    """The rows (N, K) of some columns, all finite.

    Raises:
        UsageError: a value is infinite, or missing and not to be dropped; or fewer than two rows
            are left.
    """
    rows = np.stack(values, 1)
    infinite = np.argwhere(np.isinf(rows))
    if len(infinite):
        row, column = infinite[0]
        raise UsageError(f"{table.where(row, columns[column])} is infinite, not a finite number")
    lacks = np.isnan(rows).any(1)
    count = int(lacks.sum())
    if count and missing == "refuse":
        row, column = np.argwhere(np.isnan(rows))[0]
        raise UsageError(
            f"{table.where(row, columns[column])}: the value is missing, and so it is not a finite "
            f"number; {count} of {len(rows)} rows lack a value; to leave them out, set missing = "
            '"drop"'
        )
    if count:
        log.info(
            "%s: %d of %d rows are left out, because they lack a value", file, count, len(rows)
        )
        rows = rows[~lacks]
    if len(rows) < 2:
        raise UsageError(f"it has {len(rows)} usable rows of numbers; needed are at least 2")
    return rows
