"""Retries with a smaller dt after a step that failed, and the messages of failures."""

import dataclasses
import logging

from nedhpc.errors import FailedStepError, NedError, NonFiniteError
from nedhpc.flows.diagnosis import explain, non_finite
from nedhpc.running.case import Case
from nedhpc.running.measured import Moment

log = logging.getLogger("nedhpc")

CUT, MAX_CUTS = 0.25, 10
"""Factor of dt after a failed step, and most retries in a row; as PETSc rejects steps."""
Failure = NonFiniteError | FailedStepError


class Guard:
    """Counts how often a run restarts from the same good state with a shorter step."""

    def __init__(self, case: Case):
        self.case = case
        self._cuts, self._step = 0, -1

    def shorter_step(self, good: Moment, last: Moment, error: Failure) -> Moment:
        """The good moment with dt / 4, from which the run continues. Collective on the case's comm.

        Args:
            good: the last state whose energy is known to be finite.
            last: the state before the step that failed, or the one that is not finite.
            error: the error of the step.

        Raises:
            NonFiniteError: `error`, if no dt can help: the stepper controls the length of its steps
                itself, the energy or a derivative is not finite at the good state, or MAX_CUTS
                retries in a row did not help.
            FailedStepError: `error`, in the last case.
        """
        if self.case.plan.stepper.chooses_dt:
            raise error
        if isinstance(error, FailedStepError) and last.state.step > good.state.step:
            # The solve for the next step failed. Its start is a good state if its energy is finite.
            last.measured()
            good = last
        state = good.state
        self._cuts = self._cuts + 1 if state.step == self._step else 1
        self._step = state.step
        if self._cuts > MAX_CUTS:
            raise type(error)(f"{error}; {MAX_CUTS} retries, down to dt = {state.dt:.3g}, failed")
        if isinstance(error, NonFiniteError):
            self._require_finite(good)
        state = dataclasses.replace(state, dt=CUT * state.dt)
        if self.case.comm.rank == 0:
            log.warning("%s; again from step %d with dt = %.3g", error, state.step, state.dt)
        return dataclasses.replace(good, state=state)

    def _require_finite(self, good):
        """Raise NonFiniteError if the good state has a term without a finite derivative."""
        case = self.case
        arguments = (case.comm, case.flow.energy, case.take_up(good.state), case.flow.sample)
        if explain(*arguments)[0]:
            raise non_finite(*arguments, "the energy or the derivative of a term", "")


def located(case: Case, good: Moment, error: NedError) -> str:
    """The message of an error that ends a run, with the step. Collective on the case's comm.

    If no step was made because the state of the start is not finite, it says so.

    Args:
        case: the case of the run.
        good: the last good moment.
        error: the error, raised on every rank.
    """
    if good.state.step == 0 and isinstance(error, NonFiniteError):
        theta_P = case.parameters.join(good.state.theta_P, good.state.coefficients)
        arguments = (case.comm, case.flow.energy, theta_P, case.flow.sample)
        if explain(*arguments)[0]:
            what = "the energy or the derivative of a term"
            return f"before the first step: {non_finite(*arguments, what, '')}"
    return f"after step {good.state.step}: {error}"
