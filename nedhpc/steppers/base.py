"""What the run sees of a step."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What a step did, the same on every rank."""

    dt: float
    """The time step taken; 0 for a step that stayed where it was."""
    E_K: np.ndarray | None = None
    """Energy by term at the step's end on the step's sample, where the step rule knows it."""
    effective_rank: int = 0
    projection_error: float = float("nan")
    stalled: bool = False
    """No trial lowered the energy, several steps in a row: it is at the level of rounding."""
    note: str = ""
