"""Polygons with holes, by shapely (`pip install 'nedhpc[shapes]'`). Local."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from nedhpc.domains.piece import Piece, choose, rows_by_name, with_cells
from nedhpc.domains.rfunctions import both, either, polygon_level
from nedhpc.domains.shape import Shape
from nedhpc.errors import UsageError

EDGE_CHUNK = 2**22
"""Pairs of points and edges whose distances are computed at once."""


class Polygon(Shape):
    """A polygon, with holes if there are any.

        nedhpc.Polygon([[0, 0], [2, 0], [2, 1], [0, 1]], sides={3: "inlet", 1: "outlet"})

    Args:
        outline: corners (V, 2) in either direction, or a shapely Polygon or MultiPolygon.
        holes: corners of each hole.
        sides: names of edges by number: edge k joins corner k and the next one. The edges of the
            holes follow those of the outline. For a shapely geometry they are counted in the order
            of its rings.
        name: name of the edges that `sides` does not name; default: none.

    Raises:
        UsageError: shapely is missing; the polygon crosses itself, has no area, or a hole is not
            inside; or `sides` names no edge.
    """

    def __init__(
        self,
        outline: ArrayLike | Any,
        holes: Sequence[ArrayLike] = (),
        sides: Mapping[int, str] | None = None,
        name: str | None = None,
    ) -> None:
        self.shapely = _shapely()
        self.geometry = self._checked(outline, holes)
        self.shapely.prepare(self.geometry)
        rings = [ring for area in self._areas() for ring in (area.exterior, *area.interiors)]
        corners = [np.array(ring.coords)[:, :2] for ring in rings]
        start_E2 = np.concatenate([ring[:-1] for ring in corners])
        stop_E2 = np.concatenate([ring[1:] for ring in corners])
        normal_E2 = np.concatenate(
            [_normals(ring.coords, hole) for ring, hole in zip(rings, self._is_hole())]
        )
        names = self._edge_names(sides or {}, len(start_E2), name)
        faces = [
            _edges(start_E2[here], stop_E2[here], normal_E2[here], of)
            for of, here in rows_by_name(names).items()
        ]
        low, high = np.reshape(self.geometry.bounds, (2, 2))
        self._set(low, high, self._interior(), faces)

    def _areas(self):
        return getattr(self.geometry, "geoms", [self.geometry])

    def _is_hole(self):
        return [k > 0 for area in self._areas() for k in range(1 + len(area.interiors))]

    def _checked(self, outline, holes):
        shapely = self.shapely
        if isinstance(outline, shapely.Polygon | shapely.MultiPolygon):
            geometry = outline
        else:
            rings = [np.array(ring, float) for ring in (outline, *holes)]
            for ring in rings:
                if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3:
                    raise UsageError(
                        f"Polygon: needed are at least three corners (V, 2); it got {ring.shape}"
                    )
                same = (ring == np.roll(ring, -1, axis=0)).all(1)[:-1]
                if same.any():
                    k = int(np.flatnonzero(same)[0])
                    raise UsageError(f"Polygon: corners {k} and {k + 1} are equal; leave one out")
                if not np.isfinite(ring).all():
                    raise UsageError("Polygon: a corner is not finite")
            geometry = shapely.Polygon(rings[0], rings[1:])
        if not geometry.is_valid or geometry.is_empty or not geometry.area > 0:
            reason = shapely.is_valid_reason(geometry)
            raise UsageError(
                f"Polygon: it is not valid: {reason}; its edges must not cross, and it must have "
                "an area, with its holes inside"
            )
        return geometry

    def _edge_names(self, sides, count, name):
        for key in sides:
            if not (isinstance(key, int) and 0 <= key < count):
                raise UsageError(
                    f"Polygon: sides[{key!r}]: its edges are numbered 0 .. {count - 1}"
                )
        return [sides.get(k, name) for k in range(count)]

    def _interior(self) -> Piece:
        """The polygon's triangles, by a constrained Delaunay triangulation."""
        triangles: Any = self.shapely.constrained_delaunay_triangles(self.geometry).geoms
        corner_T32 = np.array([np.array(t.exterior.coords)[:3, :2] for t in triangles])
        area_T = np.array([t.area for t in triangles])

        def place(unit_N2):
            which_N, unit_N2 = choose(area_T, unit_N2)
            return on_triangles(corner_T32[which_N], unit_N2)

        return Piece(dim=2, measure=self.geometry.area, place=place)

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        return self.shapely.contains_xy(self.geometry, x_ND[:, 0], x_ND[:, 1])

    def level(self, x_ND: torch.Tensor) -> torch.Tensor:
        """The R-function of the half-planes of its edges; smooth except at its corners."""
        levels = []
        for area in self._areas():
            rings = [np.array(ring.coords)[:-1, :2] for ring in (area.exterior, *area.interiors)]
            outer, *inner = [
                polygon_level(ring if ring_area(ring) > 0 else ring[::-1], x_ND) for ring in rings
            ]
            levels.append(both([outer, *(-hole for hole in inner)]))
        return either(levels)


def _shapely():
    try:
        import shapely
    except ImportError:
        raise UsageError("nedhpc.Polygon needs shapely: pip install 'nedhpc[shapes]'") from None
    return shapely


def ring_area(corner_V2: np.ndarray) -> float:
    """The signed area of a ring of corners; positive if they run counterclockwise."""
    x, y = (corner_V2 - corner_V2[0]).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def _normals(coords, is_hole):
    """Unit normals of the edges of a closed ring, out of the polygon."""
    ring = np.array(coords)[:, :2]
    edge_E2 = np.diff(ring, axis=0)
    sign = 1.0 if (ring_area(ring[:-1]) > 0) != is_hole else -1.0
    n_E2 = np.stack([edge_E2[:, 1], -edge_E2[:, 0]], 1)
    return sign * n_E2 / np.linalg.norm(n_E2, axis=1, keepdims=True)


def _edges(start_E2, stop_E2, normal_E2, name) -> Piece:
    """Edges as one curve, with a corner at each end."""
    edge_E2 = stop_E2 - start_E2
    length_E = np.sqrt((edge_E2**2).sum(1))
    until_E = np.cumsum(length_E) / length_E.sum()

    def place(unit_N1):
        which_N, along_N1 = choose(length_E, unit_N1)
        return start_E2[which_N] + along_N1 * edge_E2[which_N]

    def nearest(x_N2):
        """Distance to, and number of, the nearest edge."""
        found = []
        for x in np.array_split(x_N2, 1 + len(x_N2) * len(edge_E2) // EDGE_CHUNK):
            from_NE2 = x[:, None] - start_E2
            along_NE = ((from_NE2 * edge_E2).sum(2) / length_E**2).clip(0, 1)
            square_NE = ((from_NE2 - along_NE[:, :, None] * edge_E2) ** 2).sum(2)
            edge_N = square_NE.argmin(1)
            found.append((np.sqrt(square_NE.min(1)), edge_N))
        return tuple(np.concatenate(parts) for parts in zip(*found))

    return with_cells(
        Piece(
            dim=1,
            measure=float(length_E.sum()),
            place=place,
            outward=lambda x_N2: normal_E2[nearest(x_N2)[1]],
            gap=lambda x_N2: nearest(x_N2)[0],
            name=name,
            breaks=tuple(until_E[:-1].tolist()),
        )
    )


def on_triangles(corner_N3D: np.ndarray, unit_N2: np.ndarray) -> np.ndarray:
    """Even points of triangles, (N, D), for points of the unit square.

    Args:
        corner_N3D: the corners of the triangle of each point.
        unit_N2: points of the unit square.
    """
    root_N1, share_N1 = np.sqrt(unit_N2[:, :1]), unit_N2[:, 1:2]
    a, b, c = corner_N3D.swapaxes(0, 1)
    return a + root_N1 * ((1 - share_N1) * (b - a) + share_N1 * (c - a))
