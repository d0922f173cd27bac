"""Corners that point into the domain, at which solutions are singular: named before a run. Local.

Beside a corner with the angle omega inside the domain, u = r^lambda sin(lambda phi) with lambda =
pi / omega is harmonic and zero on both sides; with cos, its flux is zero there. If omega > pi, its
slope is infinite at the corner. Reference: Grisvard, Elliptic Problems in Nonsmooth Domains, 1985.
"""

from collections.abc import Sequence
from math import degrees, pi

import numpy as np

from nedhpc.problems.base import Problem
from nedhpc.problems.bound import BoundTerm
from nedhpc.problems.coverage import channels_inside

ROUNDED = 1e-5
"""A corner is shown to this share of the domain's size, which is how well it is known."""


def corner_notes(problem: Problem, terms: Sequence[BoundTerm]) -> list[str]:
    """A sentence on the corners that point into the domain, if an equation has second derivatives.

    Args:
        problem: a checked problem; nothing is said if it has singular functions.
        terms: its bound terms.
    """
    domain = problem.domain
    time = domain.dim - 1 if domain.coordinates[-1] == "t" else None
    orders = [sum(i != time for i in alpha) for alpha in channels_inside(domain, terms)]
    if problem.has_singular or max(orders, default=0) < 2:
        return []
    found = sorted(domain.reentrant_corners(), key=lambda corner: -corner[1])
    if not found:
        return []
    (point, angle), exponent = found[0], pi / found[0][1]
    step = ROUNDED * float((domain.high - domain.low).max())
    point = step * np.round(point / step) + 0.0
    place = ", ".join(f"{x} = {v:.4g}" for x, v in zip(domain.coordinates, point))
    subject = f"the corner at {place} points into the domain"
    if len(found) > 1:
        subject = f"{len(found)} corners point into the domain; the sharpest is at {place}"
    return [
        f"{subject}, with an angle of {degrees(angle):.0f} degrees inside. There, solutions of an "
        f"equation like Poisson's vary as r^{exponent:.3g} with the distance r, so that their "
        "slope is infinite and a smooth network converges slowly. Remedy: a method `singular` that "
        f"returns r^{exponent:.3g} sin({exponent:.3g} phi), or cos if the fluxes on the sides are "
        "given, with the angle phi from one of the sides"
    ]
