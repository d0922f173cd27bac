"""Nodes and weights of integrals: Gauss-Legendre where the part is a smooth image of cubes. Local.

Other parts, and cubes of more than MAX_DIM dimensions, have Sobol points, which sampling/points.py
draws. Isolated points have their own weights, or one each.
"""

import itertools
from math import ceil

import numpy as np

from nedhpc.domains.base import Part

MAX_DIM = 3
"""In more dimensions a tensor rule has too few nodes along each direction."""
PANEL = 32
"""Most nodes of a panel of the composite rule. n nodes are exact up to degree 2 n - 1."""
SIDES = {1: 64, 2: 32, 3: 12}
"""Default number of nodes along each direction, by dimension."""
SCATTERED = 4096
"""Default number of Sobol points."""


def has_rule(part: Part) -> bool:
    """True if there is a Gauss-Legendre rule on the part, or its points are isolated."""
    if part.dim == 0:
        return True
    pieces = part.faces or (part,)
    return all(p.is_smooth and p.accepts_all and p.dim <= MAX_DIM for p in pieces)


def default_count(part: Part) -> int:
    """Number of nodes on a part, if the config gives none."""
    if part.dim == 0:
        return part.num_points or 1
    return max(1, len(part.faces)) * SIDES[part.dim] ** part.dim if has_rule(part) else SCATTERED


def nodes(part: Part, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (N, D) and weights (N,) of a rule of at least `count` nodes on a part with a rule.

    The weights add up to the part's measure. Cost O(N).
    """
    if part.dim == 0:
        weight_N = np.ones(count) if part.weight_N is None else part.weight_N
        return part.grid(count, 0, count), weight_N
    pieces = part.faces or (part,)
    side = ceil(round((count / len(pieces)) ** (1 / part.dim), 9))
    unit_n, w_n = gauss(side)
    unit_NK = np.array(list(itertools.product(unit_n, repeat=part.dim)))
    w_N = np.array(list(itertools.product(w_n, repeat=part.dim))).prod(1)
    x_ND = np.concatenate([piece.place(unit_NK) for piece in pieces])
    return x_ND, np.concatenate([piece.measure * w_N for piece in pieces])


def gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1] of a composite rule of at least `count` nodes, both (n,)."""
    panels = ceil(count / PANEL)
    x_n, w_n = np.polynomial.legendre.leggauss(ceil(count / panels))
    starts = np.arange(panels)[:, None]
    x_n = (starts + (1 + x_n) / 2) / panels
    return x_n.ravel(), np.tile(w_n / 2 / panels, panels)
