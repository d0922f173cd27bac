"""A trial of a domain: its parts are called at a few points, and what they return must fit. Local.

A part that mixes points gives a sample that depends on the number of ranks; a part with a wrong
measure or wrong normals gives a wrong answer. Neither is seen later.
"""

from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np

from nedhpc.domains.base import Domain, Part

NUM_POINTS, SUBSETS = 64, (np.arange(0, 64, 3)[::-1], np.arange(1, 64, 3))
"""Number of points of the trial, and two subsets of them, one in reverse order."""
TOLERANCE = 1e-9
"""Relative tolerance of bounds and of the length of normals."""


def domain_errors(domain: Domain) -> list[str]:
    """Everything that is wrong with a domain, in words; empty if nothing is."""
    wrong = _bounds_error(domain)
    if wrong:
        return [f"domain: {wrong}"]
    parts = getattr(domain, "parts", None)
    if not isinstance(parts, Mapping) or "interior" not in parts:
        return ["domain: parts must be a dictionary of parts, one of them 'interior'"]
    return [
        f"domain: part {name!r}: {error}"
        for name, part in parts.items()
        for error in _part_errors(domain, name, part)
    ]


def _bounds_error(domain: Domain) -> str | None:
    low, high = getattr(domain, "low", None), getattr(domain, "high", None)
    if (
        not (isinstance(low, np.ndarray) and isinstance(high, np.ndarray))
        or low.shape != high.shape
        or low.ndim != 1
        or not low.size
    ):
        return "low and high must be numpy arrays (D,) of the bounds"
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        return f"needs finite low < high; low = {low.tolist()}, high = {high.tolist()}"
    return None


def _part_errors(domain: Domain, name: Any, part: Any) -> Iterator[str]:
    """The errors of one part; the first that makes further calls useless is the last."""
    if not (isinstance(name, str) and name.isidentifier()) or name == "data":
        yield "the name must be a Python name, and not 'data'"
    if not isinstance(part, Part):
        yield f"it is a {type(part).__name__}, not an nedhpc.Part"
        return
    if not (isinstance(part.measure, Real) and 0 < part.measure < np.inf):
        yield f"measure = {part.measure}; it must be positive and finite"
    if part.dim == 0:
        yield from _isolated_errors(domain, part)
        return
    unit_dim = part.unit_dim or 0
    if not (0 < part.dim <= domain.dim and unit_dim > 0):
        yield (
            f"dim = {part.dim} and unit_dim = {unit_dim}; needed are a dim from 0 to "
            f"{domain.dim} and, if it is not 0, a unit_dim of at least 1"
        )
        return
    unit = np.random.default_rng(0).random((NUM_POINTS, unit_dim))
    shape = (NUM_POINTS, domain.dim)
    error = _function_error("place", part.place, unit, shape, np.float64)
    if error is None and part.keep is not None:
        error = _function_error("keep", part.keep, part.place(unit), shape[:1], np.bool_)
    if error is not None:
        yield error
        return
    x, accepted = part.points(unit)
    yield from _point_errors(domain, part, x[accepted])


def _isolated_errors(domain, part):
    count = part.num_points
    if not (isinstance(count, int) and count > 0) or part.cells is None:
        yield "isolated points (dim = 0) need num_points, and cells(count, start, stop)"
        return
    found = np.shape(part.cells(count, 0, count))
    if found != (count, domain.dim):
        yield f"cells returns {found} for {count} points; needed is ({count}, {domain.dim})"


def _point_errors(domain, part, x):
    slack = TOLERANCE * (domain.high - domain.low)
    outside = ((x < domain.low - slack) | (x > domain.high + slack)).any(1)
    if outside.any():
        yield f"it has points outside low and high, e.g. {x[outside][0].tolist()}"
    if part.outward is None or not len(x):
        return
    x = np.resize(x, (NUM_POINTS, domain.dim))  # if points were rejected, repeat the others
    error = _function_error("outward", part.outward, x, x.shape, np.float64)
    if error is not None:
        yield error
    elif (np.abs(np.linalg.norm(part.outward(x), axis=1) - 1) > TOLERANCE).any():
        yield "outward must return normals of length 1"


def _function_error(
    name: str, function: Callable, points: np.ndarray, shape: tuple[int, ...], dtype: type
) -> str | None:
    """What is wrong with a function of points, row by row; None if nothing is."""
    try:
        found = function(points)
        some = [function(points[rows]) for rows in SUBSETS]
    except Exception as error:
        return f"{name} raises {type(error).__name__}: {error}"
    if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype != dtype:
        kind = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found)
        return f"{name} returns {kind}; needed is a numpy array of {dtype.__name__} {shape}"
    if not np.isfinite(found).all():
        return f"{name} returns numbers that are not finite"
    if not all(np.allclose(found[r], s, 1e-12, 0) for r, s in zip(SUBSETS, some, strict=True)):
        return f"{name} gives a point another value if the other points change"
    return None
