"""Polyhedra and surfaces in STL files, by trimesh (`pip install 'nedhpc[shapes]'`). Local."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from nedhpc.domains.piece import Piece, choose, rows_by_name
from nedhpc.domains.polygon import on_triangles
from nedhpc.domains.rfunctions import both
from nedhpc.domains.shape import Shape
from nedhpc.errors import UsageError

PAIRS = 2**20
"""Pairs of points and triangles that are compared at once."""
FLAT = 1e-12
"""Triangles of a smaller share of the largest one's area are left out: they have no normal."""


class Polyhedron(Shape):
    """The inside of a closed surface of triangles.

        nedhpc.Polyhedron([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]],
                          [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])

    Args:
        corners: corners (V, 3).
        triangles: numbers of the corners of each triangle, (T, 3), in any orientation.
        name: name of the whole boundary; default: none.
        sides: names of triangles by a function of their midpoints and outward normals, both
            (T, 3), that returns bool (T,): {"inlet": lambda x, n: n[:, 2] < -0.9}.

    Raises:
        UsageError: trimesh is missing, the surface has a hole or an edge of three triangles, or a
            name gets no triangle.
    """

    rounding = 1e-9

    def __init__(
        self,
        corners: ArrayLike,
        triangles: ArrayLike,
        name: str | None = None,
        sides: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] | None = None,
    ) -> None:
        trimesh = _trimesh()
        mesh = trimesh.Trimesh(np.array(corners, float), np.array(triangles, int))
        self._build(mesh, name, sides or {}, "Polyhedron")

    @classmethod
    def read(
        cls,
        path: str | Path,
        name: str | None = None,
        sides: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] | None = None,
    ) -> "Polyhedron":
        """The polyhedron in a file: .stl, .obj, .ply, .off.

        Args:
            path: the file.
            name, sides: as for Polyhedron, whose errors it raises, too.

        Raises:
            UsageError: the file cannot be read.
        """
        trimesh, found = _trimesh(), cls.__new__(cls)
        try:
            mesh = trimesh.load_mesh(str(path))
        except Exception as error:
            raise UsageError(f"{path}: cannot be read as a surface: {error}") from None
        found._build(mesh, name, sides or {}, str(path))
        return found

    def _build(self, mesh: Any, name, sides, where: str) -> None:
        mesh.merge_vertices()
        _check_closed(mesh, where)
        if not mesh.is_winding_consistent or mesh.volume < 0:
            mesh.fix_normals()
        corner_T33 = np.array(mesh.triangles, float)
        cross_T3 = np.cross(
            corner_T33[:, 1] - corner_T33[:, 0], corner_T33[:, 2] - corner_T33[:, 0]
        )
        size_T = np.linalg.norm(cross_T3, axis=1)
        flat_T = size_T <= FLAT * size_T.max()
        self.grid = TriangleGrid(corner_T33)
        self.is_convex = bool(mesh.is_convex)
        corner_T33, size_T, cross_T3 = corner_T33[~flat_T], size_T[~flat_T], cross_T3[~flat_T]
        normal_T3 = cross_T3 / size_T[:, None]
        self.corner_T33, self.normal_T3 = corner_T33, normal_T3
        names = _names(corner_T33.mean(1), normal_T3, sides, name, where)
        faces = [
            _face(corner_T33[here], normal_T3[here], size_T[here] / 2, of)
            for of, here in rows_by_name(names).items()
        ]
        self.low, self.high = np.array(mesh.bounds)
        size = self.high - self.low
        interior = Piece(
            dim=3,
            measure=float(mesh.volume),
            place=lambda unit_N3: self.low + size * unit_N3,
            keep=self.inside,
        )
        self._set(self.low, self.high, interior, faces)

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        return self.grid.winding(x_ND) != 0

    def level(self, x_ND: torch.Tensor) -> torch.Tensor:
        """The R-conjunction of the half-spaces of the triangles, if the polyhedron is convex."""
        if not self.is_convex:
            return super().level(x_ND)
        size = float((self.high - self.low).max())
        rows = np.column_stack([self.normal_T3, (self.normal_T3 * self.corner_T33[:, 0]).sum(1)])
        _, first = np.unique(rows.round(9), axis=0, return_index=True)
        levels = []
        for k in np.sort(first):
            n, at = torch.as_tensor(rows[k, :3]).to(x_ND), float(rows[k, 3])
            levels.append((at - (x_ND * n).sum(1)) / size)
        return both(levels)


def _trimesh():
    try:
        import trimesh
    except ImportError:
        raise UsageError("nedhpc.Polyhedron needs trimesh: pip install 'nedhpc[shapes]'") from None
    return trimesh


def _check_closed(mesh, where):
    if not len(mesh.faces):
        raise UsageError(f"{where}: there are no triangles")
    edges = np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edge_E2, count_E = np.unique(edges, axis=0, return_counts=True)
    bad = edge_E2[count_E != 2]
    if len(bad):
        a, b = (np.array(mesh.vertices[k]).round(6).tolist() for k in bad[0])
        raise UsageError(
            f"{where}: the surface is not watertight: {len(bad)} edges do not have two triangles, "
            f"the first from {a} to {b}; close the surface in the program that made it"
        )


def _names(middle_T3, normal_T3, sides, name, where):
    names = [name] * len(middle_T3)
    for side, test in sides.items():
        here_T = np.asarray(test(middle_T3, normal_T3), bool)
        if here_T.shape != (len(names),) or not here_T.any():
            raise UsageError(
                f"{where}: sides[{side!r}] is true for no triangle, or does not return bool "
                f"({len(names)},)"
            )
        names = [side if here else old for here, old in zip(here_T, names)]
    return names


def _face(corner_T33, normal_T3, area_T, name) -> Piece:
    grid = TriangleGrid(corner_T33)

    def place(unit_N2):
        which_N, unit_N2 = choose(area_T, unit_N2)
        return on_triangles(corner_T33[which_N], unit_N2)

    return Piece(
        dim=2,
        measure=float(area_T.sum()),
        place=place,
        outward=lambda x_N3: normal_T3[grid.nearest(x_N3)[1]],
        gap=lambda x_N3: grid.nearest(x_N3)[0],
        name=name,
    )


class TriangleGrid:
    """Finds the triangles above and below a point, by a plane grid across a slanted direction.

    The direction is fixed and generic, so that hardly any point lies above an edge.
    """

    def __init__(self, corner_T33: np.ndarray):
        # Rows: an orthonormal frame, whose last row is the direction.
        third = np.array([0.2718281828, 0.3141592653, 0.9]) / np.linalg.norm(
            [0.2718281828, 0.3141592653, 0.9]
        )
        first = np.cross([0.0, 1.0, 0.0], third)
        first = first / np.linalg.norm(first)
        self.frame_33 = np.stack([first, np.cross(third, first), third])
        self.corner_T33 = corner_T33
        self.turned_T33 = (corner_T33[:, :, None] * self.frame_33).sum(3)
        flat = self.turned_T33[:, :, :2]
        self.size = float(np.ptp(flat, axis=(0, 1)).max())
        slack = 1e-9 * self.size
        self.low = flat.min((0, 1)) - slack
        self.side = int(np.clip(np.sqrt(len(flat)), 1, 1024))
        self.step = (self.size + 2 * slack) / self.side
        first, last = (self._cell(flat.min(1) - slack), self._cell(flat.max(1) + slack))
        count_T = (last - first + 1).prod(1)
        triangle = np.repeat(np.arange(len(flat)), count_T)
        index = np.arange(len(triangle)) - np.repeat(np.cumsum(count_T) - count_T, count_T)
        width = (last - first + 1)[triangle, 1]
        cell = (
            (first[triangle, 0] + index // width) * self.side + first[triangle, 1] + index % width
        )
        order = np.argsort(cell, kind="stable")
        self.triangle = triangle[order]
        self.start = np.searchsorted(cell[order], np.arange(self.side**2 + 1))

    def _cell(self, flat_N2):
        return ((flat_N2 - self.low) / self.step).astype(int).clip(0, self.side - 1)

    def _pairs(self, x_N3):
        """Chunks of (points, rows of the pairs, their triangles, turned points)."""
        turned_N3 = (x_N3[:, None] * self.frame_33).sum(2)
        cell_N2 = self._cell(turned_N3[:, :2])
        cell_N = cell_N2[:, 0] * self.side + cell_N2[:, 1]
        count_N = self.start[cell_N + 1] - self.start[cell_N]
        bounds = np.flatnonzero(np.diff(np.cumsum(count_N) // PAIRS, prepend=0)).tolist()
        for first, last in zip([0, *bounds], [*bounds, len(x_N3)]):
            count = count_N[first:last]
            row = np.repeat(np.arange(first, last), count)
            index = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
            yield row, self.triangle[self.start[cell_N[row]] + index], turned_N3

    def winding(self, x_N3: np.ndarray) -> np.ndarray:
        """How often the surface surrounds each point, int (N,): 0 outside."""
        found_N = np.zeros(len(x_N3), int)
        for row, triangle, turned_N3 in self._pairs(x_N3):
            corner, point = self.turned_T33[triangle], turned_N3[row]
            a, b, c = (corner[:, k, :2] - point[:, :2] for k in range(3))
            areas = [p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0] for p, q in ((b, c), (c, a), (a, b))]
            total = sum(areas)
            sign = np.sign(total).astype(int)
            hit = np.all([area * sign > 0 for area in areas], axis=0) & (sign != 0)
            height = sum(area * corner[:, k, 2] for k, area in enumerate(areas))
            above = hit & ((height - point[:, 2] * total) * sign > 0)
            np.add.at(found_N, row[above], sign[above])
        return found_N

    def nearest(self, x_N3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance (N,) to the nearest triangle of a point's cell, and its number (N,).

        It is right for points on the surface; for others the distance may be too large.
        """
        distance_N = np.full(len(x_N3), np.inf)
        triangle_N = np.zeros(len(x_N3), int)
        for row, triangle, _ in self._pairs(x_N3):
            distance = triangle_distance(x_N3[row], self.corner_T33[triangle])
            order = np.lexsort((distance, row))
            first = order[np.diff(row[order], prepend=-1) > 0]
            distance_N[row[first]], triangle_N[row[first]] = distance[first], triangle[first]
        return distance_N, triangle_N


def triangle_distance(x_N3: np.ndarray, corner_N33: np.ndarray) -> np.ndarray:
    """Distances (N,) of points to triangles: to the plane inside, else to the nearest edge."""
    a_N3, b_N3, c_N3 = corner_N33.swapaxes(0, 1)
    n_N3 = np.cross(b_N3 - a_N3, c_N3 - a_N3)
    square_N = (n_N3**2).sum(1)
    square_N[square_N == 0] = 1.0
    edges, is_over = [], np.ones(len(x_N3), bool)
    for p, q in ((a_N3, b_N3), (b_N3, c_N3), (c_N3, a_N3)):
        edge, beyond = q - p, x_N3 - p
        is_over &= (np.cross(edge, beyond) * n_N3).sum(1) >= 0
        along = ((beyond * edge).sum(1) / np.maximum((edge**2).sum(1), 1e-300)).clip(0, 1)
        edges.append(np.sqrt(((beyond - along[:, None] * edge) ** 2).sum(1)))
    height = np.abs(((x_N3 - a_N3) * n_N3).sum(1)) / np.sqrt(square_N)
    return np.where(is_over, height, np.min(edges, axis=0))
