"""SPRING: natural-gradient steps with momentum for mini-batches, N < P.

phi = mu phi_prev + A^T (A A^T + lambda I)^-1 (-r - mu A phi_prev): of all directions that lower the residual of this sample, the one
nearest to mu times the last, phi = argmin |A phi + r|^2 + lambda |phi - mu phi_prev|_M^2. The step is theta + dt clip(phi), with
|clip(phi)|_M <= max_norm; phi_prev is the unclipped one. (Goldshlager, Abrahamsen and Lin, arXiv:2401.10190; for PDEs
arXiv:2505.12149.) Those keep lambda fixed; here it can be searched for the least energy on the step's sample.
"""

import numpy as np
import torch

from nedhpc.steppers.base import StepInfo

FACTOR, MAX_TRIALS = 4.0, 6
"""Ratio of neighbouring trials of lambda; most powers of it that lambda may change by in one step."""
MIN_DAMPING = 1e-24


class Spring:
    """Step rule step(theta, dt) -> (theta, dt, info); its memory is phi and lambda."""

    def __init__(self, flow, settings):
        self.flow, self.settings = flow, settings
        self.phi_P, self.damping = None, settings.damping

    def state(self):
        phi = {} if self.phi_P is None else {"phi": self.phi_P.double().cpu().numpy()}
        return {"damping": self.damping} | phi

    def load(self, state):
        if "phi" in state:
            self.phi_P = torch.as_tensor(state["phi"])
        if self.settings.search:
            self.damping = float(state["damping"])

    def step(self, theta_P, dt):
        """Collective on the flow's comm. Cost: one factorisation; for each trial of lambda a solve and an energy."""
        search, trials = self.settings.search, {}
        start_P = (
            torch.zeros_like(theta_P)
            if self.phi_P is None
            else self.settings.momentum * self.phi_P.to(theta_P)
        )
        system = self.flow.linearise(theta_P, start_P)

        def energy(k):
            if k not in trials:
                trials[k] = self._trial(system, start_P, dt, self.damping * FACTOR**k)
            return trials[k][0]

        best = min((-1, 0, 1) if search else (0,), key=energy)
        # Go on while the least energy lies at the edge of what was tried.
        while best != 0 and abs(best) < MAX_TRIALS and energy(best + np.sign(best)) < energy(best):
            best += np.sign(best)
        E, theta, phi_P, E_K, info = trials[best]
        if search and not E < system.energy:
            # What other samples left in phi leads uphill on this one.
            self.phi_P, self.damping = None, self.damping * FACTOR**3
            return (
                theta_P,
                dt,
                StepInfo(
                    0.0, system.E_K, info.effective_rank, info.projection_error, note=info.note
                ),
            )
        self.phi_P, self.damping = phi_P, max(MIN_DAMPING, self.damping * FACTOR**best)
        return (
            theta,
            dt,
            StepInfo(dt, E_K, info.effective_rank, info.projection_error, note=info.note),
        )

    def _trial(self, system, start_P, dt, damping):
        """(energy, theta, phi, energy by term, solver info) of a step with this damping."""
        delta, _, info = self.flow.descent(system, damping)
        phi_P = start_P + delta
        norm = self.flow.norm(system, phi_P)
        theta = (
            system.theta_P
            + dt * min(1.0, self.settings.max_norm / norm if norm > 0 else 1.0) * phi_P
        )
        E_K = self.flow.energies(theta)
        E = float(E_K.sum())
        return (E if np.isfinite(E) else np.inf), theta, phi_P, E_K, info
