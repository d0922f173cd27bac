"""Pieces of the boundary on which no condition holds. Local."""

from collections.abc import Sequence

from nedhpc.ansatz.layers import Layer
from nedhpc.problems.base import Problem
from nedhpc.problems.bound import BoundTerm
from nedhpc.problems.data import named_sets


def uncovered(problem: Problem, terms: Sequence[BoundTerm]) -> list[str]:
    """A sentence for each named part of the boundary without a condition, and for the rest of it.

    Nothing is said if no part has a name and no condition holds on the boundary; nor if there are
    data or energy densities, whose natural conditions hold by themselves.

    Args:
        problem: its domain and hard conditions are used.
        terms: its terms.
    """
    sets = named_sets(problem.data)
    if isinstance(problem.hard, Layer) or any(
        term.on in sets or not term.kind.is_least_squares for term in terms
    ):
        return []
    held = {term.on for term in terms} | set(problem.hard)
    pieces = set(problem.domain.boundary_pieces)
    if "boundary" in held or not (pieces - {None} or pieces & held):
        return []
    names = sorted(f"the part {name!r} of the boundary" for name in pieces - held if name)
    rest = ["the part of the boundary that has no name"] if None in pieces else []
    return [
        f"no condition holds on {part}; the solution may not be determined there, unless it needs "
        "no condition, as at an outflow"
        for part in names + rest
    ]
