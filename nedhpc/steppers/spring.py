"""SPRING: natural-gradient steps with momentum for mini-batches, N < P.

The direction phi = argmin |A phi + r|^2 + lambda |phi - mu phi_prev|_M^2 lowers the residual of
this sample and otherwise stays near mu times the last direction:

    phi = mu phi_prev + A^T (A A^T + lambda I)^-1 (-r - mu A phi_prev)      in the metric euclidean.

The step is theta + dt clip(phi), with |clip(phi)|_M <= max_norm; phi_prev is the direction before
clipping. (Goldshlager, Abrahamsen and Lin, arXiv:2401.10190, for wave functions; arXiv:2505.12149
for PDEs.) These papers keep lambda fixed; here it can be searched for the least energy on the
step's sample.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from nedhpc.config import Positive, Section
from nedhpc.steppers.base import StepInfo, StepRule
from nedhpc.steppers.ptc import Trials

FACTOR, MAX_TRIALS = 4.0, 6
"""Ratio of neighbouring trials of lambda. In one step, lambda changes by at most FACTOR^6."""
MIN_DAMPING = 1e-24


@dataclass(slots=True)
class Trial:
    """A step with one lambda."""

    theta_P: torch.Tensor
    phi_P: torch.Tensor
    E_K: np.ndarray
    info: object

    @property
    def energy(self) -> float:
        """The energy after the step; infinity if it is not finite."""
        E = float(self.E_K.sum())
        return E if np.isfinite(E) else np.inf

    def report(self, dt: float, E_K: np.ndarray) -> StepInfo:
        """The StepInfo of a step of size dt that ended with the energies E_K."""
        info = self.info
        return StepInfo(dt, E_K, info.effective_rank, info.projection_error, note=info.note)


class Spring(StepRule):
    """SPRING. Its memory is the last direction phi and lambda."""

    name = "spring"
    memory_shapes = {"damping": "", "phi": "?P"}

    class Settings(Section):
        """[stepper.spring]."""

        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
        """The factor mu; a direction starts from mu times the last one."""
        damping: Positive = 1.0
        """Tikhonov parameter lambda. If `search` is on, this is the first one tried."""
        search: bool = True
        """Search lambda for the least energy on the step's sample; if off, lambda is fixed."""
        max_norm: Positive = 100.0
        """Longest direction, in the metric. A longer one is shortened to it before dt applies."""

    def __init__(self, flow, settings):
        super().__init__(flow, settings)
        self.phi_P, self.damping = None, settings.damping

    def state(self):
        phi = {} if self.phi_P is None else {"phi": self.phi_P.double().cpu().numpy()}
        return {"damping": self.damping} | phi

    def load(self, state):
        if "phi" in state:
            self.phi_P = torch.as_tensor(state["phi"])
        if self.settings.search:
            self.damping = float(state["damping"])

    def step(self, theta_P, t, dt):
        """One step. Collective on the flow's comm.

        Cost: one factorisation, and for each trial of lambda a solve and an energy.
        """
        if self.phi_P is None:
            start_P = torch.zeros_like(theta_P)
        else:
            start_P = self.settings.momentum * self.phi_P.to(theta_P)
        system = self.flow.linearise(theta_P, t, start_P)
        trials = Trials(lambda k: self._trial(system, start_P, dt, self.damping * FACTOR**k))
        k = self._choose(trials)
        trial = trials[k]
        if self.settings.search and not trial.energy < system.energy:
            # The momentum comes from other samples and leads uphill on this one. Forget it, and
            # damp more.
            self.phi_P, self.damping = None, self.damping * FACTOR**3
            return theta_P, dt, trial.report(0.0, system.E_K)
        self.phi_P, self.damping = trial.phi_P, max(MIN_DAMPING, self.damping * FACTOR**k)
        return trial.theta_P, dt, trial.report(dt, trial.E_K)

    def _choose(self, trials):
        """Power k of FACTOR of the lambda with the least energy."""
        if not self.settings.search:
            return 0
        k = min((-1, 0, 1), key=lambda k: trials[k].energy)
        # If the least energy lies at the edge of the trials, continue in that direction.
        while k != 0 and abs(k) < MAX_TRIALS:
            beyond = k + (1 if k > 0 else -1)
            if not trials[beyond].energy < trials[k].energy:
                break
            k = beyond
        return k

    def _trial(self, system, start_P, dt, damping):
        delta, _, info = system.descent(damping)
        phi_P = start_P + delta
        norm = system.norm(phi_P)
        clip = min(1.0, self.settings.max_norm / norm if norm > 0 else 1.0)
        theta_P = system.theta_P + dt * clip * phi_P
        return Trial(theta_P, phi_P, self.flow.energies(theta_P, system.t), info)
