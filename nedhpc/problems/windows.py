"""Time windows: which problems can be solved in them, and how a window continues the one before.

Local.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nedhpc.ansatz import jets
from nedhpc.ansatz.jets import JetLayout
from nedhpc.ansatz.layers import Layer
from nedhpc.problems.base import Problem
from nedhpc.problems.bound import BoundTerm
from nedhpc.problems.terms import Residual

START = "initial"
"""The part on which a window continues the solution of the one before."""


def time_orders(terms: Sequence[BoundTerm], num_outputs: int, time: int) -> list[int]:
    """The highest time derivative of each output in the equations of the interior.

    Args:
        terms: bound terms.
        num_outputs: M.
        time: number of the time coordinate.
    """
    orders = [0] * num_outputs
    for term in terms:
        if term.on == "interior":
            members = term.layout.members
            for _, channels, output in term.layout.entries:
                for channel in channels if isinstance(channels, tuple) else (channels,):
                    order = max(alpha.count(time) for alpha in members[channel])
                    orders[output] = max(orders[output], order)
    return orders


def why_not(problem: Problem, terms: Sequence[BoundTerm]) -> str:
    """The reason why a problem cannot be solved in time windows; "" if it can."""
    domain = problem.domain
    if domain.between(float(domain.low[-1]), float(domain.high[-1])) is None:
        return "its domain has no time coordinate"
    if not any(term.on == START for term in terms):
        return f"it has no term on {START!r}"
    if not all(term.kind.is_least_squares for term in terms):
        return "it has terms that are not residuals"
    if problem.coefficients:
        return "its coefficients are the same at all times"
    if any(term.integrals for term in terms):
        return "its integrals are over all times"
    if any(term.on not in domain.parts for term in terms):
        return "it has a term on data, whose points may lie at any time"
    if isinstance(problem.hard, Layer) or START in problem.hard:
        return f"a hard condition holds on {START!r}, or may do so"
    if not any(time_orders(terms, len(problem.outputs), domain.dim - 1)):
        return "its equations have no time derivative"
    return ""


def continued(
    terms: Sequence[BoundTerm], problem: Problem, before: Callable[[Tensor, JetLayout], Tensor]
) -> tuple[BoundTerm, ...]:
    """The terms of a later window: the initial conditions ask for the end of the one before.

    Args:
        terms: terms of the problem.
        problem: its outputs and coordinates are used.
        before: jets (N, C, M) of the window before, as a function of points and a layout.
    """
    outputs, coordinates = tuple(problem.outputs), problem.coordinates
    orders = time_orders(terms, len(outputs), len(coordinates) - 1)
    names = tuple(
        u + ("_" + "t" * k if k else "")
        for u, order in zip(outputs, orders, strict=True)
        for k in range(order)
    )
    layout = jets.parse(names, outputs, coordinates)

    def join(x: Tensor, j) -> Tensor:
        target = layout.view(before(x, layout))
        return torch.stack([getattr(j, name) - getattr(target, name) for name in names], 1)

    first = next(term for term in terms if term.on == START)
    term = BoundTerm(
        kind=Residual(first.name, on=START),
        method=join,
        roles=("x", "j"),
        layout=layout,
        weight=first.weight,
        coefficients=(),
        num_outputs=len(outputs),
        num_components=len(names),
        is_misfit=False,
    )
    return (*(term for term in terms if term.on != START), term)
