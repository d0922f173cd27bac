"""Where NaN or infinity arises: the term, the point and the jets there.

It runs only after something was found not to be finite. A healthy step pays nothing for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nedhpc.errors import NonFiniteError
from nedhpc.flows.energy import Energy
from nedhpc.flows.integrals import integrated
from nedhpc.parallel.comm import agreed
from nedhpc.problems.bound import BoundTerm
from nedhpc.problems.terms import gradient
from nedhpc.sampling.points import Points

MAX_NAMES = 8
"""Largest number of jets that a message shows."""
METHOD_CAUSE = "a problem function that divides by zero or takes a root or log of a negative number"
DERIVATIVE_CAUSE = (
    "a problem function without a finite derivative at this state, such as a root or a norm at 0; "
    "add a small number under the root"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The first point of one rank at which a term is not finite."""

    k: int
    """Number of the term among `evaluated`."""
    kind: str
    """What is not finite first: "jets", "value", "energy" or "derivative"."""
    where: str
    """Coordinates of the point, with the jets and coefficients there."""
    value: str
    """The value of the term's method there."""
    num_bad: int
    """Number of this rank's points at which the term is not finite in this way."""
    num_points: int
    """Number of this rank's points of the term."""


@dataclass(slots=True)
class Probe:
    """A term at some points of this rank, with what is derived from it."""

    term: BoundTerm
    x_ND: Tensor
    j_NCM: Tensor
    c_NQ: Tensor
    value_NK: Tensor
    density_N: Tensor
    y_NM: Tensor | None
    w_N: Tensor
    """Quadrature weights times the term's weight."""
    lin: Any
    """The ansatz' linearisation at the points."""


def evaluated(energy: Energy) -> tuple[BoundTerm, ...]:
    """The integrals, then the terms, which may use them. Local."""
    return (*energy.integrals, *energy.terms)


def probes(
    energy: Energy, term: BoundTerm, theta_P: Tensor, points: dict[str, Points], size: int
) -> Iterator[Probe]:
    """A term or integral at this rank's points, at most `size` of them at once. Local."""
    for piece in energy.pieces_of(0, term, points[term.on], size):
        if not len(piece.x_ND):
            continue
        lin, j, c, value = energy.linearised_value(piece, theta_P)
        with torch.enable_grad():
            density = piece.term.kind.density(value, piece.y_NM)
        yield Probe(piece.term, piece.x_ND, j, c, value, density, piece.y_NM, piece.w_N, lin)


def is_finite(tensors, num_points: int) -> Tensor:
    """True for each point at which all tensors (N, ...) are finite, (N,). Local."""
    good = [t.detach().reshape(num_points, -1).isfinite().all(1) for t in tensors]
    return torch.stack(good).all(0)


def unfinite_kinds(probe: Probe) -> Iterator[tuple[str, Tensor]]:
    """(kind, True for each point that is finite), in the order of the computation. Local."""
    n = len(probe.x_ND)
    yield "jets", is_finite([probe.j_NCM], n)
    yield "value", is_finite([probe.value_NK], n)
    yield "energy", is_finite([probe.density_N], n)
    term = probe.term.kind
    linear = term.linearise(probe.value_NK, probe.j_NCM, probe.c_NQ, probe.y_NM)
    slope = gradient(probe.density_N, probe.j_NCM, probe.c_NQ)
    yield "derivative", is_finite([*slope, *(v for seed in linear.seeds for v in seed)], n)


def find(energy: Energy, theta_P: Tensor, points: dict[str, Points]) -> Finding | None:
    """The first point of this rank at which a term is not finite; None if there is none. Local.

    Cost O(N P), a sweep forward over the points.

    Args:
        energy: the energy.
        theta_P: parameters, (P,).
        points: this rank's share of each part.
    """
    # The message shows the value that the user's method returns, not the balanced one.
    points = {on: replace(share, factors={}) for on, share in points.items()}
    for k, term in enumerate(evaluated(energy)):
        first: Finding | None = None
        num_bad = 0
        for probe in probes(energy, term, theta_P, points, energy.chunk):
            for kind, good_N in unfinite_kinds(probe):
                if bool(good_N.all()):
                    continue
                if first is None:
                    row = int((~good_N).nonzero()[0])
                    value = ", ".join(_number(v) for v in probe.value_NK[row])
                    first = Finding(k, kind, _place(energy, probe, row), value, 0, 0)
                num_bad += int((~good_N).sum()) if kind == first.kind else 0
                break
        if first is not None:
            num_points = len(points[term.on].x_ND)
            return Finding(k, first.kind, first.where, first.value, num_bad, num_points)
    return None


def explain(comm, energy: Energy, theta_P: Tensor, points) -> tuple[str, str]:
    """(kind, sentence) of what is not finite at theta, the same on every rank.

    Collective on comm. The lowest rank that found a point tells.

    Args:
        comm: communicator of the ranks that share the points.
        energy: the energy.
        theta_P: parameters, (P,), the same on every rank.
        points: this rank's share of each part; None if no sample was drawn.

    Returns:
        The kind of the Finding, or "parameters", and a sentence; two empty texts if all is finite.
    """
    if not bool(theta_P.isfinite().all()):
        bad = int((~theta_P.isfinite()).sum())
        return "parameters", f"{bad} of the {len(theta_P)} parameters are not finite"
    if points is None:
        return "", ""
    energy = integrated(comm, energy, theta_P, points)
    found = comm.allgather(agreed(comm, find, energy, theta_P, points))
    first = next((finding for finding in found if finding is not None), None)
    if first is None:
        return "", ""
    term = evaluated(energy)[first.k]
    counts = comm.allgather(len(points[term.on].x_ND))
    same = [f for f in found if f is not None and (f.k, f.kind) == (first.k, first.kind)]
    return first.kind, _sentence(energy, term, first, sum(f.num_bad for f in same), counts)


def _sentence(
    energy: Energy, term: BoundTerm, finding: Finding, num_bad: int, counts: list[int]
) -> str:
    place = f"{finding.where} ({num_bad} of {sum(counts)} points)"
    name = f"{'integral' if finding.k < len(energy.integrals) else 'term'} {term.name!r}"
    return {
        "jets": f"{name}: the network itself is not finite at {place}",
        "value": f"{name}: its value is {finding.value} at {place}",
        "energy": f"{name}: its value {finding.value} overflows in the energy at {place}",
        "derivative": f"{name}: its value is {finding.value}, but its derivative is not finite "
        f"at {place}",
    }[finding.kind]


def non_finite(comm, energy, theta_P, points, what: str, step_cause: str) -> NonFiniteError:
    """The error for something that is not finite at theta. Collective on comm.

    Args:
        comm, energy, theta_P, points: as for `explain`.
        what: what is not finite.
        step_cause: how a step may have led to theta; "" if no step did.
    """
    kind, sentence = explain(comm, energy, theta_P, points)
    if kind == "value":
        causes = [METHOD_CAUSE, step_cause]
    elif kind == "derivative":
        causes = [DERIVATIVE_CAUSE]
    elif kind:
        causes = [step_cause or "initial parameters that are too large"]
    else:
        causes = [step_cause, METHOD_CAUSE]
    cause = ", or ".join(cause for cause in causes if cause)
    place = f"; {sentence}" if sentence else ""
    return NonFiniteError(f"{what} is not finite; the likely cause is {cause}{place}")


def _place(energy: Energy, probe: Probe, row: int) -> str:
    """The coordinates of a point, and the jets and coefficients there."""
    coordinates = zip(energy.problem.coordinates, probe.x_ND[row].tolist(), strict=True)
    jets = probe.term.layout.view(probe.j_NCM.detach())
    shown = {name: getattr(jets, name)[row] for name in probe.term.layout.names[:MAX_NAMES]}
    names = [*energy.problem.coefficients, *_components(energy)]
    shown |= dict(zip(names, probe.c_NQ[row], strict=True))
    point = ", ".join(f"{name} = {_number(x)}" for name, x in coordinates)
    values = ", ".join(f"{name} = {_number(v)}" for name, v in shown.items())
    return f"{point} with {values}" if values else point


def _components(energy: Energy) -> list[str]:
    """Names of the components of the integrals that the energy holds."""
    names = []
    for integral in energy.integrals if energy.value_I is not None else ():
        count = integral.num_components
        marks = [""] if count == 1 else [f"[{k}]" for k in range(count)]
        names += [f"i.{integral.name}{mark}" for mark in marks]
    return names


def _number(value: Any) -> str:
    values = torch.as_tensor(value).detach().reshape(-1).tolist()
    texts = [f"{v:.4g}" for v in values]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
