"""The flow of a march in time, u_t = N(u): parameters that follow a solution.

A step poses its stages one after the other; each is the energy of a Flow, which ptc minimises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nedhpc.flows.descent import Flow
from nedhpc.flows.energy import Energy
from nedhpc.flows.stage import Desk, Pose, StageTerm
from nedhpc.parallel.comm import total
from nedhpc.sampling.points import Points

INTERIOR = "interior"
DIFFERENCE = 1e-4
"""Step of the time derivative of a condition, as a share of its relaxation time."""


class Evolution(Flow):
    """The Flow of the stage that is posed. All methods are collective on comm unless they say so.

    Args:
        desk: on which the energy's StageTerm finds the stage.
        stops: times, in order, that steps must not pass; the last one is the end of the march.
        is_linear: True if only the last layer moves as long as it can follow.
        comm, energy, metric, solver, factored, phases: as for Flow.
    """

    def __init__(self, desk: Desk, stops: Sequence[float], is_linear: bool, *arguments, **options):
        super().__init__(*arguments, **options)
        self.desk, self.stops, self.is_linear = desk, tuple(stops), is_linear
        self.stage = next(term for term in self.energy.terms if isinstance(term, StageTerm))
        energy, terms = self.energy, desk.conserved
        self.conserved = (
            Energy(energy.problem, terms, energy.ansatz, energy.chunk) if terms else None
        )
        """Holds the integrals of the conserved quantities; None if there are none."""

    def pose(self, pose: Pose) -> None:
        """Pose a stage, on the points of the present sample. Local."""
        self.desk.put(pose)
        with self.phases("energy"):
            self.sample = self.posed(self.sample)

    def rest(self, theta_P: Tensor, t: float) -> None:
        """Pose a stage that theta solves, so that only the conditions count. Local."""
        self.pose(Pose(t, 0.0, ((1.0, theta_P),)))

    def tangent(self, theta_P: Tensor, t: float, relaxation: float, columns: slice):
        """Rows J of the tangent space at theta, and the N that they shall represent.

        A condition r = 0 on the boundary becomes dr/dtheta theta_dot = -r_t - r / relaxation.

        Args:
            theta_P: parameters, (P,).
            t: time.
            relaxation: time in which an error of a condition decays by the factor e.
            columns: columns of the rows.

        Returns:
            A (this rank's scaled rows) and b_N, of which A theta_dot = b.
        """
        base = ((1.0, theta_P),)
        self.pose(Pose(t, relaxation, base))
        r_N = self.evaluate(theta_P, t)[1]
        if len(self.energy.terms) > 1:
            # The residual of the interior is zero if the length is zero: only conditions are left.
            ends = []
            for sign in (1, -1):
                self.desk.put(Pose(t, 0.0, base, boundary_t=t + sign * DIFFERENCE * relaxation))
                ends.append(self.evaluate(theta_P, t)[1])
            r_N = r_N + (ends[0] - ends[1]) / (2 * DIFFERENCE)
        self.desk.put(Pose(t, 0.0, base))
        return self.rows(theta_P, columns).A, -r_N / relaxation

    def posed(self, points: Mapping[str, Points]) -> dict[str, Points]:
        """The points with the base of the present stage as targets. Local."""
        pose, inside = self.desk.pose, points[INTERIOR]
        carry = self.stage.carry
        columns = [sum(w * carry(self.jets(theta_P, inside)) for w, theta_P in pose.base)]
        if pose.share < 1:
            columns.append((1 - pose.share) * self.jets(pose.last_P, inside).flatten(1))
        return {**points, INTERIOR: replace(inside, y_NM=torch.cat(columns, 1))}

    def jets(self, theta_P: Tensor, points: Points) -> Tensor:
        """Jets (N, C, M) of u that a stage uses. Local."""
        with torch.no_grad():
            parts = points.x_ND.split(self.energy.chunk)
            theta_P = theta_P[: self.energy.num_network]
            return torch.cat(
                [self.energy.ansatz.jets(theta_P, x_ND, self.stage.layout) for x_ND in parts]
            )

    @property
    def quantity_names(self) -> list[str]:
        """Names of the conserved quantities, with a number for each of several components. Local.

        They are "mass", or "mass.0" and "mass.1".
        """
        found = []
        for term in self.desk.conserved:
            several = [f"{term.name}.{k}" for k in range(term.num_components)]
            found += several if len(several) > 1 else [term.name]
        return found

    def quantities(self, theta_P: Tensor) -> np.ndarray:
        """The conserved quantities, (K,)."""
        return self._integrals(theta_P, slopes=False)[:, 0]

    def quantity_slopes(self, theta_P: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The conserved quantities (K,) and their derivatives (K, P). Cost O(N P)."""
        sums_KP = self._integrals(theta_P, slopes=True)
        return sums_KP[:, 0], sums_KP[:, 1:]

    def _integrals(self, theta_P, slopes):
        if self.conserved is None:
            return np.empty((0, 1))
        with self.phases("rows"):
            sums = self.conserved.integrate(theta_P, self.sample, slopes).cpu().numpy()
            return total(self.comm, sums.ravel()).reshape(sums.shape)

    def values(self, theta_P: Tensor) -> Tensor:
        """u, or L(u) if N is its rate, at this rank's points of the sample, (N, M). Local."""
        return self.stage.carry(self.jets(theta_P, self.sample[INTERIOR]))

    @property
    def measure(self) -> float:
        """Volume of the domain."""
        return float(total(self.comm, [float(self.sample[INTERIOR].weight_N.double().sum())])[0])

    def rms(self, *values: Tensor) -> np.ndarray:
        """Root mean square over the domain of functions that are given at the sample's points.

        Args:
            values: (N, M) each, at this rank's points; for M outputs their squares are summed.
        """
        w_N = self.sample[INTERIOR].weight_N.double()
        squares = [float(w_N @ v.double().square().sum(1)) for v in values]
        *squares, measure = total(self.comm, [*squares, float(w_N.sum())])
        return np.sqrt(np.array(squares) / measure)
