"""Where a solution is evaluated: even grids of a domain, and points of a file. Local."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nedhpc.domains.base import Domain
from nedhpc.errors import UsageError
from nedhpc.problems.array_files import array_names, read_arrays, read_parquet
from nedhpc.problems.cells import Table, to_numbers
from nedhpc.problems.tables import ARRAYS, SUFFIXES, TEXT, readable
from nedhpc.problems.text_table import TextOptions, read_text

ON_BOUNDARY = 1e-9
"""Points that are outside by this share of the domain count as lying on its boundary."""


def inside(domain: Domain, x_ND: np.ndarray) -> np.ndarray:
    """Tells which points belong to the domain or to its boundary, bool (N,).

    Args:
        domain: the domain.
        x_ND: points, (N, D) float64.
    """
    slack = ON_BOUNDARY * (domain.high - domain.low)
    centre = (domain.low + domain.high) / 2
    within_N = ((x_ND >= domain.low - slack) & (x_ND <= domain.high + slack)).all(1)
    # A box excludes its own walls, so its outermost points are moved inward.
    within_N[within_N] = domain.inside(centre + (1 - 2 * ON_BOUNDARY) * (x_ND[within_N] - centre))
    return within_N


class Grid:
    """An even grid over the bounds of a domain, ends included. It computes its points when asked.

    Args:
        domain: the domain.
        shape: number of points along each coordinate; one number stands for all coordinates.

    Raises:
        UsageError: there are not as many numbers as coordinates, or one is below 1.
    """

    def __init__(self, domain: Domain, shape: Sequence[int]):
        shape = tuple(shape) * (domain.dim if len(shape) == 1 else 1)
        if len(shape) != domain.dim or min(shape) < 1:
            given = "x".join(map(str, shape))
            names = ", ".join(domain.coordinates)
            raise UsageError(
                f"grid {given}: needed is a number of points, at least 1, for each of the "
                f"{domain.dim} coordinates {names}"
            )
        self.shape = shape
        self.axes = [
            np.linspace(a, b, n) if n > 1 else np.array([(a + b) / 2])
            for a, b, n in zip(domain.low, domain.high, shape, strict=True)
        ]

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Points (N, D) of consecutive rows; the last coordinate is the fastest."""
        index_N = np.arange(*rows.indices(len(self)))
        places = np.unravel_index(index_N, self.shape)
        return np.stack([axis[i] for axis, i in zip(self.axes, places, strict=True)], 1)


def read_points(path: str | Path, coordinates: Sequence[str]) -> np.ndarray:
    """Points (N, D) float64 of a data file: text, Parquet, NPY, NPZ or HDF5.

    They are the columns or arrays that have the names of the coordinates, or an array `points` or
    `x` (N, D), or all there is if that has D columns.

    Args:
        path: the file.
        coordinates: names of the D coordinates.

    Raises:
        UsageError: the file cannot be read, holds no D columns of coordinates, or a number is not
            finite.
    """
    path = Path(path)
    with readable(str(path)):
        if not path.is_file():
            raise UsageError("there is no such file")
        table = _table(path, tuple(coordinates))
        columns = [table.names.index(x) for x in coordinates if x in table.names]
        if len(columns) != len(coordinates) or len(set(table.names)) != len(table.names):
            columns = list(range(len(table.columns)))
        if len(columns) != len(coordinates):
            raise UsageError(
                f"it has {len(columns)} columns; needed is one for each of the coordinates "
                f"{', '.join(coordinates)}, or columns with these names"
            )
        x_ND = np.stack([to_numbers(table, column) for column in columns], 1)
        if not len(x_ND):
            raise UsageError("it holds no points")
        bad = np.argwhere(~np.isfinite(x_ND))
        if len(bad):
            row, column = bad[0]
            raise UsageError(f"{table.where(row, columns[column])} is not a finite number")
    return x_ND


def _table(path: Path, coordinates: tuple[str, ...]) -> Table:
    """The columns of the file; of several arrays, those that may be the points."""
    suffix = path.suffix.lower()
    if suffix in TEXT:
        return read_text(path, TextOptions("", "", None))
    if suffix == ".parquet":
        return read_parquet(path)
    if suffix not in ARRAYS:
        raise UsageError(f"its name ends in none of {' '.join(SUFFIXES)}")
    if suffix == ".npy":
        return read_arrays(path, (), 0)
    names = array_names(path)
    for wanted in (("points",), coordinates, ("x",)):
        if set(wanted) <= set(names):
            table = read_arrays(path, wanted, 0)
            if len(table.columns) == len(coordinates):
                return table
    return read_arrays(path, (), 0)
