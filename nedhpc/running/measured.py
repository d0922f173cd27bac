"""A state of the run together with its measurement, so that the two always belong together."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nedhpc.files.checkpoint import State
from nedhpc.steppers.base import StepInfo

OTHER_ENERGIES = ("held_out_energy", "balanced_energy", "balanced_held_out_energy")
"""Energies of a Measured beside `energy`."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Energy and errors of one state, the same on every rank."""

    step: int
    energy: float
    """Energy on the sample, as the user wrote it."""
    energy_terms: dict[str, float]
    """Energy by term."""
    held_out_energy: float
    """The same energy on points that are not trained on."""
    balanced_energy: float
    """Energy on the sample with balanced rows, which the flow descends."""
    balanced_held_out_energy: float
    relative_l2: float | None
    """None without a reference."""
    metrics: dict[str, float]
    """Means of the problem's own metrics."""
    singular: dict[str, float] = field(default_factory=dict)
    """Coefficients of the problem's singular functions."""


@dataclass(slots=True)
class Moment:
    """The state after a step, the step's info, and a measurement that is made on demand.

    `measure` is collective, and so is the first call of `measured()`. Every rank calls it at the
    same moments, because output intervals and decisions are the same on all ranks.
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
        """The measurement, or None if none was made. Local."""
        return self._measured

    @property
    def is_finite(self) -> bool:
        """True if the energy is known, by the measurement or the step, and finite. Local."""
        E_K = self.info.E_K
        return self._measured is not None or (E_K is not None and bool(np.isfinite(E_K).all()))


def entry(moment: Moment) -> dict[str, float]:
    """The numbers of a moment by their names in series.h5. Collective at the first call.

    What is not known is NaN.
    """
    measured, state, info = moment.measured(), moment.state, moment.info
    error = measured.relative_l2
    found = {
        "step": state.step,
        "time": state.time,
        "dt": info.dt,
        "energy": measured.energy,
        **{name: getattr(measured, name) for name in OTHER_ENERGIES},
        "relative_l2": np.nan if error is None else error,
        "wall_time": state.wall_time,
        "solver/effective_rank": info.effective_rank,
        "solver/projection_error": info.projection_error,
    }
    found |= {f"energy_terms/{name}": E for name, E in measured.energy_terms.items()}
    found |= {f"metrics/{name}": value for name, value in measured.metrics.items()}
    coefficients = measured.singular | state.coefficients
    return found | {f"coefficients/{name}": value for name, value in coefficients.items()}
