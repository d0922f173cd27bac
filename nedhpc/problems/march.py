"""Problems that march in time: u_t = N(u), u = u0 at t = 0, conditions on the boundary. Local."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nedhpc.ansatz.algebra import function_jets
from nedhpc.ansatz.jets import JetLayout
from nedhpc.errors import UsageError
from nedhpc.problems.base import Problem
from nedhpc.problems.dry_run import SUBSETS, probe_points, same_in_subsets
from nedhpc.problems.terms import Conserved, Rate, Residual, Term
from nedhpc.user_calls import called

NUM_PROBES = 512
"""Number of points at which the sizes of u0 and of its derivatives are measured."""


def march_errors(problem: Problem, terms: Sequence[Term]) -> list[str]:
    """All that keeps a problem with a rate from marching in time; nothing without a rate."""
    rates = [term for term in terms if isinstance(term, Rate)]
    conserved = [term for term in terms if isinstance(term, Conserved)]
    if not rates:
        return [
            f"{term.name!r} is conserved in time, and there is no @nedhpc.rate(); without a march "
            "in time, use @nedhpc.integral"
            for term in conserved
        ]
    errors = []
    if len(rates) > 1:
        names = ", ".join(term.name for term in rates)
        errors.append(
            f"it has the rates {names}; needed is one method that returns (N, M), with a column "
            "for each output"
        )
    if "t" in problem.coordinates:
        errors.append(
            f"its domain has the time t as a coordinate, and {rates[0].name!r} is a rate; use a "
            "domain in space only to march in time, or a residual with u_t to solve in space-time"
        )
    if type(problem).start is Problem.start:
        errors.append(
            f"{rates[0].name!r} is a rate, and the state at t = 0 is missing: add a method "
            "`def start(self, x)` that returns u0 (N,), or (N, M) for M outputs"
        )
    if problem.coefficients:
        errors.append(
            "a march in time has nothing that determines `coefficients`; make them attributes"
        )
    errors += [
        f"term {term.name!r} is a {type(term).__name__} on {term.on!r}; beside its rate, a march "
        "in time has residuals on parts of the boundary only"
        for term in terms
        if term not in [*rates, *conserved]
        and (type(term) is not Residual or term.on in ("interior", "data"))
    ]
    return errors


def start_values(problem: Problem, x_ND: Tensor) -> Tensor:
    """u0 at points, (N, M).

    Raises:
        UsageError: `start` raises, or does not return one float64 for each point and output.
    """
    num_outputs = len(problem.outputs)
    u = called("`start`", problem.start, x_ND)
    shape = tuple(u.shape) if isinstance(u, Tensor) else type(u).__name__
    allowed = [(len(x_ND), num_outputs), *([(len(x_ND),)] if num_outputs == 1 else [])]
    if shape not in allowed or u.dtype != x_ND.dtype:
        raise UsageError(
            f"`start` returns {shape} {getattr(u, 'dtype', '')} for {len(x_ND)} points; needed is "
            f"a tensor {' or '.join(map(str, allowed))} of {x_ND.dtype}"
        )
    return u.reshape(len(x_ND), num_outputs)


def start_jets(problem: Problem, x_ND: Tensor, layout: JetLayout) -> Tensor:
    """Jets (N, C, M) of u0, by automatic differentiation. Raises as `start_values`."""
    channels = called(
        "the derivative of `start`",
        function_jets,
        lambda x: start_values(problem, x),
        x_ND,
        layout,
    )
    return torch.stack(channels, 1).detach()


def start_sizes(problem: Problem, layout: JetLayout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes of u0 and of its derivatives, from points that are spread over the domain.

    Returns:
        mean (M,) of u0, its standard deviation (M,), and the root mean square (C, M) of the jets.

    Raises:
        UsageError: as `start_values`; u0 or a derivative is not finite; or the value of `start` at
            a point depends on other points.
    """
    interior = problem.domain.parts["interior"]
    x_ND = torch.as_tensor(probe_points(interior, np.random.default_rng(0), NUM_PROBES))
    few = x_ND[:7]
    parts = [start_values(problem, few[rows]) for rows in SUBSETS]
    if not same_in_subsets(start_values(problem, few), parts):
        raise UsageError(
            "`start` has another value at a point if the other points change or if it is called "
            "again; the run would depend on the number of ranks"
        )
    j_NCM = start_jets(problem, x_ND, layout)
    bad = ~j_NCM.isfinite().flatten(1).all(1)
    if bad.any():
        point = ", ".join(f"{value:.6g}" for value in x_ND[bad][0].tolist())
        raise UsageError(
            f"`start` or a derivative of it that the rate uses is not finite at ({point}); write "
            "it so that torch can differentiate it"
        )
    u = j_NCM[:, 0]
    rms_CM = j_NCM.square().mean(0).sqrt()
    return u.mean(0).numpy(), u.std(0, correction=0).numpy(), rms_CM.numpy()
