"""Places where conditions contradict each other, e.g. u = 1 on a lid beside u = 0 on a wall.

Where two parts of the boundary meet, the conditions of both hold for the same jets of u. If no jets
satisfy them all, the solution is not smooth there, and a network can only come near it. Local.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nedhpc.domains.base import Domain
from nedhpc.errors import UsageError
from nedhpc.problems.bound import BoundTerm
from nedhpc.problems.data import DataSet
from nedhpc.problems.sizes import Probe, output_sizes, unit_jets

ITERATIONS = 8
"""Gauss-Newton steps to find the jets. Conditions that are linear in u need one."""
NEAR = 1e-5
"""A point nearer to a bound than this share of the domain's width is named as on the bound."""
LEAST = 1e-3
"""Contradictions below this share of the size of the solution are not reported."""


def contradictions(
    terms: Sequence[BoundTerm],
    domain: Domain,
    data: Mapping[str, DataSet] | None,
    coefficients: Iterable[float],
    num_outputs: int,
) -> list[str]:
    """A sentence for each set of conditions that contradict each other; it names the worst place.

    Args:
        terms: residual terms.
        domain: their domain.
        data: the data sets by name, or None.
        coefficients: initial values.
        num_outputs: M.
    """
    coefficients = list(coefficients)
    offset_M, size_M = output_sizes(terms, domain, data, coefficients, num_outputs)
    conditions = [
        term
        for term in terms
        if term.on in domain.parts and term.on != "interior" and not term.integrals
    ]
    each = {term.on: Probe(term, domain, None, coefficients).x_ND.numpy() for term in conditions}
    worst: dict[tuple[str, ...], tuple[float, np.ndarray]] = {}
    for sides in [*((side,) for side in each.items()), *domain.corners()]:
        probes = [
            Probe(term, domain, None, coefficients, x_ND)
            for on, x_ND in sides
            for term in conditions
            if term.on == on
        ]
        gap_N = _gaps(probes, (domain.high - domain.low) / 2, offset_M, size_M)
        row, parts = int(gap_N.argmax()), [on for on, _ in sides]
        names = tuple(term.name for term in conditions if term.on in parts)
        if gap_N[row] > max(LEAST, worst.get(names, (0.0,))[0]):
            worst[names] = float(gap_N[row]), sides[0][1][row]
    found = []
    for names, (gap, point) in worst.items():
        for bound_D in (domain.low, domain.high):
            at_bound = np.abs(point - bound_D) < NEAR * (domain.high - domain.low)
            point = np.where(at_bound, bound_D, point)
        place = ", ".join(f"{x} = {v:.4g}" for x, v in zip(domain.coordinates, point, strict=True))
        subject = f"the conditions {' and '.join(map(repr, names))} contradict each other"
        if len(names) == 1:
            subject = f"the condition {names[0]!r} contradicts itself"
        found.append(
            f"{subject} at {place}, by {gap:.2g} of the solution's size; no smooth solution "
            "satisfies them there"
        )
    return found


def _gaps(probes: list[Probe], half_D, offset_M, size_M) -> np.ndarray:
    """By how much the conditions at each point contradict each other, (N,); 0 if unknown."""
    if not probes:
        return np.zeros(1)
    # The unknowns are the jets of all conditions, in units of the solution's own.
    channels = tuple(dict.fromkeys(alphas for p in probes for alphas in p.term.layout.members))
    unit_CM = unit_jets(channels, half_D, size_M).numpy()
    columns = [[channels.index(alphas) for alphas in p.term.layout.members] for p in probes]
    z_NCM = np.zeros((len(probes[0].x_ND), *unit_CM.shape))
    z_NCM[:, channels.index(((),))] = offset_M / size_M
    gap_N = np.zeros(len(z_NCM))
    for _ in range(ITERATIONS):
        r_NR, A_NRCM = [], []
        for probe, here in zip(probes, columns, strict=True):
            j_NCM = probe.x_ND.new_tensor((unit_CM * z_NCM)[:, here])
            try:
                r_NK, slope_KNCM = (v.numpy() for v in probe.linearised(j_NCM))
            except UsageError:
                return np.zeros(len(z_NCM))
            A_NKCM = np.zeros((*r_NK.shape, *unit_CM.shape))
            A_NKCM[:, :, here] = slope_KNCM.swapaxes(0, 1) * unit_CM[here]
            norm_NK = np.sqrt((A_NKCM**2).sum((2, 3)))
            norm_NK[norm_NK == 0] = np.inf
            r_NR.append(r_NK / norm_NK)
            A_NRCM.append(A_NKCM / norm_NK[:, :, None, None])
        r_NR = np.concatenate(r_NR, 1)
        A_NRJ = np.concatenate(A_NRCM, 1).reshape(*r_NR.shape, -1)
        if not (np.isfinite(A_NRJ).all() and np.isfinite(r_NR).all()):
            return np.zeros(len(z_NCM))
        gap_N = 2 * np.abs(r_NR).max(1)
        step_NJ = -np.einsum("njr,nr->nj", np.linalg.pinv(A_NRJ, rcond=1e-8), r_NR)
        z_NCM = z_NCM + step_NJ.reshape(z_NCM.shape)
    return gap_N
