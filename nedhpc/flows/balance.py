"""Balanced rows: each residual component is divided by its own sensitivity to unit jets. Local.

A residual in SI units may be of size 1e9 beside a condition of size 300, and one component may
change by orders of magnitude from point to point. Component k of a term is therefore multiplied by

    b_k(x) = sqrt(c / |part|) / s_k(x),    s_k(x)^2 = sum_m (dr_k/dj_m(x) unit_m)^2,

where unit_m is the size of jet m if the solution, in scaled variables, has jets of size one
(problems/sizes.py). Then the energy of a term is a mean square over its part, and c = CONDITION on
every part but the interior. The derivatives are those at a reference state, so that the energy does
not change within a run of the flow (row equilibration, as for a linear system).

An integral I that a term uses counts as a jet more, whose unit is its own sensitivity to unit jets.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nedhpc.domains.base import Domain
from nedhpc.problems.bound import BoundTerm, num_components
from nedhpc.problems.data import DataSet
from nedhpc.problems.integrals import integrals_of
from nedhpc.problems.sizes import Probe, unit_jets
from nedhpc.problems.terms import gradients

CONDITION = 10.0
"""Weight of a condition's mean square against that of an equation in the interior."""
JET_BYTES = 2**26
"""Largest size of a chunk's jets in all layers, in bytes. A sweep holds several such sets."""
FLOOR = 1e-8
"""A sensitivity below this share of the typical one is replaced by the typical one.

Where a term hardly depends on u, its value there is no measure of the error of u. But if the term
is linear in u there, it only has other units: it may ask for a flux of 1e9 W/m^2 on one wall, and
for a temperature of 300 K on another.
"""
NUDGE = 0.1
"""Size of the jets that are added to the reference state to see how the sensitivity changes.

An example is u^2, which has none at u = 0.
"""


class Balance:
    """The factors b of all terms for one reference state.

    Args:
        ansatz: the ansatz, whose scaling gives the sizes of the outputs.
        terms: bound residual terms.
        theta_P: reference parameters and coefficients, (P,), float64 on the CPU.
        domain: the domain, or the window of it that is solved.
        data: the data sets by name, or None.
    """

    def __init__(
        self,
        ansatz,
        terms: tuple[BoundTerm, ...],
        theta_P: np.ndarray,
        domain: Domain,
        data: Mapping[str, DataSet] | None,
    ):
        self.ansatz, self.domain = ansatz, domain
        self.theta_P = torch.as_tensor(theta_P, dtype=torch.float64)
        self.half_D = (domain.high - domain.low) / 2
        self._integrate(integrals_of(terms), domain, data)
        self.typical = {
            term.name: self._typical(Probe(term, domain, data, self._coefficients))
            for term in terms
        }
        """Root mean square of the sensitivity of each component, {term: (K,)}."""

    def _integrate(self, integrals: tuple[BoundTerm, ...], domain: Domain, data) -> None:
        """Set value and unit (I,) of the integrals' components, from some points of each part."""
        self.value_I = self.unit_I = torch.empty(0, dtype=torch.float64)
        value_I, unit_I = [], []
        for integral in integrals:
            probe = Probe(integral, domain, data, self._coefficients)
            part = domain.parts[integral.on]
            measure = part.measure if part.dim else len(probe.x_ND)
            j_NCM = self._jets(integral, probe.x_ND)
            value_I.append(measure * probe.linearised(j_NCM)[0].mean(0))
            unit_I.append(measure * self._typical(probe))
        if integrals:
            self.value_I, self.unit_I = torch.cat(value_I), torch.cat(unit_I)

    @property
    def _coefficients(self) -> list[float]:
        """The coefficients, then the integrals."""
        return [*self.theta_P[self.ansatz.num_parameters :].tolist(), *self.value_I.tolist()]

    def _jets(self, term: BoundTerm, x_ND: Tensor) -> Tensor:
        theta_P = self.theta_P.to(x_ND)[: self.ansatz.num_parameters]
        with torch.no_grad():
            return self.ansatz.jets(theta_P, x_ND, term.layout)

    def factors(self, term: BoundTerm, x_ND: Tensor, y_NM, n_ND) -> Tensor:
        """b (N, K) of a term at points, on their device.

        Args:
            term: one of the terms.
            x_ND: points.
            y_NM: targets, or None.
            n_ND: normals, or None.
        """
        j_NCM = self._jets(term, x_ND)
        c_NQ = x_ND.new_tensor(self._coefficients).expand(len(x_ND), -1)
        s_NK = self._sensitivity(term, x_ND, j_NCM, c_NQ, y_NM, n_ND)
        typical_K = self.typical[term.name].to(s_NK)
        small = ~(s_NK >= FLOOR * typical_K)  # NaN too; the energy's own check reports it
        if small.any():
            unit_CM = self._unit_jets(term).to(j_NCM)
            beside_NK = self._sensitivity(term, x_ND, j_NCM + NUDGE * unit_CM, c_NQ, y_NM, n_ND)
            is_linear = (s_NK > 0) & ((beside_NK - s_NK).abs() < 0.5 * s_NK)
            s_NK = torch.where(small & ~is_linear, typical_K.expand_as(s_NK), s_NK)
        return self._weight(term) / s_NK

    def _weight(self, term: BoundTerm) -> float:
        parts = self.domain.parts
        measure = parts[term.on].measure if term.on in parts else 1.0
        return ((1.0 if term.on == "interior" else CONDITION) / measure) ** 0.5

    def _unit_jets(self, term: BoundTerm) -> Tensor:
        return unit_jets(term.layout.members, self.half_D, self.ansatz.scaling.size_M)

    def _sensitivity(self, term, x_ND, j_NCM, c_NQ, y_NM, n_ND) -> Tensor:
        unit_CM = self._unit_jets(term).to(j_NCM)
        j, c = j_NCM.detach().requires_grad_(), c_NQ.detach().clone().requires_grad_()
        with torch.enable_grad():
            value = term.value(x_ND, j, c, y_NM, n_ND)
        num_integrals = num_components(term.integrals)
        unit_I = self.unit_I[:num_integrals].to(j_NCM)
        squares = [
            (d_j * unit_CM).square().sum((1, 2))
            + (d_c[:, d_c.shape[1] - num_integrals :] * unit_I).square().sum(1)
            for d_j, d_c in gradients(value, j, c)
        ]
        return torch.stack(squares, 1).sqrt()

    def _typical(self, probe: Probe) -> Tensor:
        term = probe.term
        # A wide network's jets at all probes might not fit into memory.
        most = max(1, JET_BYTES // self.ansatz.point_bytes(term.layout))
        x, c = probe.x_ND[:most], probe.c_NQ[:most]
        y, n = (None if v is None else v[:most] for v in (probe.y_NM, probe.n_ND))
        j_NCM = self._jets(term, x)
        unit_CM = self._unit_jets(term)
        signs_NCM = torch.as_tensor(np.random.default_rng(0).choice([-1.0, 1.0], j_NCM.shape))
        typical_K = torch.zeros(term.num_components, dtype=torch.float64)
        for nudge in (0.0, NUDGE):
            j = j_NCM + nudge * signs_NCM * unit_CM
            s_NK = self._sensitivity(term, x, j, c, y, n)
            found_K = s_NK.square().nanmean(0).sqrt()
            usable = found_K.isfinite() & (found_K > 0) & (typical_K == 0)
            typical_K = torch.where(usable, found_K, typical_K)
        return torch.where(typical_K > 0, typical_K, torch.ones_like(typical_K))
