"""A solution as a VTKHDF file, which ParaView and VTK open as it is. Local.

Boxes become image data, shapes unstructured grids of simplices, point clouds vertices. A march and
a problem in space-time become time series. The layout is version 2.0 of
https://docs.vtk.org/en/latest/vtk_file_formats/vtkhdf_file_format/vtkhdf_specifications.html, which
is written with h5py, because VTK itself is larger than all that nedhpc needs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

from nedhpc.domains.base import Domain
from nedhpc.domains.box import Box, SpaceTime
from nedhpc.domains.in_time import InTime
from nedhpc.errors import UsageError
from nedhpc.postprocess.mesh import mesh
from nedhpc.postprocess.output import whole_file
from nedhpc.postprocess.places import Grid
from nedhpc.postprocess.solution import Solution
from nedhpc.problems.base import Problem

NUM_POINTS = {1: 1001, 2: 257, 3: 65}
"""Number of points along a coordinate, by the dimension of space."""
NUM_MESH = {1: 1001, 2: 129, 3: 33}
"""Number of points of a mesh along its longest side."""
NUM_TIMES = 11
"""Number of times of a problem in space-time."""
CELLS = {1: 1, 2: 3, 3: 5, 4: 10}
"""VTK's number of a vertex, line, triangle or tetrahedron, by the number of its points."""
Frame = Callable[[np.ndarray], dict[str, np.ndarray]]
"""The fields at points of space, at one time."""


def export(
    path: str | Path,
    output: str | Path,
    *,
    grid: Sequence[int] | None = None,
    jets: Sequence[str] = (),
    num_times: int = NUM_TIMES,
    problem: "Problem | type[Problem] | None" = None,
) -> str:
    """Write outputs, exact values, errors and derivatives of a run to a VTKHDF file. Local.

    Args:
        path: run folder or checkpoint.
        output: the file, NAME.vtkhdf.
        grid: number of points along each space coordinate of a box, or along the longest side of a
            shape.
        jets: derivatives that are written beside the outputs.
        num_times: number of times of a problem in space-time; a march has those of march.h5.
        problem: as for Solution.

    Returns:
        What the file holds, in words.

    Raises:
        UsageError: space has more than three dimensions, a name or the grid does not fit, or the
            file cannot be written.
    """
    output, solution = Path(output), Solution(path, problem)
    if output.suffix not in (".vtkhdf", ".hdf"):
        raise UsageError(f"{output}: ParaView knows VTKHDF files by the suffix .vtkhdf; use it")
    space = _space(solution.problem.domain)
    if space.dim > 3:
        raise UsageError(
            f"the domain has {space.dim} space coordinates, and a VTK file at most 3; "
            "`nedhpc evaluate` writes any points"
        )
    names = tuple(dict.fromkeys([*solution.outputs, *jets]))
    frames, times = _frames(solution, names, num_times)
    with whole_file(output) as temporary, h5py.File(temporary, "w") as file:
        root = file.create_group("VTKHDF")
        root.attrs["Version"] = [2, 0]
        if isinstance(space, Box):
            what = _write_image(root, Grid(space, grid or (NUM_POINTS[space.dim],)), frames)
        else:
            what = _write_mesh(root, *mesh(space, max(grid or (NUM_MESH[space.dim],))), frames)
        if times is not None:
            _write_times(root, times)
            what += f" at {len(times)} times"
    return what


def _space(domain: Domain) -> Domain:
    """The domain of space only."""
    if isinstance(domain, InTime):
        return domain.space
    if isinstance(domain, SpaceTime):
        return Box(domain.low[:-1], domain.high[:-1])
    if domain.coordinates[-1] == "t":
        raise UsageError(
            f"{type(domain).__name__} has a time of its own; `export` knows nedhpc.SpaceTime and "
            "nedhpc.InTime; `nedhpc evaluate` writes any points"
        )
    return domain


def _frames(
    solution: Solution, names: tuple[str, ...], num_times: int
) -> tuple[list[Frame], np.ndarray | None]:
    """The fields at each time, and the times; None if there is no time."""
    domain = solution.problem.domain
    if domain.coordinates[-1] == "t":
        times = np.linspace(domain.low[-1], domain.high[-1], num_times)
        return [_frame(solution, names, float(t)) for t in times], times
    if solution.problem.is_march:
        times = solution.every_time
        return [_frame(solution.at(float(t)), names) for t in times], times
    return [_frame(solution, names)], None


def _frame(solution: Solution, names: tuple[str, ...], t: float | None = None) -> Frame:
    """The fields of a solution, with the time as the last coordinate if t is given."""

    def fields(x_ND: np.ndarray) -> dict[str, np.ndarray]:
        if t is not None:
            x_ND = np.column_stack([x_ND, np.full(len(x_ND), t)])
        found = solution.jets(names, x_ND)
        exact = solution.exact(x_ND)
        for m, name in enumerate(solution.outputs if exact is not None else ()):
            found[f"exact_{name}"] = exact[:, m]
            found[f"error_{name}"] = found[name] - exact[:, m]
        return {name: _vector(values) for name, values in found.items()}

    return fields


def _vector(values: np.ndarray) -> np.ndarray:
    """Vectors (N, D) as (N, 3), which VTK needs; numbers (N,) as they are."""
    if values.ndim == 1:
        return values
    return np.pad(values, ((0, 0), (0, 3 - values.shape[1])))


def _write_image(root: h5py.Group, grid: Grid, frames: Sequence[Frame]) -> str:
    """Image data: fields (nz, ny, nx), (ny, nx) or (nx,), with (T, ...) if there is time."""
    if min(grid.shape) < 2:
        raise UsageError("image data needs at least two points along each coordinate")
    sizes = (*grid.shape, 1, 1)[:3]
    root.attrs["Type"] = np.bytes_("ImageData")
    root.attrs["WholeExtent"] = [end for n in sizes for end in (0, n - 1)]
    root.attrs["Origin"] = [*(float(axis[0]) for axis in grid.axes), 0.0, 0.0][:3]
    root.attrs["Spacing"] = [*(float(axis[1] - axis[0]) for axis in grid.axes), 1.0, 1.0][:3]
    root.attrs["Direction"] = np.eye(3).ravel()
    x_ND = grid[:]
    for k, frame in enumerate(frames):
        for name, values in frame(x_ND).items():
            values = values.reshape(*grid.shape, *values.shape[1:])
            # nedhpc counts the last coordinate fastest, VTK the first.
            values = np.moveaxis(values, range(len(grid.shape)), range(len(grid.shape))[::-1])
            _store(root, name, k, len(frames), values[None] if len(frames) > 1 else values)
    return f"image data of {' x '.join(map(str, grid.shape))} points"


def _write_mesh(
    root: h5py.Group, x_ND: np.ndarray, cells_CK: np.ndarray, frames: Sequence[Frame]
) -> str:
    """An unstructured grid: fields (T N,)."""
    count, width = cells_CK.shape
    root.attrs["Type"] = np.bytes_("UnstructuredGrid")
    root["NumberOfPoints"], root["NumberOfCells"] = [len(x_ND)], [count]
    root["NumberOfConnectivityIds"] = [cells_CK.size]
    root["Points"] = _vector(x_ND)
    root["Connectivity"] = cells_CK.ravel().astype(np.int64)
    root["Offsets"] = np.arange(0, cells_CK.size + 1, width)
    root["Types"] = np.full(count, CELLS[width], np.uint8)
    for k, frame in enumerate(frames):
        for name, values in frame(x_ND).items():
            _store(root, name, k, len(frames), values)
    return f"an unstructured grid of {len(x_ND)} points and {count} cells"


def _store(root: h5py.Group, name: str, k: int, num_frames: int, values: np.ndarray) -> None:
    """Write frame k of a field; the frames follow one another along the first axis."""
    path, length = f"PointData/{name}", len(values)
    if path not in root:
        root.create_dataset(path, (num_frames * length, *values.shape[1:]), values.dtype)
    root[path][k * length : (k + 1) * length] = values


def _write_times(root: h5py.Group, times: np.ndarray) -> None:
    """The group Steps: the points of all times are the same, and the fields follow one another."""
    steps, count = root.create_group("Steps"), len(times)
    steps.attrs["NSteps"] = count
    steps["Values"] = times
    for name, field in root["PointData"].items():
        steps[f"PointDataOffsets/{name}"] = np.arange(count) * (len(field) // count)
    if root.attrs["Type"] == b"UnstructuredGrid":
        steps["PartOffsets"], steps["NumberOfParts"] = np.zeros(count, int), np.ones(count, int)
        steps["PointOffsets"] = np.zeros(count, int)
        for name in ("CellOffsets", "ConnectivityIdOffsets"):
            steps[name] = np.zeros((count, 1), int)
