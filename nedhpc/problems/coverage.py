"""Conditions that are missing, that `hard` makes idle, or that stand at a periodic end. Local."""

from collections.abc import Mapping, Sequence

import numpy as np

from nedhpc.ansatz.layers import Layer
from nedhpc.domains.base import Domain, Part
from nedhpc.problems.base import Problem
from nedhpc.problems.bound import BoundTerm
from nedhpc.problems.conditions import is_hard, some_points
from nedhpc.problems.data import named_sets
from nedhpc.problems.terms import Term

AT_END = 1e-9
"""A point nearer to an end of a coordinate than this share of its range is on it."""


def remarks(problem: Problem, terms: Sequence[BoundTerm]) -> list[str]:
    """A sentence for each part of the boundary without a condition, and for each idle term. Local.

    Args:
        problem: a checked problem.
        terms: its bound terms.
    """
    if isinstance(problem.hard, Layer):  # what it fixes is not known
        return []
    return [*_missing(problem, terms), *_idle(problem, terms)]


def _missing(problem: Problem, terms: Sequence[BoundTerm]) -> list[str]:
    """Parts of the boundary on which an equation of second order needs a condition and has none.

    A density has natural conditions, an equation of first order needs none at an outflow, and data
    may replace conditions.
    """
    domain, sets = problem.domain, named_sets(problem.data)
    if any(term.on in sets or not term.kind.is_least_squares for term in terms):
        return []
    time = domain.dim - 1 if domain.coordinates[-1] == "t" else None
    used = channels_inside(domain, terms)
    held, places = {term.on for term in terms} | set(problem.hard), []
    if any(sum(i != time for i in alpha) > 1 for alpha in used) and "boundary" not in held:
        pieces = set(domain.boundary_pieces) or _sides(domain)
        places += sorted(f"the part {name!r} of the boundary" for name in pieces - held if name)
        if None in pieces:
            is_all = len(pieces) == 1
            places.append("the boundary" if is_all else "the part of the boundary that has no name")
    if any(time in alpha for alpha in used) and "initial" in set(domain.parts) - held:
        places.append("the part 'initial'")
    return [
        f"no condition holds on {place}; the solution may not be determined there, unless it needs "
        "no condition, as at an outflow"
        for place in places
    ]


def channels_inside(domain: Domain, terms: Sequence[BoundTerm]) -> set[tuple[int, ...]]:
    """The derivatives that terms on the interior use, as numbers of coordinates. Local."""
    return {
        alpha
        for term in terms
        if term.on in domain.parts and domain.parts[term.on].dim == domain.dim
        for alphas in term.layout.members
        for alpha in alphas
    }


def _sides(domain: Domain) -> set[str | None]:
    """Parts with normals, for a domain that does not tell the pieces of its boundary."""
    sides = {
        name
        for name, part in domain.parts.items()
        if part.dim == domain.dim - 1 and part.outward is not None and name != "initial"
    }
    return {*(sides - {"boundary"} or sides)}


def _idle(problem: Problem, terms: Sequence[BoundTerm]) -> list[str]:
    """Terms on values that a hard condition fixes on all of their part."""
    found = []
    for term in terms:
        outputs = [problem.outputs[output] for _, _, output in term.layout.entries]
        is_value = term.layout.named_channels == {0}
        on_interior = term.on not in problem.domain.parts or term.on == "interior"
        if not problem.hard or on_interior or not is_value:
            continue
        x_ND = some_points(problem.domain.parts[term.on])
        if all(is_hard(problem, output, x_ND).all() for output in outputs):
            names = ", ".join(map(repr, dict.fromkeys(outputs)))
            found.append(
                f"the term {term.name!r} on {term.on!r} cannot change anything, because `hard` "
                f"fixes {names} there; remove one of them"
            )
    return found


def periodic_errors(problem: Problem, terms: Sequence[Term]) -> list[str]:
    """Conditions at the ends of a periodic direction, in words; empty if there are none. Local.

    Args:
        problem: its domain is known to be valid.
        terms: its declared terms.
    """
    domain, errors = problem.domain, []
    axes = [i for i, period in enumerate(domain.periods) if period is not None]
    named = [(f"term {term.name!r}", term.on) for term in terms]
    hard = problem.hard if isinstance(problem.hard, Mapping) else {}
    named += [("hard", part) for part in hard]
    for what, on in named:
        part = domain.parts.get(on)
        if part is None or part.outward is None:
            continue
        for i in axes:
            ends = _ends(part, i, domain.low[i], domain.high[i])
            if len(ends):
                x = domain.coordinates[i]
                errors.append(
                    f"{what} is on {on!r}, which contains an end of the periodic direction {x} "
                    f"({x} = {ends[0]:.4g}); u is the same at both ends without a condition. "
                    f"Remove the condition, or let the domain not be periodic in {x}"
                )
    return errors


def _ends(part: Part, axis: int, low: float, high: float) -> np.ndarray:
    """The coordinates of those points of a part that are on an end of a direction."""
    x_ND = some_points(part).numpy()
    n_ND, gap = part.normal(x_ND), AT_END * (high - low)
    at_end = (np.abs(x_ND[:, axis] - low) < gap) | (np.abs(x_ND[:, axis] - high) < gap)
    return x_ND[at_end & (np.abs(n_ND[:, axis]) > 1 - AT_END), axis]
