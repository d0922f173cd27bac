"""The base class of step rules, and the info that a run gets about each step."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from nedhpc.config import Section


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What a step did. It is the same on every rank."""

    dt: float
    """The time step taken; 0 if theta did not change."""
    E_K: np.ndarray | None = None
    """Energy by term after the step on the step's sample, if the stepper knows it."""
    effective_rank: int = 0
    projection_error: float = float("nan")
    stalled: bool = False
    """True if no trial lowered the energy, several times in a row."""
    steady: bool = False
    """True if PETSc found a steady state by its own tolerance."""
    note: str = ""
    """What the solver did, if it was not what the user asked for."""
    vanished: bool = False
    """True if the step stalled because the gradient vanished to rounding."""
    cause: str = ""
    """The likely cause and the remedy, if the step stalled for another reason."""


class StepRule:
    """A stepper of nedhpc itself, as opposed to PETSc's.

    A new one is a subclass with a `name`, by which a config finds it, `Settings` and `step`.

    Args:
        flow: the flow whose parameters it steps.
        settings: its Settings, the table [stepper.<name>] of the config.
    """

    name: ClassVar[str]
    uses_solver: ClassVar[bool] = True
    """True if it solves least-squares systems, so that a run needs a solver."""
    uses_metric: ClassVar[bool] = True
    """True if its steps depend on the metric of the flow."""
    chooses_dt: ClassVar[bool] = True
    """True if it controls the length of its steps itself: by dt, a damping or a learning rate.

    After a step with a non-finite energy the run does not try again with a smaller dt.
    """

    lowers_energy: ClassVar[bool] = False
    """True if every step lowers the energy on its sample, so that a slow fall means something."""

    class Settings(Section):
        """The rule has no settings."""

    def __init__(self, flow, settings: Section):
        self.flow, self.settings = flow, settings

    def step(self, theta_P: torch.Tensor, t: float, dt: float):
        """One step of the flow from theta at time t. Collective on the flow's comm.

        Args:
            theta_P: parameters, (P,), the same on every rank; it must not be changed.
            t: the flow's time.
            dt: time step that the last step returned for this one; stepper.dt in the first step.

        Returns:
            (theta_P, dt for the next step, StepInfo).
        """
        raise NotImplementedError

    def state(self) -> dict:
        """What a resumed run needs beside theta, t and dt: {name: number or array}. Local."""
        return {}

    def load(self, state: dict) -> None:
        """Continue from what `state` returned. Local."""
