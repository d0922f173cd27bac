"""What to do after a step that led to no finite energy."""

import dataclasses
import logging

from nedhpc.errors import NonFiniteError

log = logging.getLogger("nedhpc")

CUT, MAX_CUTS = 0.25, 10
"""Factor of dt after a step that is not finite, and how often in a row:

PETSc's numbers for rejections.
"""


class Guard:
    """Counts how often the same good state was taken up again with a shorter step."""

    def __init__(self, config, stepper):
        self.config, self.stepper = config, stepper
        self._cuts, self._step = 0, -1

    def shorter_step(self, good, error: NonFiniteError, rank: int):
        """The good moment with dt / 4, to go on from.

        Raises: NonFiniteError: the same error, if a shorter step does not help: after MAX_CUTS in a
            row, or
                if the stepper chooses its own dt or has a learning rate instead.
        """
        self._cuts = self._cuts + 1 if good.state.step == self._step else 1
        self._step = good.state.step
        if self.stepper.chooses_dt or self._cuts > MAX_CUTS:
            raise error
        state = dataclasses.replace(good.state, dt=CUT * good.state.dt)
        if rank == 0:
            log.warning("%s; again from step %d with dt = %.3g", error, state.step, state.dt)
        return dataclasses.replace(good, state=state)
