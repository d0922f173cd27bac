"""Shapes: domains that can be combined by -, | and &, and whose parts can be named. Local.

A shape knows its interior, which points are inside, and the pieces of its boundary. Here is a
channel with an inlet, an outlet and a hole, and with two sensors in it:

    channel = nedhpc.Rectangle([0, 0], [2, 1], sides=dict(left="inlet", right="outlet"))
    domain = channel - nedhpc.Disk([0.5, 0.5], 0.1, name="hole")
    domain = domain.with_points("sensors", [[1.0, 0.5], [1.5, 0.5]])

Its parts are "interior", "boundary" (the whole of it), "inlet", "outlet", "hole" and "sensors".
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike

from nedhpc.domains.base import Domain, Part
from nedhpc.domains.isolated import isolated
from nedhpc.domains.piece import Piece, Test, collected, cut
from nedhpc.domains.seams import seam
from nedhpc.errors import UsageError

CORNER_GAP = 1e-6
"""How far the points of `corners` are away from a corner, as a share of the curve."""
CIRCLE_POINTS, CIRCLE_RADIUS = 3600, 1e-3
"""Points on a circle around a corner that tell its angle, and the radius as a share of the shape.
"""
REENTRANT = 1.1
"""Angles below this multiple of pi are no corners that point into the domain. Solutions with their
exponent, above 0.9, are hardly singular, and a curve made of short edges has many of them."""
ON_BOUNDARY = 1e-6
"""A sensor that is nearer to the boundary than this share of the shape may lie outside."""
RESERVED = ("interior", "boundary", "initial", "data")


class Shape(Domain):
    """Base class of shapes. A subclass calls `_set` once and defines `inside`."""

    interior: Piece
    faces: tuple[Piece, ...]
    """Pieces of the boundary, which do not overlap, and the ends of periodic directions."""
    rounding: float = 1e-11
    """A point nearer to the boundary than this share of the shape may count as lying on it."""

    def _set(
        self, low: ArrayLike, high: ArrayLike, interior: Piece, faces: Iterable[Piece]
    ) -> None:
        self.low, self.high = np.array(low, float), np.array(high, float)
        self.interior, self.faces = interior, tuple(faces)
        self.parts = {"interior": interior}
        walls = [face for face in self.faces if not face.is_periodic]
        if walls:
            self.parts["boundary"] = collected(walls)
        self.parts |= self._named_parts()

    def _named_parts(self) -> dict[str, Part]:
        names = dict.fromkeys(face.name for face in self.faces if face.name)
        for name in names:
            check_name(name)
        return {name: collected(self._faces_of(name), name) for name in names}

    def _faces_of(self, name):
        return [face for face in self.faces if face.name == name]

    @property
    def names(self) -> set[str]:
        """Names of the parts of the boundary."""
        return {face.name for face in self.faces if face.name}

    @property
    def boundary_pieces(self) -> tuple[str | None, ...]:
        return tuple(dict.fromkeys(face.name for face in self.faces if not face.is_periodic))

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        """Tells which of any points (N, D) are inside, bool (N,). Local."""
        raise NotImplementedError

    def level(self, x_ND: torch.Tensor) -> torch.Tensor:
        """A smooth function: positive inside, zero on the boundary, negative outside. Local.

        Args:
            x_ND: torch tensor (N, D); the result is differentiable in it, except at corners.

        Returns:
            (N,) torch tensor, dimensionless.

        Raises:
            UsageError: this shape has no such function.
        """
        raise UsageError(
            f"{type(self).__name__}: there is no distance function for its boundary; impose this "
            "condition by a term on the part"
        )

    def distance(self, x_ND: torch.Tensor, part: str) -> torch.Tensor:
        """`level` for the whole boundary; other parts have none, unless a subclass has one."""
        if part in self.names and len(self._faces_of(part)) == len(self.faces):
            part = "boundary"
        if part == "boundary" and part in self.parts:
            return self.level(x_ND)
        return super().distance(x_ND, part)

    def with_part(
        self, name: str, where: "Shape | Callable[[np.ndarray], np.ndarray]", on: str = "boundary"
    ) -> "Shape":
        """The same shape with one more named part. Local.

        Args:
            name: name of the new part.
            where: a shape, or a function that maps points (N, D) to bool (N,), row by row. The part
                consists of the points of `on` that are inside the shape, or for which it is true.
            on: "interior", "boundary" or a named part of the boundary. A point of the boundary has
                one name only, so a named part loses the points that the new part gets.

        Raises:
            UsageError: the name is taken, there is no part `on`, or the new part is empty.
        """
        self._check_new(name)
        test: Test = where.inside if isinstance(where, Shape) else where
        found = copy.copy(self)
        if on == "interior":
            region = cut(self.interior, test)
            if isinstance(where, Shape) and region is not None:
                region = (self._unnamed() & where._unnamed()).interior
            if region is None:
                raise UsageError(f"the part {name!r} of the interior is empty: no point lies in it")
            found.parts = {**self.parts, name: region}
            return found
        if on not in ("boundary", *self.names):
            allowed = ", ".join(["interior", "boundary", *sorted(self.names)])
            raise UsageError(f"with_part({name!r}, on={on!r}): allowed is one of {allowed}")
        found.faces = tuple(_split(self.faces, name, test, on))
        if name not in found.names:
            raise UsageError(f"the part {name!r} is empty: no point of {on!r} lies in it")
        if on in self.names and on not in found.names:
            raise UsageError(f"the part {name!r} contains all of {on!r}, of which nothing is left")
        kept = {key: part for key, part in self.parts.items() if key not in self.names}
        found.parts = {**kept, **found._named_parts()}
        return found

    def with_points(self, name: str, x_ND: ArrayLike, weights: ArrayLike | None = None) -> "Shape":
        """The same shape with a part that consists of isolated points, e.g. sensors. Local.

        Args:
            name: name of the part.
            x_ND: points (N, D), inside or on the boundary.
            weights: quadrature weights (N,), positive; default: 1 for each point.

        Raises:
            UsageError: the name is taken, or a point lies outside.
        """
        self._check_new(name)
        part = isolated(x_ND, weights, self.dim, f"the part {name!r}")
        x_ND, slack = part.every_point(), ON_BOUNDARY * (self.high - self.low).max()
        on_faces = [face.gap(x_ND) < slack for face in self.faces]
        is_here = np.any([self.inside(x_ND), *on_faces], axis=0)
        if not is_here.all():
            bad = x_ND[~is_here][0].tolist()
            raise UsageError(f"the part {name!r}: the point {bad} lies outside the domain")
        found = copy.copy(self)
        found.parts = {**self.parts, name: part}
        return found

    def _unnamed(self) -> "Shape":
        """The same shape without named parts."""
        found = copy.copy(self)
        found.faces = tuple(replace(face, name=None) for face in self.faces)
        found.parts = {"interior": self.interior}
        return found

    def _check_new(self, name):
        check_name(name)
        if name in self.parts:
            raise UsageError(f"the domain already has a part {name!r}; choose another name")

    def corners(self) -> list[tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]]]:
        """As in Domain; in one dimension only each named part beside "boundary"."""
        found = self._overlaps()
        for faces, x_ND, other_ND in self._meetings() if self.dim == 2 else ():
            names = [("boundary", face.name) if face.name else ("boundary",) for face in faces]
            found += [((a, x_ND), (b, other_ND)) for a in names[0] for b in names[1]]
        gap = CORNER_GAP * float((self.high - self.low).max())
        for a, b in itertools.combinations(sorted(self.names), 2) if self.dim > 2 else ():
            pair = seam(collected(self._faces_of(a)), collected(self._faces_of(b)), gap)
            if pair is not None:
                found.append(((a, pair[0]), (b, pair[1])))
        return found

    def _overlaps(self):
        """Points of each named part, as points of "boundary" and of the part."""
        found = []
        for name in sorted(self.names):
            x_ND = sample(self.parts[name])
            found.append((("boundary", x_ND), (name, x_ND)))
        return found

    def _meetings(self):
        """Pairs of curves that meet, with points of each beside the corner."""
        from scipy.spatial import KDTree

        ends = []
        for face in self.faces:
            if not face.is_periodic and face.unit_dim == 1:
                u = np.array([0.0, *face.breaks, 1.0])
                u = np.concatenate([u[1:] - CORNER_GAP, u[:-1] + CORNER_GAP])
                ends += [(face, x) for x in face.place(u[:, None])]
        if not ends:
            return
        tree = KDTree([x for _, x in ends])
        radius = 8 * CORNER_GAP * max(face.measure for face, _ in ends)
        for i, k in sorted(tree.query_pairs(radius)):
            yield (ends[i][0], ends[k][0]), ends[i][1][None], ends[k][1][None]

    def reentrant_corners(self) -> list[tuple[np.ndarray, float]]:
        """As in Domain, for shapes in two dimensions; the angles are right to about 0.01."""
        if self.dim != 2:
            return []
        radius = CIRCLE_RADIUS * float((self.high - self.low).max())
        phi_N = 2 * np.pi * (np.arange(CIRCLE_POINTS) + 0.5) / CIRCLE_POINTS
        circle_N2 = radius * np.stack([np.cos(phi_N), np.sin(phi_N)], 1)
        found = []
        for _, x_ND, other_ND in self._meetings():
            corner = (x_ND[0] + other_ND[0]) / 2
            angle = 2 * np.pi * float(np.mean(self.inside(corner + circle_N2)))
            is_new = all(np.abs(corner - other).max() > radius for other, _ in found)
            if angle > REENTRANT * np.pi and is_new:
                found.append((corner, angle))
        return found

    def __sub__(self, other: "Shape") -> "Shape":
        from nedhpc.domains.constructive import Difference

        return Difference(self, other) if isinstance(other, Shape) else NotImplemented

    def __or__(self, other: "Shape") -> "Shape":
        from nedhpc.domains.constructive import Union

        return Union(self, other) if isinstance(other, Shape) else NotImplemented

    def __and__(self, other: "Shape") -> "Shape":
        from nedhpc.domains.constructive import Intersection

        return Intersection(self, other) if isinstance(other, Shape) else NotImplemented


def _split(faces: Sequence[Piece], name: str, test: Test, on: str):
    """The faces, of which the points with a true test have a new name."""
    for face in faces:
        if face.is_periodic or on not in ("boundary", face.name):
            yield face
            continue
        mine, rest = cut(face, test), cut(face, lambda x_ND: ~test(x_ND))
        if mine is not None:
            yield replace(mine, name=name)
        if rest is not None:
            yield rest


def sample(part: Part, count: int = 64) -> np.ndarray:
    """A few points of a part, the same in every call, (N, D)."""
    if part.dim == 0:
        return part.every_point()
    unit_NK = np.random.default_rng(0).random((16 * count, part.unit_dim or 1))
    x_ND, accepted_N = part.points(unit_NK)
    return x_ND[accepted_N][:count]


def check_name(name: str) -> None:
    """Raise UsageError if a part cannot have this name."""
    if not (isinstance(name, str) and name.isidentifier()) or name in RESERVED:
        raise UsageError(
            f"a part cannot be named {name!r}; needed is a Python name other than "
            f"{', '.join(RESERVED)}"
        )
