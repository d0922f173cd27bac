"""R-functions: smooth functions of level functions that have the sign of "and", "or" and "not".

A level function is positive inside a shape, zero on its boundary and negative outside. Those below
are smooth, except where both arguments are zero: at corners. Local.

Reference: V. L. Rvachev; see V. Shapiro, Semi-analytic geometry with R-functions, Acta Numerica
2007, section 2.3.
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor


def both(levels: Sequence[Tensor]) -> Tensor:
    """Positive where all are: a + b - sqrt(a^2 + b^2), from left to right."""
    return reduce(lambda a, b: a + b - torch.sqrt(a * a + b * b), levels)


def either(levels: Sequence[Tensor]) -> Tensor:
    """Positive where at least one is: a + b + sqrt(a^2 + b^2), from left to right."""
    return reduce(lambda a, b: a + b + torch.sqrt(a * a + b * b), levels)


def polygon_level(corner_V2: np.ndarray, x_N2: Tensor) -> Tensor:
    """The level function of a simple polygon.

    A convex polygon is the conjunction of the half-planes of its edges. Any other one is its convex
    hull without the pockets between the hull and the polygon, which are polygons with fewer edges.

    Args:
        corner_V2: corners, counterclockwise, without a repeated last one.
        x_N2: points.
    """
    size = float(np.ptp(corner_V2, axis=0).max())
    hull = _hull(corner_V2)
    levels = []
    for a, b in zip(hull, np.roll(hull, -1)):
        start, edge = corner_V2[a], corner_V2[b] - corner_V2[a]
        normal = np.array([-edge[1], edge[0]]) / (np.hypot(*edge) * size)
        levels.append((x_N2[:, 0] - start[0]) * normal[0] + (x_N2[:, 1] - start[1]) * normal[1])
        pocket = np.arange(a, b + 1) if a < b else np.r_[a : len(corner_V2), 0 : b + 1]
        if len(pocket) > 2:
            # The pocket is traversed clockwise along the polygon.
            levels.append(-polygon_level(corner_V2[pocket[::-1]], x_N2))
    return both(levels)


def _hull(corner_V2: np.ndarray) -> np.ndarray:
    """Numbers of the corners of the convex hull, in the order of the polygon."""
    from scipy.spatial import ConvexHull

    return np.sort(ConvexHull(corner_V2).vertices)
