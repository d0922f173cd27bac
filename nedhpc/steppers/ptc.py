"""Pseudo-transient continuation: linearly implicit Euler steps of the flow whose dt grows as the energy falls.

(A^T A + M / dt) delta = -g; with the second-order correction a of geodesic acceleration the step is delta + a / 2. dt is
searched by powers of `factor` around the last one for the least energy on the step's sample; dt -> 0 follows the flow, dt -> inf
is Gauss-Newton. (Kelley and Keyes 1998; Transtrum and Sethna, arXiv:1201.5885.)
"""

import numpy as np

from nedhpc.steppers.base import StepInfo

MAX_DT = 1e24
MAX_STALLS = 4


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
        """Collective on the flow's comm. Cost: one factorisation, and per trial two residuals and O(P^2)."""
        system = self.flow.linearise(theta_P)
        factor, trials = self.settings.factor, {}

        def energy(k):
            if k not in trials:
                trials[k] = self._trial(system, dt * factor**k)
            return trials[k][0]

        best = min((-1, 0, 1), key=energy)
        # Go on while the least energy lies at the edge of what was tried.
        while best != 0 and abs(best) < self.settings.max_trials and energy(best + np.sign(best)) < energy(best):
            best += np.sign(best)
        if energy(best) < system.energy:
            self.stalls = 0
            _, theta_P, E_K, info = trials[best]
            taken, following = dt * factor**best, min(dt * factor**best, MAX_DT)
        else:
            self.stalls += 1
            E_K, info, taken, following = system.E_K, trials[best][3], 0.0, dt / factor**3
        return theta_P, following, StepInfo(taken, E_K, info.effective_rank, info.projection_error,
                                            self.stalls >= MAX_STALLS, info.note)

    def _trial(self, system, dt):
        """(energy, theta, energy by term, solver info) of a step dt."""
        flow = self.flow
        delta, norm, info = flow.descent(system, 1 / dt)
        if self.settings.acceleration and system.rows.r_N is not None:
            a, a_norm = flow.acceleration(system, delta, 1 / dt, self.settings.difference)
            if a_norm < self.settings.max_acceleration * norm:
                delta = delta + a / 2
        theta = system.theta_P + delta
        E_K = flow.energies(theta)
        E = float(E_K.sum())
        return (E if np.isfinite(E) else np.inf), theta, E_K, info
