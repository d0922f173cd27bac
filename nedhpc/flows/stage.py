"""A stage of an implicit time step of u_t = N(u) is the residual of a small energy. Local.

The stage asks for the u that satisfies u - base = a dt N(u) in the interior and the conditions on
the boundary at the stage's time. `base` is a sum of multiples of known networks, e.g. of the last
step and of earlier stages. For L(u)_t = N(u), L(u) and L(base) take their places. As N(u) it is
projected to the network by least squares: the Energy, rows, solvers and ptc of any other problem
minimise it.

Reference for discretising in time before projecting: Chen et al., arXiv:2404.10771 (TENG).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from nedhpc.ansatz import jets
from nedhpc.ansatz.jets import JetLayout
from nedhpc.errors import UsageError
from nedhpc.problems.base import Problem
from nedhpc.problems.bound import BoundTerm, Clock
from nedhpc.problems.terms import Conserved, Rate, Residual


@dataclass(slots=True)
class Pose:
    """The stage that is posed now: u - sum_k weight_k u_k - length N(jets) = 0.

    The jets that N sees are share * j(u) + (1 - share) * j(u_last). It is the same on every rank.
    """

    t: float = 0.0
    """Time at which N and the conditions are evaluated."""
    length: float = 0.0
    """a dt."""
    base: Sequence[tuple[float, Tensor]] = ()
    """(weight, parameters (P,)) of the known networks u_k."""
    share: float = 1.0
    """1, or 1/2 for the implicit midpoint rule."""
    last_P: Tensor | None = None
    """Parameters of u_last, if share < 1."""
    boundary_t: float | None = None
    """Time at which the conditions hold, if that is another one than t."""


@dataclass(slots=True)
class Desk:
    """What is posed now, shared by the terms of a march and its flow."""

    pose: Pose = field(default_factory=Pose)
    rate_clock: Clock = field(default_factory=Clock)
    boundary_clock: Clock = field(default_factory=Clock)
    conserved: tuple[BoundTerm, ...] = ()
    """The conserved quantities."""

    def put(self, pose: Pose) -> None:
        """Pose a stage."""
        self.pose, self.rate_clock.t = pose, pose.t
        self.boundary_clock.t = pose.t if pose.boundary_t is None else pose.boundary_t


@dataclass(frozen=True, slots=True)
class StageTerm(BoundTerm):
    """The residual of the stage on a desk.

    The targets y hold the base (N, M), then the jets (1 - share) j(u_last), flat, if share < 1.
    """

    rate: BoundTerm = None  # pyright: ignore
    desk: Desk = None  # pyright: ignore
    carried: tuple[tuple[int, int], ...] = ()
    """(channel, output) of each jet L(u) of which N is the rate."""

    def carry(self, j_NCM: Tensor) -> Tensor:
        """L(u) (N, M) of jets (N, C, M)."""
        return torch.stack([j_NCM[:, channel, output] for channel, output in self.carried], 1)

    def value(self, x_ND, j_NCM, c_NQ, y_NM, n_ND):
        pose, M = self.desk.pose, self.num_outputs
        seen = j_NCM
        if pose.share < 1:
            seen = pose.share * j_NCM + y_NM[:, M:].reshape(j_NCM.shape)
        rate_NM = self.rate.value(x_ND, seen, c_NQ, None, None)
        return self.carry(j_NCM) - y_NM[:, :M] - pose.length * rate_NM


@dataclass(frozen=True, slots=True)
class FitTerm(BoundTerm):
    """The residual of the fit to a given u: the jets that N uses, each relative to its size."""

    given: Callable[[Tensor, JetLayout], Tensor] = None  # pyright: ignore
    """Jets (N, C, M) of the given u at points."""
    weight_CM: Tensor = None  # pyright: ignore

    def value(self, x_ND, j_NCM, c_NQ, y_NM, n_ND):
        with torch.no_grad():
            target = self.given(x_ND.detach(), self.layout)
        return ((j_NCM - target) * self.weight_CM.to(target)).flatten(1)


def march_terms(terms: Sequence[BoundTerm], problem: Problem) -> tuple[tuple[BoundTerm, ...], Desk]:
    """The terms of the stages' energy, and the desk on which stages are posed.

    Raises:
        UsageError: the rate does not return a column for each output.
    """
    desk, found = Desk(), []
    for term in terms:
        if isinstance(term.kind, Rate):
            if term.num_components != len(problem.outputs):
                raise UsageError(
                    f"term {term.name!r}: its method returns {term.num_components} columns; needed "
                    f"is one for each output, in this order: {', '.join(problem.outputs)}"
                )
            found.append(_stage(term, problem, desk))
        elif isinstance(term.kind, Conserved):
            desk.conserved += (replace(term, clock=desk.boundary_clock),)
        else:
            found.append(replace(term, clock=desk.boundary_clock))
    return tuple(found), desk


def _stage(term: BoundTerm, problem: Problem, desk: Desk) -> StageTerm:
    """The stage of a rate."""
    of = tuple(term.kind.of) or tuple(problem.outputs)
    if len(of) != len(problem.outputs):
        raise UsageError(
            f"term {term.name!r}: of = {of}; needed is one jet for each of the outputs "
            f"{', '.join(problem.outputs)}"
        )
    rate = replace(term, layout=with_values(term, problem, of), clock=desk.rate_clock)
    places = {name: (channel, output) for name, channel, output in rate.layout.entries}
    if any(isinstance(places[name][0], tuple) for name in of):
        raise UsageError(f"term {term.name!r}: of = {of}; a gradient is not one jet")
    kind, carried = Residual(term.name, on=term.on), tuple(places[name] for name in of)
    shared = _shallow(replace(rate, kind=kind))
    return StageTerm(**shared, rate=rate, desk=desk, carried=carried)


def fit_term(stage: StageTerm, given: Callable, weight_CM: Tensor) -> FitTerm:
    """The term of the fit to a given u, on the jets of a stage."""
    num_components = stage.layout.num_channels * stage.num_outputs
    term = replace(stage.rate, kind=stage.kind, num_components=num_components)
    return FitTerm(**_shallow(term), given=given, weight_CM=weight_CM)


def with_values(term: BoundTerm, problem: Problem, others: Sequence[str]) -> JetLayout:
    """The layout of a term's jets together with the values of all outputs, and with others."""
    names = (*problem.outputs, *others, *term.layout.names)
    return jets.parse(dict.fromkeys(names), tuple(problem.outputs), problem.coordinates)


def _shallow(term: BoundTerm) -> dict:
    return {f.name: getattr(term, f.name) for f in fields(BoundTerm)}
