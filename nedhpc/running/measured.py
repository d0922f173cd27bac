"""A state of the run together with what was measured of it, so that the two are never mixed up."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nedhpc.files.checkpoint import State
from nedhpc.steppers.base import StepInfo


@dataclass(frozen=True, slots=True)
class Measured:
    """Energy and errors of one state, the same on every rank."""

    step: int
    energy: float
    energy_terms: dict[str, float]
    """Energy by term."""
    relative_l2: float | None
    """None without a reference."""
    metrics: dict[str, float]
    """Means of the problem's own metrics."""


@dataclass(slots=True)
class Moment:
    """The state after a step, the step's info, and its measurement, which is made when it is asked
    for.

    `measure` is collective, and so is the first call of `measured()`: every rank asks at the same
    moments, because cadences and decisions are the same on all of them.
    """

    state: State
    info: StepInfo
    measure: Callable[[State, StepInfo], Measured]
    _measured: Measured | None = field(default=None)

    def measured(self) -> Measured:
        """Energy and errors of this state. Collective at the first call.

        Raises:
            NonFiniteError: the state has no finite energy.
        """
        if self._measured is None:
            self._measured = self.measure(self.state, self.info)
        return self._measured

    @property
    def known(self) -> Measured | None:
        """The measurement, if there was one. Local."""
        return self._measured

    @property
    def is_finite(self) -> bool:
        """The energy is known to be finite: measured, or found by the step itself. Local."""
        E_K = self.info.E_K
        return self._measured is not None or (E_K is not None and bool(np.isfinite(E_K).all()))
