"""What all steps of a march in time share: error control, its limits, and conserved quantities.

The error of a step is estimated by an embedded formula, or by steps of half the size. Its norm is
that of L2 on the sample, i.e. the Gram norm of theta. A step is accepted if the error is at most
tolerance |u| dt / T, so that the errors of a march of length T add up to the tolerance; else it is
tried again with a smaller dt from the same state, on the same sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from nedhpc.config import Positive, Section
from nedhpc.errors import FailedStepError, NonFiniteError
from nedhpc.flows.conservation import restored
from nedhpc.flows.evolution import Evolution
from nedhpc.steppers.base import StepInfo, StepRule

SAFETY, SHRINK, GROW = 0.8, 0.2, 3.0
"""Factor of the best dt, and the least and the largest ratio of a dt to the one before."""
MAX_REJECTIONS = 12
"""A march ends if so many trials of a step in a row were rejected."""
CAP, HALF = 0.1, 0.5
"""A step is made shorter by the factor HALF, as long as that helps, if a projection's residual is
above the share CAP of the tolerance."""
TINY = 1e-300
NUMBERS = ("spent", "projected", "refits")
"""Numbers that a march keeps from step to step.

They are the sums of its errors and of those of its projections, and how often it was fitted again.
"""


class MarchSettings(Section):
    """Keys that the tables of all steppers of a march have."""

    adapt: Literal["auto", "none"] = "auto"
    """auto: dt follows from `tolerance`. none: dt is stepper.dt, or less to meet output.times."""
    tolerance: Positive = 1e-6
    """Aim for the relative L2 error at the end of the march, without the growth of errors."""
    max_projection_error: Positive = 1e-3
    """The march ends if the residual of a projection in a step, relative to u, is larger.

    With adapt = "auto" it also ends if the largest ones of all steps add up to more.
    """
    refits: Annotated[int, Field(ge=0)] = 0
    """How often a network that cannot follow any more is fitted again, with other features."""
    conserve: list[str] = []
    """Conserved quantities of the problem that each step keeps to rounding error."""


@dataclass(frozen=True, slots=True)
class Step:
    """A trial of a step."""

    theta_P: torch.Tensor
    E_K: np.ndarray
    error: float
    """Estimated error, relative to u."""
    projection: float
    """Largest residual of a stage, relative to u."""


class Marching(StepRule):
    """A step of a march; its memory is the part of the tolerance that is spent."""

    marches = True
    uses_metric = False
    numbers: ClassVar[Sequence[str]] = NUMBERS
    memory_shapes = dict.fromkeys(NUMBERS, "") | {"conserved": "?k"}
    noise: ClassVar[float] = 0.0
    """An estimate below this many times the largest residual of a projection is noise."""
    is_shortened: ClassVar[bool] = False
    """True if shorter steps make the residuals of projections smaller."""
    remedy: ClassVar[str] = "a time step that is too long (stepper.dt with adapt = 'none')"
    order: int
    """Order of the error that the estimate measures, as a power of dt for one step."""
    Settings = MarchSettings
    flow: Evolution
    settings: MarchSettings

    def __init__(self, flow, settings):
        super().__init__(flow, settings)
        self.spent = self.projected = self.refits = 0.0
        self.allowed = np.inf
        """Largest relative error of the present trial."""
        self.conserved: np.ndarray | None = None
        """Values that the conserved quantities keep."""

    def state(self):
        found = {name: getattr(self, name) for name in self.numbers}
        return found if self.conserved is None else found | {"conserved": self.conserved}

    def load(self, state):
        for name in self.numbers:
            setattr(self, name, float(state[name]))
        if "conserved" in state:
            self.conserved = np.asarray(state["conserved"])

    def attempt(self, theta_P: torch.Tensor, t: float, dt: float) -> Step:
        """A step of size dt with its error estimate. Collective."""
        raise NotImplementedError

    def step(self, theta_P, t, dt):
        """One step of at most dt. Collective. Cost: some linearisations for each stage.

        Raises:
            FailedStepError: the network cannot follow the solution, or the estimated error stays
                too large for any dt.
        """
        settings, least = self.settings, np.inf
        taken, reason = dt, self._why_lost()
        if settings.conserve and self.conserved is None:
            self.conserved = self.flow.quantities(theta_P)
        for _ in range(0 if reason else MAX_REJECTIONS):
            taken = self._to_next_stop(t, dt)
            allowed = settings.tolerance * taken / self.flow.stops[-1]
            self.allowed = allowed
            trial, reason = self._tried(theta_P, t, taken)
            if settings.adapt == "none" and trial is None:
                break
            if trial is None:
                dt = SHRINK * taken
                continue
            ratio = trial.error / max(allowed, self.noise * trial.projection)
            # A shorter step changes u less, so that the network can follow it better.
            is_poor = CAP * settings.tolerance < trial.projection < least / 2 and self.is_shortened
            if settings.adapt == "none" or ratio <= 1 and not is_poor:
                return self._accepted(trial, t, dt, taken, ratio)
            least, best = trial.projection, SAFETY * max(ratio, TINY) ** (-1 / (self.order - 1))
            dt = taken * max(SHRINK, min(HALF if is_poor else 1.0, best))
            reason = (
                f"its estimated error is {trial.error:.1e} of u (allowed: {allowed:.1e}), and the "
                f"residual of its projection {trial.projection:.1e}"
            )
        raise FailedStepError(
            f"the step from t = {t:.6g} with dt = {taken:.3g} failed: {reason}; likely causes are "
            "a network that is too small (network.hidden, network.periodic.harmonics), too few "
            f"points (sampling.interior), {self.remedy}, or a tolerance below what the network "
            f"reaches (stepper.{self.name}.tolerance)"
        )

    def _why_lost(self) -> str:
        """The reason why the march cannot go on, as far as it is known before a step; "" if it can.

        With a given dt, only the stages themselves are judged.
        """
        settings = self.settings
        if settings.adapt == "none" or self.projected <= settings.max_projection_error:
            return ""
        return (
            f"the residuals of the projections so far add up to {self.projected:.1e} of u, which "
            f"is above stepper.{self.name}.max_projection_error"
        )

    def _to_next_stop(self, t: float, dt: float) -> float:
        """The largest dt with which equal steps of at most dt end at the next stop."""
        left = next((stop - t for stop in self.flow.stops if stop > t * (1 + 1e-13)), dt)
        return left / max(1, ceil(left / dt * (1 - 1e-9)))

    def _tried(self, theta_P, t, dt) -> tuple[Step | None, str]:
        """(the trial, ""), or (None, the reason why there is none)."""
        try:
            trial = self.attempt(theta_P, t, dt)
        except NonFiniteError as error:
            return None, str(error)
        if not np.isfinite(trial.error):
            return None, "its result is not finite"
        if trial.projection > self.settings.max_projection_error:
            return None, (
                f"the residual of its projection to the network is {trial.projection:.1e} of u, "
                f"above stepper.{self.name}.max_projection_error"
            )
        return trial, ""

    def _accepted(self, trial: Step, t, dt, taken, ratio):
        settings, following = self.settings, dt
        self.spent += trial.error
        self.projected += trial.projection
        if settings.adapt == "auto":
            growth = SAFETY * max(ratio, TINY) ** (-1 / (self.order - 1))
            most = 1.0 if trial.projection > CAP / 2 * settings.tolerance else GROW
            following = taken * min(most, max(SHRINK, growth))
            # A step that was shortened to meet a stop tells nothing against the dt before it.
            following = max(following, dt) if taken < dt and ratio <= SAFETY else following
        info = StepInfo(taken, trial.E_K, projection_error=trial.projection, note=self._note(t))
        theta_P = trial.theta_P
        if settings.conserve:
            theta_P = restored(self.flow, theta_P, t + taken, self.conserved, settings.conserve)
        return theta_P, following, info

    def _note(self, t: float) -> str:
        """A warning if the projections, not the time steps, limit the accuracy."""
        settings = self.settings
        if settings.adapt == "none" or self.projected <= max(settings.tolerance, self.spent):
            return ""
        return (
            f"at t = {t:.4g} the residuals of the projections add up to {self.projected:.1e} of u, "
            "more than the tolerance: the network limits the accuracy, not dt; use a larger "
            "network or more points"
        )
