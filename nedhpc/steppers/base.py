"""The base class of step rules, and the info that a run gets about each step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from nedhpc.config import Section
from nedhpc.errors import NotAStateError


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


def check_memory(memory: Mapping, shapes: Mapping[str, str], num_parameters: int) -> None:
    """Check that a stepper can continue from a memory, which comes from a file. Local.

    Args:
        memory: {name: number or array}.
        shapes: {name: shape}. "" is a number, "P" parameters, "k" one number and "kP" parameters
            for each of some past steps. A "?" before it says that the name may be missing.
        num_parameters: P.

    Raises:
        NotAStateError: a name is missing, or an entry has another shape or no real numbers.
    """
    wrong = [f"{name!r:.40} is unknown" for name in memory.keys() - shapes.keys() if shapes]
    num_past = set()
    for name, shape in shapes.items():
        if name not in memory:
            wrong += [] if shape.startswith("?") else [f"{name} is missing"]
            continue
        entry, axes = np.asarray(memory[name]), shape.strip("?")
        num_past |= {len(entry)} if axes.startswith("k") and entry.ndim else set()
        is_vector = axes.endswith("P")
        fits = entry.ndim == len(axes) and (not is_vector or entry.shape[-1] == num_parameters)
        fits = fits or axes == "kP" and entry.shape == (0,)
        if not fits or entry.dtype.kind not in "biuf":
            wrong.append(f"{name} has shape {entry.shape} and type {entry.dtype}")
    if wrong or len(num_past) > 1:
        raise NotAStateError(
            f"the checkpoint's memory of the stepper does not fit to {num_parameters} parameters: "
            f"{'; '.join(wrong) or 'its past steps differ in number'}"
        )


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

    memory_shapes: ClassVar[Mapping[str, str]] = {}
    """Shape of each entry of `state` after a step, as for `check_memory`; {}: not checked."""
    marches: ClassVar[bool] = False
    """True if it steps an evolution equation u_t = N(u); else it steps the descent of an energy."""

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
