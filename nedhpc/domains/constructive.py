"""Difference, union and intersection of shapes. Local.

A piece of the boundary of A stays in the result as far as the result lies on one side of it only.
This is tested beside the piece, a share `rounding` of the shapes away from it along its normal. So
pieces of A and B that coincide are counted once, and not at all if the result is on neither side.

Measures: in one and two dimensions they are exact to about 1e-11, by the divergence theorem on the
cut boundary (piece.py says how that is cut). In more dimensions they are exact if the boundaries do
not cross, and otherwise counted on quasi-random points with an error of about 1e-4.
"""

import itertools
from dataclasses import replace

import numpy as np
import torch

from nedhpc.domains.piece import Piece, Test, collected, cut, flux, rejecting, share_left
from nedhpc.domains.rfunctions import both, either
from nedhpc.domains.seams import seam
from nedhpc.domains.shape import Shape
from nedhpc.errors import UsageError

CUSP, TOUCHES = 1e-7, 1e-10
"""Two faces have a cusp where they are nearer to each other than the share TOUCHES of the shape
and the sum of their unit normals is shorter than the root of CUSP."""
TOUCH_SAMPLES, TOUCH_STEPS = 1024, 80
"""Samples of a curve, and steps of a ternary search, to find where it touches another one."""


class Constructed(Shape):
    """A shape that consists of two others."""

    a: Shape
    b: Shape
    word: str

    def _build(self, a: Shape, b: Shape, low, high, tests, flip: bool) -> None:
        """Set the shape.

        Args:
            a, b: the two shapes.
            low, high: bounds.
            tests: functions of the points on both sides of a face, (outside, inside), that tell
                what stays of the faces of a, and of b.
            flip: True if the normals of b's faces are turned.
        """
        self.a, self.b = a, b
        self.low, self.high = np.array(low), np.array(high)
        self.rounding = max(a.rounding, b.rounding)
        step = self.rounding * max(float(np.linalg.norm(s.high - s.low)) for s in (a, b))
        kept = [
            [cut(face, _beside(face, step, test)) for face in shape.faces]
            for shape, test in zip((a, b), tests, strict=True)
        ]
        self.whole = [
            all(new is old for new, old in zip(faces, shape.faces, strict=True))
            for faces, shape in zip(kept, (a, b), strict=True)
        ]
        self.gone = [not any(faces) for faces in kept]
        faces_a, faces_b = ([face for face in faces if face is not None] for faces in kept)
        faces_b = [_turned(face) if flip else face for face in faces_b]
        self.faces = tuple([*faces_a, *faces_b])
        interior = self._interior()
        if a.dim <= 2 and interior is not None:
            centre_D = (self.low + self.high) / 2
            measure = sum(flux(face, centre_D) for face in self.faces) / a.dim
            interior = replace(interior, measure=measure)
        if interior is None or not self.faces or not interior.measure > 0:
            raise UsageError(f"{self}: nothing is left of it; the shapes or their order are wrong")
        self._check_names(self.faces)
        self._check_cusps(faces_a, faces_b)
        self._set(low, high, interior, self.faces)

    def _interior(self) -> Piece | None:
        raise NotImplementedError

    def _rejecting(self, piece: Piece, keeps: Test) -> Piece | None:
        """What is left of an interior, with its measure unless that follows from the boundary."""
        share = 1.0 if self.dim <= 2 else share_left(piece, keeps)
        return rejecting(piece, keeps, piece.measure * share) if share else None

    def __str__(self) -> str:
        return f"{shown(self.a)} {self.word} {shown(self.b)}"

    @property
    def periods(self) -> tuple[float | None, ...]:
        return self.a.periods

    def _check_names(self, faces):
        lost = sorted((self.a.names | self.b.names) - {face.name for face in faces})
        if lost:
            raise UsageError(
                f"{self}: nothing is left of the part {lost[0]!r} of the boundary; it lies outside "
                "the result, or inside the other shape"
            )

    def _check_cusps(self, faces_a, faces_b):
        size = float(np.linalg.norm(self.high - self.low))
        pairs = itertools.product(faces_a, faces_b) if self.dim > 1 else ()
        for face, other in pairs:
            if self.dim == 2:
                x_ND = _nearest_points(face, other, size)
            else:
                x_ND, _ = seam(face, other, TOUCHES * size) or (np.empty((0, self.dim)), None)
            sum_ND = face.normal(x_ND) + other.normal(x_ND)
            x_ND = x_ND[(sum_ND**2).sum(1) < CUSP]
            if len(x_ND):
                place = ", ".join(f"{v:.6g}" for v in x_ND[0] + 0.0)
                raise UsageError(
                    f"{self}: its boundary has a cusp at ({place}), where two parts touch with "
                    "opposite normals and the solution is singular; move or resize one shape, so "
                    "that they cross or stay apart"
                )


def _nearest_points(face: Piece, other: Piece, size: float) -> np.ndarray:
    """The points of a curve at which it touches or crosses another one, (N, 2)."""
    u_N = (np.arange(TOUCH_SAMPLES) + 0.5) / TOUCH_SAMPLES
    gap_N = other.gap(face.place(u_N[:, None]))
    around = np.pad(gap_N, 1, constant_values=np.inf)
    least = (gap_N <= around[:-2]) & (gap_N <= around[2:])
    u_N = u_N[least & (gap_N < 2 * face.measure / TOUCH_SAMPLES)]
    low, high = u_N - 1 / TOUCH_SAMPLES, u_N + 1 / TOUCH_SAMPLES
    low, high = low.clip(0, 1), high.clip(0, 1)
    for _ in range(TOUCH_STEPS if len(u_N) else 0):
        third = (high - low) / 3
        is_left = other.gap(face.place((low + third)[:, None])) < other.gap(
            face.place((high - third)[:, None])
        )
        low, high = np.where(is_left, low, low + third), np.where(is_left, high - third, high)
    x_ND = face.place((low + high)[:, None] / 2)
    return x_ND[other.gap(x_ND) < TOUCHES * size]


def shown(shape: Shape) -> str:
    """A shape in words, for messages."""
    if isinstance(shape, Constructed):
        return f"({shape})"
    names = f" {', '.join(sorted(shape.names))!r}" if shape.names else ""
    bounds = ", ".join(f"{a:.4g} .. {b:.4g}" for a, b in zip(shape.low, shape.high))
    return f"{type(shape).__name__}{names} [{bounds}]"


def check_pair(a: Shape, b: Shape, word: str) -> None:
    """Raise UsageError if two shapes cannot be combined."""
    what = f"{shown(a)} {word} {shown(b)}"
    if a.dim != b.dim:
        raise UsageError(f"{what}: the shapes have {a.dim} and {b.dim} coordinates")
    if "t" in (a.coordinates[-1], b.coordinates[-1]):
        raise UsageError(
            f"{what}: a domain with time cannot be combined; combine the shapes of space first, "
            "and write nedhpc.InTime(shape, end)"
        )
    for shape in (a, b):
        extra = sorted(set(shape.parts) - shape.names - {"interior", "boundary"})
        if extra:
            raise UsageError(
                f"{what}: the part {extra[0]!r} would be lost; first combine the shapes, then call "
                "with_part and with_points"
            )
    periodic = [i for i, period in enumerate(a.periods) if period is not None]
    if any(period is not None for period in b.periods) or (periodic and word != "-"):
        raise UsageError(
            f"{what}: a periodic shape can only be the first of a difference; make the result "
            "from a periodic Box - another shape"
        )
    for i in periodic:
        if not a.low[i] < b.low[i] <= b.high[i] < a.high[i]:
            raise UsageError(
                f"{what}: the second shape reaches the ends of the periodic direction "
                f"{a.coordinates[i]} ({a.low[i]:.4g}, {a.high[i]:.4g}), where its periodic copy "
                "would be needed; move the ends of the box away from it"
            )


def _beside(face: Piece, step: float, test) -> Test:
    """The test of a face's points by the points on both sides of it."""

    def keeps(x_ND):
        shift_ND = step * face.normal(x_ND)
        return test(x_ND + shift_ND, x_ND - shift_ND)

    return keeps


def _turned(face: Piece) -> Piece:
    return replace(face, outward=lambda x_ND: -face.normal(x_ND))


class Difference(Constructed):
    """a - b: the points of a that are not in b."""

    word = "-"

    def __init__(self, a: Shape, b: Shape) -> None:
        tests = (
            lambda outer, inner: ~b.inside(inner),
            lambda outer, inner: a.inside(outer) & a.inside(inner),
        )
        check_pair(a, b, self.word)
        self._build(a, b, a.low, a.high, tests, flip=True)

    def _interior(self):
        a, b = self.a, self.b
        if self.whole[0] and self.gone[1]:
            raise UsageError(f"{self}: the second shape lies outside the first; it removes nothing")
        if self.dim == 1:
            return cut(a.interior, lambda x_ND: ~b.inside(x_ND))
        outside_b = lambda x_ND: ~b.inside(x_ND)
        if all(self.whole):
            measure = a.interior.measure - b.interior.measure
            return rejecting(a.interior, outside_b, measure)
        return self._rejecting(a.interior, outside_b)

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        return self.a.inside(x_ND) & ~self.b.inside(x_ND)

    def level(self, x_ND: torch.Tensor) -> torch.Tensor:
        return both([self.a.level(x_ND), -self.b.level(x_ND)])

    def distance(self, x_ND: torch.Tensor, part: str) -> torch.Tensor:
        """`level` for "boundary"; a named part has that of a, or minus the level of all of b."""
        if part in self.a.names and part not in self.b.names:
            return self.a.distance(x_ND, part)
        of_b = [face.name == part for face in self.b.faces]
        if part not in self.a.names and of_b and all(of_b):
            return -self.b.level(x_ND)
        return super().distance(x_ND, part)


class Union(Constructed):
    """a | b: the points of a and of b."""

    word = "|"

    def __init__(self, a: Shape, b: Shape) -> None:
        tests = (
            lambda outer, inner: ~b.inside(outer),
            lambda outer, inner: ~a.inside(outer) & ~a.inside(inner),
        )
        check_pair(a, b, self.word)
        low, high = np.minimum(a.low, b.low), np.maximum(a.high, b.high)
        self._build(a, b, low, high, tests, flip=False)

    def _interior(self):
        a, b = self.a, self.b
        if any(self.gone):
            raise UsageError(f"{self}: one shape contains the other, which adds nothing")
        outside_a = lambda x_ND: ~a.inside(x_ND)
        if self.dim == 1:
            rest = cut(b.interior, outside_a)
        else:
            rest = b.interior if all(self.whole) else self._rejecting(b.interior, outside_a)
        return collected([a.interior, rest]) if rest is not None else a.interior

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        return self.a.inside(x_ND) | self.b.inside(x_ND)

    def level(self, x_ND: torch.Tensor) -> torch.Tensor:
        return either([self.a.level(x_ND), self.b.level(x_ND)])


class Intersection(Constructed):
    """a & b: the points that lie in a and in b."""

    word = "&"

    def __init__(self, a: Shape, b: Shape) -> None:
        tests = (
            lambda outer, inner: b.inside(inner),
            lambda outer, inner: a.inside(outer) & a.inside(inner),
        )
        check_pair(a, b, self.word)
        low, high = np.maximum(a.low, b.low), np.minimum(a.high, b.high)
        if not (low < high).all():
            raise UsageError(f"{shown(a)} & {shown(b)}: the intersection is empty")
        self._build(a, b, low, high, tests, flip=False)

    def _interior(self):
        a, b = self.a, self.b
        if all(self.gone):
            raise UsageError(f"{self}: the intersection is empty")
        small, large = (a, b) if a.interior.measure <= b.interior.measure else (b, a)
        if self.dim == 1:
            return cut(small.interior, large.inside)
        if any(self.whole) and any(self.gone):
            return small.interior
        return self._rejecting(small.interior, large.inside)

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        return self.a.inside(x_ND) & self.b.inside(x_ND)

    def level(self, x_ND: torch.Tensor) -> torch.Tensor:
        return both([self.a.level(x_ND), self.b.level(x_ND)])

    def distance(self, x_ND: torch.Tensor, part: str) -> torch.Tensor:
        """`level` for "boundary"; a part that only one shape names has that shape's distance."""
        for shape, other in ((self.a, self.b), (self.b, self.a)):
            if part in shape.names and part not in other.names:
                return shape.distance(x_ND, part)
        return super().distance(x_ND, part)
