"""Retries with a smaller dt after a step that led to no finite energy."""

import dataclasses
import logging

from nedhpc.errors import NonFiniteError

log = logging.getLogger("nedhpc")

CUT, MAX_CUTS = 0.25, 10
"""Factor of dt after a non-finite step, and most retries in a row; as PETSc rejects steps."""


class Guard:
    """Counts how often a run restarts from the same good state with a shorter step."""

    def __init__(self, config, stepper):
        self.config, self.stepper = config, stepper
        self._cuts, self._step = 0, -1

    def shorter_step(self, good, error: NonFiniteError, rank: int):
        """The good moment with dt / 4, from which the run continues. Local.

        Args:
            good: the Moment of the last good state.
            error: the error of the step after it.
            rank: this rank; rank 0 logs a warning.

        Raises:
            NonFiniteError: `error`, after MAX_CUTS retries in a row, or if the stepper controls
                the length of its steps itself.
        """
        self._cuts = self._cuts + 1 if good.state.step == self._step else 1
        self._step = good.state.step
        if self.stepper.chooses_dt or self._cuts > MAX_CUTS:
            raise error
        state = dataclasses.replace(good.state, dt=CUT * good.state.dt)
        if rank == 0:
            log.warning("%s; again from step %d with dt = %.3g", error, state.step, state.dt)
        return dataclasses.replace(good, state=state)
