"""A solution at the points of a file or of a grid, on any number of ranks, to a file.

The points are evaluated in chunks that do not depend on the ranks, so that the file is the same on
any number of them. Rank 0 writes each chunk as it comes. Without a communicator no MPI is needed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nedhpc.errors import UsageError
from nedhpc.files import checkpoint
from nedhpc.parallel.comm import agreed, on_rank_0
from nedhpc.postprocess.output import whole_file
from nedhpc.postprocess.places import Grid, inside, read_points
from nedhpc.postprocess.solution import CHUNK, Solution
from nedhpc.problems.base import Problem

LONG_NAMES = {
    "points": "coordinates of the points",
    "inside": "true if the point belongs to the domain",
}
Write = Callable[[int, dict[str, np.ndarray]], None]
"""Writes columns (n,) or (n, K) by name, from a row on."""


def evaluate(
    path: str | Path,
    output: str | Path,
    *,
    points: str | Path | None = None,
    grid: Sequence[int] | None = None,
    jets: Sequence[str] = (),
    time: float | None = None,
    problem: "Problem | type[Problem] | None" = None,
    comm: Any = None,
) -> int:
    """Write points, outputs and derivatives to an HDF5, NPZ or CSV file. Collective on comm.

    The file has `points` (N, D), `inside` (N,), which tells whether a point belongs to the domain,
    and each jet, (N,), or (N, D) for `grad_u`. On a grid, jets outside the domain are NaN; at the
    points of a file the network is evaluated wherever they are.

    Args:
        path: run folder or checkpoint.
        output: the file; its suffix is .h5, .hdf5, .npz or .csv.
        points: a file of points, as `read_points` reads it.
        grid: number of points along each coordinate, of a grid over the bounds of the domain.
        jets: names such as "u", "u_x" or "lap_u"; default all outputs.
        time: for a march, one of the times that march.h5 holds.
        problem: as for Solution.
        comm: mpi4py communicator; None: this process works alone.

    Returns:
        N.

    Raises:
        UsageError: points or grid do not fit, a jet is unknown, or the file cannot be written. The
            same on all ranks.
    """
    suffix = Path(output).suffix.lower()
    if suffix not in WRITERS:
        raise UsageError(f"{output}: its name must end in one of {' '.join(WRITERS)}")
    file = _on_rank_0(comm, _newest, Path(path))

    def prepare() -> tuple[Solution, Any]:
        solution = Solution(file, problem)
        solution = solution if time is None else solution.at(time)
        domain = solution.problem.domain
        if grid is not None:
            return solution, Grid(domain, grid)
        if points is None:
            raise UsageError("evaluate needs the points of a file, or a grid")
        return solution, read_points(points, solution.problem.coordinates)

    solution, places = _agreed(comm, prepare)
    names = tuple(jets) or solution.outputs
    facts = _facts(solution, file, places)
    pieces = _pieces(comm, solution, places, names)
    _agreed(comm, _write_all, Path(output), WRITERS[suffix], pieces, len(places), facts, comm)
    return len(places)


def _on_rank_0(comm, function, *args):
    return function(*args) if comm is None else on_rank_0(comm, function, *args)


def _agreed(comm, function, *args):
    return function(*args) if comm is None else agreed(comm, function, *args)


def _newest(path: Path) -> Path:
    """The checkpoint that all ranks read, also if the run writes a newer one in the meantime."""
    return checkpoint.newest(path)[0] if path.is_dir() else path


def _facts(solution: Solution, file: Path, places) -> dict[str, Any]:
    """What the file says about itself."""
    facts = {
        "checkpoint": str(file),
        "step": solution.state.step,
        "time": solution.state.time,
        "coordinates": list(solution.problem.coordinates),
    }
    return facts | ({"shape": places.shape} if isinstance(places, Grid) else {})


def _pieces(comm, solution, places, names) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(first row, columns) of each chunk in order on rank 0; on the others nothing. Collective.

    Chunk k is computed by rank k % size.
    """
    rank, size = (0, 1) if comm is None else (comm.rank, comm.size)
    starts = range(0, len(places), CHUNK)
    for first in range(0, len(starts), size):
        mine = first + rank

        def compute(mine=mine):
            rows = slice(starts[mine], starts[mine] + CHUNK) if mine < len(starts) else None
            return rows and (rows.start, _columns(solution, places, names, rows))

        piece = _agreed(comm, compute)
        yield from (p for p in ([piece] if comm is None else comm.gather(piece) or []) if p)


def _columns(solution, places, names, rows) -> dict[str, np.ndarray]:
    x_ND = places[rows]
    inside_N = inside(solution.problem.domain, x_ND)
    values = solution.jets(names, x_ND)
    if isinstance(places, Grid):
        for value in values.values():
            value[~inside_N] = np.nan
    return {"points": x_ND, "inside": inside_N, **values}


def _write_all(output: Path, writer, pieces, num_points: int, facts, comm) -> None:
    """Write the pieces on rank 0."""
    try:
        if comm is None or comm.rank == 0:
            with whole_file(output) as path, writer(path, num_points, facts) as write:
                for start, columns in pieces:
                    write(start, columns)
    finally:
        for _ in pieces:  # also if rank 0 cannot write: the other ranks take part in all chunks
            pass


@contextmanager
def _hdf5(path: Path, num_points: int, facts: dict[str, Any]) -> Iterator[Write]:
    """Context manager for a writer of datasets, which keeps no chunk in memory."""
    with h5py.File(path, "w") as file:
        file.attrs.update(facts)

        def write(start, columns):
            for name, values in columns.items():
                if name not in file:
                    shape = (num_points, *values.shape[1:])
                    dataset = file.create_dataset(name, shape, values.dtype)
                    dataset.attrs["long_name"] = LONG_NAMES.get(name, name)
                file[name][start : start + len(values)] = values

        yield write


@contextmanager
def _npz(path: Path, num_points: int, facts: dict[str, Any]) -> Iterator[Write]:
    """Context manager for a writer of arrays, which are held in memory until the end."""
    arrays: dict[str, list[np.ndarray]] = {}

    def write(start, columns):
        for name, values in columns.items():
            arrays.setdefault(name, []).append(values)

    yield write
    whole = {name: np.concatenate(parts) for name, parts in arrays.items()}
    with open(path, "wb") as file:
        np.savez(file, **whole, **{k: np.array(v) for k, v in facts.items() if k not in whole})


@contextmanager
def _csv(path: Path, num_points: int, facts: dict[str, Any]) -> Iterator[Write]:
    """Context manager for a writer of lines. Columns of `points` have the coordinates' names."""
    with open(path, "w") as file:

        def write(start, columns):
            titles, flat = [], []
            for name, values in columns.items():
                wide = values.reshape(len(values), -1)
                parts = facts["coordinates"][: wide.shape[1]]
                if name == "points":
                    titles += parts
                else:
                    titles += [f"{name}.{x}" for x in parts] if values.ndim > 1 else [name]
                flat.append(wide)
            if start == 0:
                file.write(",".join(titles) + "\n")
            np.savetxt(file, np.concatenate(flat, 1), "%.17g", ",")

        yield write


WRITERS = {".h5": _hdf5, ".hdf5": _hdf5, ".npz": _npz, ".csv": _csv}
"""The kinds of output file by suffix."""
