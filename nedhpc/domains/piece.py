"""Pieces of shapes: parts that can be cut, and collected into one part.

The boundary of a shape consists of pieces that do not overlap, each with its measure, a map from
the unit cube, and outward normals. Local: nothing here communicates, and all is deterministic.

How exact a cut is: isolated points and curves are cut exactly. The ends of what is left of a curve
are found by bisection, so that none of its points is rejected later; what is left or taken away
may be overlooked if it is shorter than 1 / CURVE_SAMPLES of the curve. Of surfaces, and of higher
dimensions, the share that is left is counted on SHARE_POINTS quasi-random points, the same on every
rank; its error is about 1e-4, and 0 if all of it is left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from nedhpc.domains.base import Part, midpoints

CURVE_SAMPLES, BISECTIONS = 4096, 60
"""Samples of a curve that is cut, and halvings of the interval in which an end lies."""
SHARE_POINTS = 2**16
"""Points on which the share of a surface or of a volume is counted; a power of two."""
PANELS, NODES = 16, 16
"""Gauss quadrature on each smooth stretch of a curve: panels, and nodes on each."""
Test = Callable[[np.ndarray], np.ndarray]
"""A function that maps points (N, D) to bool (N,), row by row."""


def far(x_ND: np.ndarray) -> np.ndarray:
    """The distances (N,) to a piece of which nothing is known: infinity."""
    return np.full(len(x_ND), np.inf)


@dataclass(frozen=True, kw_only=True)
class Piece(Part):
    """A part of a shape: its interior, or a piece of its boundary."""

    gap: Callable[[np.ndarray], np.ndarray] = far
    """Maps points (N, D) to (N,): 0 on the set that `place` covers, positive elsewhere."""
    name: str | None = None
    """Name of the part that the piece belongs to, beside "boundary"."""
    breaks: tuple[float, ...] = ()
    """Numbers of the unit interval at which a curve has corners."""
    is_periodic: bool = False
    """True for an end of a periodic direction, which is not part of the boundary."""


@dataclass(frozen=True, kw_only=True)
class Collected(Piece):
    """Several pieces as one part. The first number of the unit cube chooses the piece."""

    pieces: tuple[Piece, ...] = ()
    sizes: tuple[float, ...] = ()
    """Measures of the sets that the pieces' `place` covers."""

    @property
    def accepts_all(self) -> bool:
        return self.keep is None and all(piece.accepts_all for piece in self.pieces)

    def points(self, unit_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        which_N, unit_NK = choose(self.sizes, unit_NK)
        x_ND, accepted_N = None, np.ones(len(unit_NK), bool)
        for k, piece in enumerate(self.pieces):
            here_N = which_N == k
            x, accepted_N[here_N] = piece.points(unit_NK[here_N, : piece.unit_dim])
            x_ND = np.empty((len(unit_NK), x.shape[1])) if x_ND is None else x_ND
            x_ND[here_N] = x
        assert x_ND is not None
        return x_ND, accepted_N if self.keep is None else accepted_N & self.keep(x_ND)


def choose(sizes: ArrayLike, unit_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (N,) of things, each as often as its size says, and the unit cube of the chosen one.

    The first number chooses. What it leaves, as a share of the chosen interval, is the first number
    of the new unit cube; so an even sequence is even on each thing.
    """
    shares = np.cumsum(sizes) / np.sum(sizes)
    shares[-1] = 1.0
    which_N = np.minimum(np.searchsorted(shares, unit_NK[:, 0], side="right"), len(shares) - 1)
    first = np.concatenate([[0.0], shares[:-1]])
    rest_NK = unit_NK.copy()
    rest_NK[:, 0] = (unit_NK[:, 0] - first[which_N]) / (shares - first)[which_N]
    return which_N, rest_NK.clip(0, 1)


def rows_by_name(names: Sequence[str | None]) -> dict[str | None, list[int]]:
    """The numbers of the entries that have each name, in the order of the names' first entries."""
    found: dict[str | None, list[int]] = {}
    for k, name in enumerate(names):
        found.setdefault(name, []).append(k)
    return found


def collected(pieces: Sequence[Piece], name: str | None = None) -> Piece:
    """One part that consists of pieces of equal dimension. A single piece is returned as it is."""
    if len(pieces) == 1:
        return replace(pieces[0], name=name)
    pieces, dim = tuple(pieces), pieces[0].dim
    has_normals = all(piece.outward is not None for piece in pieces)
    if dim == 0:
        return _isolated(pieces, name)
    found = Collected(
        dim=dim,
        measure=float(sum(piece.measure for piece in pieces)),
        unit_dim=max(piece.unit_dim or 0 for piece in pieces),
        place=lambda unit_NK: found.points(unit_NK)[0],
        pieces=pieces,
        sizes=tuple(placed(piece) for piece in pieces),
        name=name,
        outward=partial(_outward, pieces) if has_normals else None,
        gap=lambda x_ND: np.min([piece.gap(x_ND) for piece in pieces], axis=0),
    )
    return with_cells(found)


def _isolated(pieces, name):
    outward = partial(_outward, pieces) if pieces[0].outward else None
    return replace(
        at_points(pieces[0], np.concatenate([piece.every_point() for piece in pieces])),
        name=name,
        outward=outward,
        gap=lambda x_ND: np.min([piece.gap(x_ND) for piece in pieces], axis=0),
    )


def at_points(piece: Piece, points_ND: np.ndarray) -> Piece:
    """A piece that consists of other isolated points, each of measure 1."""
    count = len(points_ND)

    def place(unit_N1):
        return points_ND[np.minimum((count * unit_N1[:, 0]).astype(int), count - 1)]

    cells = lambda _, start, stop: points_ND[start:stop]
    fields = {"place": place, "unit_dim": 1, "cells": cells, "num_points": count}
    return replace(piece, measure=float(count), **fields)


def _outward(pieces, x_ND):
    """The normal of the piece on which each point lies."""
    gap_PN = np.stack([piece.gap(x_ND) for piece in pieces])
    nearest_N, n_ND = gap_PN.argmin(0), np.empty_like(x_ND)
    for k, piece in enumerate(pieces):
        here_N = nearest_N == k
        if here_N.any():
            n_ND[here_N] = piece.normal(x_ND[here_N])
    return n_ND


def placed(piece: Piece) -> float:
    """Measure of the set that `place` covers: that of the part and of what it rejects."""
    if piece.accepts_all:
        return piece.measure
    return piece.measure * SHARE_POINTS / np.count_nonzero(piece.points(even(piece.unit_dim))[1])


def with_cells(piece: Piece) -> Piece:
    """The piece with an even grid, if it is a curve of which all points are accepted."""
    if piece.unit_dim != 1 or not piece.accepts_all:
        return piece

    def cells(count: int, start: int, stop: int) -> np.ndarray:
        return piece.place(midpoints(np.arange(start, stop), count, 1))

    return replace(piece, cells=cells)


def even(dim: int | None, count: int = SHARE_POINTS) -> np.ndarray:
    """Fixed Sobol points of the unit cube, moved off its lower faces, (count, dim)."""
    from scipy.stats import qmc  # half a second, which commands that cut nothing need not spend

    assert dim
    return qmc.Sobol(dim, scramble=False).random(count) + 0.5 / count


def cut(piece: Piece, keeps: Test) -> Piece | None:
    """What is left of a piece if only the points remain at which `keeps` is true; None: nothing.

    Args:
        piece: a piece, which is returned itself if all of it is left.
        keeps: the test, on points of the piece.
    """
    if piece.dim == 0:
        points = piece.every_point()
        kept = points[keeps(points)]
        if len(kept) in (0, len(points)):
            return piece if len(kept) else None
        return at_points(piece, kept)
    if piece.unit_dim == 1 and piece.accepts_all:
        return _cut_curve(piece, keeps)
    share = share_left(piece, keeps)
    if share in (0, 1):
        return piece if share else None
    return rejecting(piece, keeps, piece.measure * share)


def share_left(piece: Piece, keeps: Test) -> float:
    """The share of a piece at which `keeps` is true, counted on SHARE_POINTS even points."""
    x_ND, accepted_N = piece.points(even(piece.unit_dim))
    return float(np.mean(keeps(x_ND[accepted_N])))


def rejecting(piece: Piece, keeps: Test, measure: float) -> Piece:
    """The piece without the points at which `keeps` is false; they are drawn and rejected."""
    old = piece.keep
    both = keeps if old is None else lambda x_ND: old(x_ND) & keeps(x_ND)
    return replace(piece, keep=both, measure=measure, cells=None)


def _cut_curve(piece, keeps):
    """The stretches of a curve at which `keeps` is true, one after the other."""
    ends = np.unique(np.concatenate([np.linspace(0, 1, CURVE_SAMPLES + 1), piece.breaks]))
    middle = (ends[1:] + ends[:-1]) / 2
    at = lambda u_N: keeps(piece.place(u_N[:, None]))
    kept = at(middle)
    if kept.all() or not kept.any():
        return piece if kept.all() else None
    change = np.flatnonzero(kept[1:] != kept[:-1])
    first, last, value = middle[change], middle[change + 1], kept[change]
    for _ in range(BISECTIONS):
        centre = (first + last) / 2
        same = at(centre) == value
        first, last = np.where(same, centre, first), np.where(same, last, centre)
    bounds = np.concatenate([[0.0] if kept[0] else [], last, [1.0] if kept[-1] else []])
    starts, stops = bounds[::2], bounds[1::2]
    lengths = stops - starts
    until = np.cumsum(lengths) / lengths.sum()
    before = until - lengths / lengths.sum()
    inner = [
        before[k] + (u - starts[k]) / lengths.sum()
        for u in piece.breaks
        for k in np.flatnonzero((starts < u) & (u < stops))
    ]

    def place(unit_N1):
        u_N = unit_N1[:, 0]
        k_N = np.minimum(np.searchsorted(until, u_N, side="right"), len(until) - 1)
        along_N = (u_N - before[k_N]) * lengths.sum()
        return piece.place((starts[k_N] + along_N).clip(0, 1)[:, None])

    return with_cells(
        replace(
            piece,
            place=place,
            measure=piece.measure * float(lengths.sum()),
            breaks=tuple(sorted({*map(float, inner), *map(float, until[:-1])})),
        )
    )


def flux(piece: Piece, centre_D: np.ndarray) -> float:
    """The integral of (x - centre) . n over isolated points or a curve. Exact to about 1e-13."""
    if piece.dim == 0:
        x_ND = piece.every_point()
        return float(((x_ND - centre_D) * piece.normal(x_ND)).sum())
    node, weight = np.polynomial.legendre.leggauss(NODES)
    ends = np.array([0.0, *piece.breaks, 1.0])
    panels = PANELS if len(ends) < 32 else 1
    starts = np.concatenate([np.linspace(a, b, panels + 1)[:-1] for a, b in zip(ends, ends[1:])])
    stops = np.append(starts[1:], 1.0)
    half_P = (stops - starts) / 2
    u_PQ = (starts + stops)[:, None] / 2 + half_P[:, None] * node
    x_ND = piece.place(u_PQ.reshape(-1, 1))
    value_PQ = ((x_ND - centre_D) * piece.normal(x_ND)).sum(1).reshape(u_PQ.shape)
    return float(piece.measure * (half_P[:, None] * weight * value_PQ).sum())
