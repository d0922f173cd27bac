"""Pseudo-transient continuation: linearly implicit Euler steps of the flow whose dt grows as the energy falls.

(A^T A + M / dt) delta = -g is the step on the tangent space; its residual would be r + A delta. The network leaves that line, and
simplified Newton steps with the same factorisation bring it back:

    theta_0 = theta + delta,   theta_k+1 = theta_k - (A^T A + M / dt)^-1 A^T (r(theta_k) - r - A delta)

(for a density, which has no r, with g(theta_k) - g - A^T A delta in the place of A^T (...)).
The first of them is the geodesic acceleration of Transtrum and Sethna (arXiv:1201.5885) with a full-step difference; the further ones
follow the curved path to higher order for one residual each. dt, searched by powers of `factor` around the last one on the step's
sample, is the longest whose energy is near the least; dt -> 0 follows the flow, dt -> inf is Gauss-Newton (Kelley and Keyes, SIAM
J. Numer. Anal. 35, 1998).
"""

from dataclasses import dataclass
from math import floor, log

import numpy as np
import torch

from nedhpc.solvers import SolveInfo
from nedhpc.steppers.base import StepInfo

MAX_STALLS = 4


@dataclass(slots=True)
class Trial:
    """The best point found with one dt."""

    theta_P: torch.Tensor
    E_K: np.ndarray
    info: SolveInfo
    curved: bool = False
    """Corrections did not bring the step back to its line."""

    @property
    def energy(self):
        E = float(self.E_K.sum())
        return E if np.isfinite(E) else np.inf


class Ptc:
    """Step rule step(theta, dt) -> (theta, dt, info); its memory is the count of stalled steps."""

    def __init__(self, flow, settings):
        self.flow, self.settings = flow, settings
        self.stalls = 0

    def state(self):
        return {"stalls": self.stalls}

    def load(self, state):
        self.stalls = int(state["stalls"])

    def step(self, theta_P, dt):
        """Collective on the flow's comm. Cost: one factorisation, and per trial 1 + `corrections` residuals and solves of O(P^2)."""
        system = self.flow.linearise(theta_P)
        dt, factor, trials = min(dt, self.settings.max_dt), self.settings.factor, {}

        def energy(k):
            if k not in trials:
                trials[k] = self._trial(system, dt * factor**k)
            return trials[k].energy

        best, most = 0, self.settings.max_trials
        highest = min(most, floor(log(self.settings.max_dt / dt, factor)))
        slack = (
            self.settings.slack if self.flow.energy.has_row_residual else 1.0
        )  # a ratio of energies needs them above zero
        if energy(0) < system.energy:
            # Of steps that are nearly as good the longest: it gains more later.
            while (
                best < highest
                and energy(best + 1) < system.energy
                and energy(best + 1) <= slack * min(trial.energy for trial in trials.values())
            ):
                best += 1
        else:
            while energy(best) >= system.energy and best > -most:
                best -= 1
        if best < 0 or best == 0 and trials[0].curved:
            while best > -most and slack * energy(best - 1) < energy(best):
                best -= 1
        trial = trials[best]
        if trial.energy < system.energy:
            self.stalls = 0
            theta_P, E_K, taken, following = (
                trial.theta_P,
                trial.E_K,
                dt * factor**best,
                dt * factor**best,
            )
        else:
            self.stalls += 1
            E_K, taken, following = system.E_K, 0.0, dt / factor**3
        return (
            theta_P,
            following,
            StepInfo(
                taken,
                E_K,
                trial.info.effective_rank,
                trial.info.projection_error,
                self.stalls >= MAX_STALLS,
                trial.info.note,
            ),
        )

    def _trial(self, system, dt):
        flow = self.flow
        delta, norm, info = flow.descent(system, 1 / dt)
        theta, line = system.theta_P + delta, flow.line(system, delta)
        E_K, r_N = flow.evaluate(theta, system.theta_P)
        best = Trial(theta, E_K, info)
        for _ in range(self.settings.corrections):
            c, c_norm = flow.correction(system, theta, r_N, line, 1 / dt)
            if (
                not c_norm < norm
            ):  # no contraction: the tangent space at theta says nothing about this far
                best.curved = True
                break
            theta, norm = theta + c, c_norm
            E_K, r_N = flow.evaluate(theta, system.theta_P)
            trial = Trial(theta, E_K, info)
            if trial.energy < best.energy:
                best = trial
        return best
