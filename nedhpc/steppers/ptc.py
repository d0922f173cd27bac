"""Pseudo-transient continuation (ptc): implicit Euler steps that turn into Gauss-Newton steps.

A step of size dt solves the linear system (A^T A + M / dt) delta = -g at theta. The step size grows
as the energy falls. For small dt the steps follow the flow, for large dt they are Gauss-Newton
steps (Kelley and Keyes, SIAM J. Numer. Anal. 35, 1998).

On the tangent space at theta the residual after the step would be r + A delta, the predicted
residual. The network is not linear in theta, so its residual at theta + delta differs from that.
Simplified Newton steps, which use the same factorisation, remove most of the difference:

    theta_0 = theta + delta,
    theta_k+1 = theta_k - (A^T A + M / dt)^-1 A^T (r(theta_k) - r - A delta).

A density has no residual by rows; g(theta_k) - g - A^T A delta then replaces A^T (...). The first
correction is the geodesic acceleration of Transtrum and Sethna (arXiv:1201.5885) with a finite
difference over the full step. Each further correction raises the order of the step for the cost of
one residual.
"""

from dataclasses import dataclass
from math import floor, log
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from nedhpc.config import Count, Positive, Section
from nedhpc.flows.causes import Ending, ending
from nedhpc.steppers.base import StepInfo, StepRule

MAX_STALLS = 4
"""The run has stalled if the energy did not fall in so many steps in a row.

The energy is then at the level of rounding error, or no step along the flow can lower it;
flows/causes.py tells which.
"""


@dataclass(slots=True)
class Trial:
    """The best point that was found with one dt."""

    theta_P: torch.Tensor
    E_K: np.ndarray
    info: object
    """The solver's SolveInfo."""
    diverged: bool = False
    """True if the corrections diverged, because the step is too long for the linear model."""

    @property
    def energy(self) -> float:
        """The energy at that point; infinity if it is not finite."""
        E = float(self.E_K.sum())
        return E if np.isfinite(E) else np.inf


class Trials(dict):
    """{k: trial number k}. A trial is computed when it is first used."""

    def __init__(self, compute):
        super().__init__()
        self.compute = compute

    def __missing__(self, k):
        self[k] = self.compute(k)
        return self[k]


class Ptc(StepRule):
    """Pseudo-transient continuation. Its memory is the number of stalled steps."""

    name = "ptc"
    lowers_energy = True
    memory_shapes = {"stalls": ""}

    class Settings(Section):
        """[stepper.ptc]."""

        factor: Annotated[float, Field(gt=1)] = 4.0
        """Ratio of neighbouring trial time steps."""
        max_trials: Count = 6
        """In one step, dt changes by at most factor^max_trials."""
        corrections: Annotated[int, Field(ge=0)] = 6
        """Largest number of simplified Newton corrections of a trial. Each costs one residual."""
        max_dt: Positive = 1e24
        """Longest time step; 1 / max_dt is the least damping.

        When resampling every step with fewer points than parameters, limit it (about 1e7) so that
        the damping stays above rounding error.
        """
        slack: Annotated[float, Field(ge=1)] = 2.0
        """The longest dt is taken whose energy is at most `slack` times the least of the trials."""

    def __init__(self, flow, settings):
        super().__init__(flow, settings)
        self.stalls = 0

    def state(self):
        return {"stalls": self.stalls}

    def load(self, state):
        self.stalls = int(state["stalls"])

    def step(self, theta_P, t, dt):
        """One step. Collective on the flow's comm.

        Cost: one factorisation, and for each trial up to 1 + `corrections` residuals and solves of
        O(P^2).
        """
        system = self.flow.linearise(theta_P, t)
        dt, factor = min(dt, self.settings.max_dt), self.settings.factor
        trials = Trials(lambda k: self._trial(system, dt * factor**k))
        k = self._choose(trials, system.energy, dt)
        trial = trials[k]
        if trial.energy < system.energy:
            self.stalls = 0
            theta_P, E_K = trial.theta_P, trial.E_K
            taken = following = dt * factor**k
        else:
            # No dt lowered the energy. Keep theta, and try much shorter dt in the next step.
            self.stalls += 1
            E_K, taken, following = system.E_K, 0.0, dt / factor**3
        rank = trial.info.effective_rank
        stall = Ending(False, "")
        if self.stalls >= MAX_STALLS:
            flow = self.flow
            stall = ending(flow.comm, flow.energy, theta_P, flow.sample, rank)
        info = StepInfo(
            taken,
            E_K,
            rank,
            trial.info.projection_error,
            stalled=self.stalls >= MAX_STALLS,
            note=trial.info.note,
            vanished=stall.vanished,
            cause=stall.cause,
        )
        return theta_P, following, info

    def _choose(self, trials, E_start, dt):
        """The power k of the time step dt factor^k to take. Trials start from k = 0."""
        most, max_dt = self.settings.max_trials, self.settings.max_dt
        highest = min(most, floor(log(max_dt / dt, self.settings.factor)))
        # A ratio of energies has a meaning only if they are positive. Those of densities need not
        # be.
        slack = self.settings.slack if self.flow.energy.has_row_residual else 1.0
        k = 0
        if trials[0].energy < E_start:
            # If steps are nearly equally good, take the longest, because it lowers the energy more
            # in later steps.
            while (
                k < highest
                and trials[k + 1].energy < E_start
                and trials[k + 1].energy <= slack * min(trial.energy for trial in trials.values())
            ):
                k += 1
        else:
            while trials[k].energy >= E_start and k > -most:
                k -= 1
        # The first dt that lowers the energy may still be far too long. Shorten it as long as that
        # lowers the energy by more than the factor slack.
        if k < 0 or k == 0 and trials[0].diverged:
            while k > -most and slack * trials[k - 1].energy < trials[k].energy:
                k -= 1
        return k

    def _trial(self, system, dt):
        flow, t = self.flow, system.t
        delta, norm, info = system.descent(1 / dt)
        theta, predicted = system.theta_P + delta, system.predicted_residual(delta)
        E_K, r_N = flow.evaluate(theta, t, system.theta_P)
        best = Trial(theta, E_K, info)
        for _ in range(self.settings.corrections):
            c, c_norm = system.correction(theta, r_N, predicted, 1 / dt)
            # If a correction is not shorter than the one before, the iteration diverges: the
            # tangent space at theta does not describe the network at this distance. Written so that
            # NaN counts as divergence.
            if not c_norm < norm:
                best.diverged = True
                break
            theta, norm = theta + c, c_norm
            E_K, r_N = flow.evaluate(theta, t, system.theta_P)
            trial = Trial(theta, E_K, info)
            if trial.energy < best.energy:
                best = trial
        return best
