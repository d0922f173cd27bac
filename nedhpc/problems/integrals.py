"""Integrals of a problem: their nodes, and the terms that ask for a target. Local.

An integral I(theta) = sum_q w_q f(x_q, j_q, c) has nodes of its own. They are a part of the domain
that is added to the user's parts, so that a sample holds them like any other points. A target gives
a residual I - target. It does not belong to a point of the sample, so it is a term on another part
that is added, of one point. Whichever rank holds that point has the row.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from nedhpc.ansatz import jets
from nedhpc.domains.base import Domain, Part
from nedhpc.errors import UsageError
from nedhpc.problems.base import Problem
from nedhpc.problems.bound import BoundTerm
from nedhpc.problems.data import named_sets
from nedhpc.problems.dry_run import dry_run, probe_points
from nedhpc.problems.terms import Conserved, Integral

POINT = "integrals"
"""The part of one point that carries the residuals I - target."""


def nodes_of(on: str) -> str:
    """Name of the part that holds the nodes of the integrals over the part `on`."""
    return f"{on}_nodes"


def part_of(nodes: str) -> str:
    """Name of the part that the nodes of that name lie on."""
    return nodes.removesuffix("_nodes")


def bind(problem: Problem, integral: Integral) -> BoundTerm:
    """Bind an integral to its problem by a trial call of its method.

    Raises:
        UsageError: as `dry_run`, or the integral cannot be computed, or its target does not fit.
    """
    where = f"integral {integral.name!r}"
    if integral.on in ("data", *named_sets(problem.data)):
        raise UsageError(
            f"{where}: it is on data, whose points are no quadrature nodes; use a part of the "
            "domain"
        )
    taken = [name for name in (POINT, nodes_of(integral.on)) if name in problem.domain.parts]
    if taken:
        raise UsageError(f"{where}: the domain has a part {taken[0]!r}; rename that part")
    bound = dry_run(problem, integral)
    if integral.target is not None:
        _check_target(integral, bound.num_components, where)
    # The weight belongs to the target; the integral itself has none.
    return replace(bound, kind=replace(integral, on=nodes_of(integral.on)), weight=1.0)


def _check_target(integral: Integral, num_components: int, where: str) -> None:
    numbers = np.atleast_1d(np.asarray(integral.target, dtype=object)).tolist()
    is_number = all(isinstance(v, int | float) and math.isfinite(v) for v in numbers)
    if not is_number or len(numbers) not in (1, num_components):
        raise UsageError(
            f"{where}: target = {integral.target!r}; needed is a finite number, or one for each of "
            f"its {num_components} components"
        )


def constraint(
    problem: Problem, integral: Integral, weight: float, integrals: tuple[BoundTerm, ...]
) -> BoundTerm:
    """The term weight * |I - target|^2 / 2.

    Args:
        problem: the problem.
        integral: an integral with a target.
        weight: factor from the config, beside the integral's own weight.
        integrals: all bound integrals of the problem.
    """
    own = next(bound for bound in integrals if bound.name == integral.name)

    def distance(i):
        value = getattr(i, integral.name)
        return value - value.new_tensor(integral.target)

    return BoundTerm(
        kind=replace(integral, on=POINT),
        method=distance,
        roles=("i",),
        layout=jets.parse((), tuple(problem.outputs), problem.coordinates),
        weight=integral.weight * weight,
        coefficients=tuple(problem.coefficients),
        num_outputs=len(problem.outputs),
        num_components=own.num_components,
        is_misfit=False,
        integrals=integrals,
    )


def integrals_of(terms: Iterable[BoundTerm]) -> tuple[BoundTerm, ...]:
    """The integrals that the terms use, or are; each term that uses some knows all of them."""
    terms = tuple(terms)
    used = next((term.integrals for term in terms if term.integrals), ())
    return (*used, *(term for term in terms if isinstance(term.kind, Conserved)))


def sampled(terms: Sequence[BoundTerm]) -> tuple[BoundTerm, ...]:
    """The terms and their integrals: all that needs points."""
    return (*terms, *integrals_of(terms))


def with_nodes(domain: Domain, terms: Sequence[BoundTerm]) -> Domain:
    """The domain with the parts that integrals need; the domain itself if there are none.

    Args:
        domain: the problem's domain, or a window of it.
        terms: bound terms.
    """
    integrals = integrals_of(terms)
    if not integrals:
        return domain
    point = probe_points(domain.parts["interior"], np.random.default_rng(0), 1)

    def place(unit_NK: np.ndarray) -> np.ndarray:
        return point.repeat(len(unit_NK), 0)

    def cells(count: int, start: int, stop: int) -> np.ndarray:
        return point[start:stop]

    added = {POINT: Part(dim=0, measure=1.0, place=place, cells=cells, num_points=1)}
    for on, part in domain.parts.items():
        if nodes_of(on) in {integral.on for integral in integrals}:
            added[nodes_of(on)] = replace(part, is_quadrature=True)
    extended = copy.copy(domain)
    extended.parts = domain.parts | added
    return extended
