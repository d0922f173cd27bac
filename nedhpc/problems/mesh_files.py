"""Values at the points of a mesh in a VTK file, by meshio (`pip install 'nedhpc[data]'`). Local."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nedhpc.errors import UsageError
from nedhpc.names import unknown
from nedhpc.problems.array_files import check_claim
from nedhpc.problems.cells import Table, real, short

COORDINATES = ("x", "y", "z")
HEAD_BYTES = 4096
"""The part of a .vtu file that holds the attributes of its first element."""
POINT_BYTES = 12
"""Three coordinates in float32: the least that a point needs if it is not compressed."""


def read_mesh(path: Path, inputs: Sequence[str], targets: Sequence[str] | int) -> Table:
    """Columns of a mesh in a .vtu or legacy .vtk file: coordinates, then values at its points.

    Args:
        path: the file.
        inputs: names of coordinates x, y, z or of arrays; default: the coordinates, without those
            that are the same at all points.
        targets: names of arrays; if it is a number, the only array that the file holds.

    Returns:
        The columns that were chosen. A row that repeats another one is left out, since a mesh in
        pieces repeats the points between them.

    Raises:
        UsageError: meshio is missing or cannot read the file, or an array is missing, is at cells
            instead of points, or does not hold real numbers.
    """
    mesh = _mesh(path)
    points, arrays = np.asarray(mesh.points), dict(mesh.point_data)
    columns = dict(zip(COORDINATES, points.T))
    for name in columns.keys() & arrays.keys():
        raise UsageError(f"array {name} has the name of a coordinate; rename the array")
    if isinstance(targets, int):
        if len(arrays) != 1:
            found = short(", ".join(arrays), 200) or "none"
            raise UsageError(f"its arrays at points are: {found}; choose some by targets = [...]")
        targets = list(arrays)
    varying = [name for name, x_N in columns.items() if len(x_N) and np.ptp(x_N) > 0]
    names, values, num_targets = [], [], 0
    for name in (*(inputs or varying), *targets):
        if name not in columns and name not in arrays:
            raise UsageError(_missing(name, mesh, [*columns, *arrays]))
        array = columns[name] if name in columns else arrays[name]
        array = real(np.asarray(array), f"array {short(name)}").reshape(len(points), -1)
        names += [name] * array.shape[1]
        values += list(array.T)
        num_targets += array.shape[1] if name in targets else 0
    rows, first = np.unique(np.stack(values, 1), axis=0, return_index=True)
    if len(rows) < len(points):
        values = [column[np.sort(first)] for column in values]
    return Table(names, values, list(range(1, len(names) + 1)), num_targets=num_targets)


def _missing(name: str, mesh: Any, names: Sequence[str]) -> str:
    """What to say of an array that has no values at points."""
    if name in mesh.cell_data:
        return (
            f"array {short(name)} has a value for each cell, not for each point; convert it, in "
            "ParaView by the filter Cell Data to Point Data"
        )
    return unknown(f"array {name!r}", "name", name, names)


def _mesh(path: Path) -> Any:
    try:
        import meshio
    except ImportError:
        raise UsageError(
            "reading VTK needs meshio, which is not installed: pip install 'nedhpc[data]'"
        ) from None
    is_xml = path.suffix.lower() == ".vtu"
    _check_head(path, is_xml)
    try:
        # meshio.read ends the process if a file is damaged; the readers of a format raise.
        return (meshio.vtu if is_xml else meshio.vtk).read(path)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # whatever its readers meet in a damaged file
        reason = short(str(error) or type(error).__name__, 200)
        kind = "XML with zlib, LZMA or no compression" if is_xml else "version 5.1 or earlier"
        raise UsageError(
            f"cannot be read by meshio as VTK ({kind}): {reason}; if ParaView opens it, save it "
            "there as another .vtu file"
        ) from None


def _check_head(path: Path, is_xml: bool) -> None:
    """Refuse what would make meshio use all memory or never end."""
    if is_xml:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
        counter = re.search(rb'header_type\s*=\s*["\'](\w*)', head)
        if counter and counter[1] not in (b"UInt32", b"UInt64"):
            raise UsageError(f"its header_type is {counter[1].decode()}, not UInt32 or UInt64")
        return
    with open(path, "rb") as file:
        for line in file:
            word, *rest = line[:200].split()[:4] or [b""]
            if word.upper() == b"DIMENSIONS" and len(rest) == 3 and all(map(bytes.isdigit, rest)):
                check_claim(POINT_BYTES * int(rest[0]) * int(rest[1]) * int(rest[2]), path)
