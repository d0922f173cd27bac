"""A flow under PETSc's TS, which makes the steps of a run.

Explicit types step theta_dot = v(theta, t), implicit types F = M theta_dot + g = 0. A step rule of
nedhpc is a TS of type python.

One ts.solve() does the whole run. PETSc calls PreStep before each step, where the sample is drawn,
and PostStep after it, where the run records the state and may stop. The TS vector has all P entries
on rank 0: norms are then computed in the same order for any number of ranks, and all ranks accept
or reject the same steps.

A resumed run gives the same bits as an uninterrupted one:

- If a type carries a stage or a slope from step to step (rk, arkimex), every step restarts it, also
  in the uninterrupted run.
- If a type depends on past steps (its trait `memory`), `state` saves the states in which these
  steps began. A resumed run repeats the steps, which fills PETSc's memory, and overwrites each
  result with the saved state.

Three things are not restored: a first guess extrapolated by -ts_theta_initial_guess_extrapolate,
the counter of an adaptor's -ts_adapt_time_step_increase_delay, and the first |F|, to which
-ts_pseudo_frtol and -ts_pseudo_increment_dt_from_initial_dt refer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from nedhpc import steppers
from nedhpc.config import Stepper
from nedhpc.errors import FailedStepError, NedError, NotAStateError, UsageError
from nedhpc.parallel.parameters import Parameters
from nedhpc.parallel.petsc import PETSc
from nedhpc.steppers.base import StepInfo, StepRule, check_memory
from nedhpc.steppers.options import LATE, last_line, new_prefix, stepper_options
from nedhpc.steppers.petsc_types import PetscType
from nedhpc.steppers.ts.implicit import ImplicitForm

REASON = PETSc.TS.ConvergedReason
STEADY = (REASON.CONVERGED_PSEUDO_FATOL, REASON.CONVERGED_PSEUDO_FRTOL)
ENDS = {
    REASON.CONVERGED_USER: "stopped",
    REASON.CONVERGED_ITS: "max_steps",
    REASON.CONVERGED_TIME: "max_time",
}
NEVER = 1e300
"""End time of a run without one."""
PAST = {"theta": "kP", "time": "k", "dt": "k"}
"""The memory of a type that depends on past steps."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of `TimeStepper.solve` and the last state that it reached, the same on every rank."""

    reason: str
    """One of "stopped" (by after_step), "max_steps", "max_time" and "steady".

    The limits may also be those of -ts_max_steps and -ts_max_time. "steady" means that PETSc found
    a steady state.
    """
    theta_P: torch.Tensor
    step: int
    time: float
    dt: float
    """Time step for the next step."""
    info: StepInfo | None
    """Info of the last step; None if no step was made."""


class TimeStepper:
    """A TS of one flow. Collective on comm.

    It is a context manager, which destroys the PETSc objects at the end.

    Args:
        comm: the flow's communicator.
        flow: the flow.
        config: the section [stepper].
        parameters: moves theta between PETSc's vectors and the tensors of all ranks.
        max_steps: step number at which the run ends.
        max_time: time at which the run ends; None for no limit.

    Raises:
        UsageError: the section or its PETSc options are not valid.
    """

    def __init__(
        self,
        comm,
        flow,
        config: Stepper,
        parameters: Parameters,
        max_steps: int,
        max_time: float | None,
    ):
        self.comm, self.flow, self.config, self.parameters = comm, flow, config, parameters
        self.max_steps, self.max_time = max_steps, max_time
        settings, kind = steppers.settings(config), steppers.find(config.type)
        self.rule: StepRule | None = None
        self.memory = 0
        if isinstance(kind, PetscType):
            self.memory = kind.memory
        else:
            self.rule = kind(flow, settings)
        self.kind = kind
        self.options, self.option_names = stepper_options(config.petsc_options), []
        self.ts = self.vec = self.work = self.implicit = None
        self.error = self.solve_info = None

    def __enter__(self):
        try:
            self._create()
            self._apply_options()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _create(self):
        self.vec = self.parameters.create_vec()
        self.work = self.vec.duplicate()
        self.ts = ts = PETSc.TS().create(comm=self.comm)
        ts.setProblemType(PETSc.TS.ProblemType.NONLINEAR)
        if self.rule is not None:
            ts.setType("python")
            ts.setPythonContext(self)
        else:
            ts.setType(self.kind.name)
            if self.kind.implicit:
                self.implicit = ImplicitForm(self, ts)
            else:
                ts.setRHSFunction(self.guard(self._velocity), self.work)
        ts.setMaxSteps(self.max_steps)
        ts.setMaxTime(NEVER if self.max_time is None else self.max_time)
        # A step rule chooses its own steps, so its last one may pass the end time. A PETSc type
        # shortens its last step.
        match = self.max_time is not None and self.rule is None
        ends = PETSc.TS.ExactFinalTime
        ts.setExactFinalTime(ends.MATCHSTEP if match else ends.STEPOVER)

    def __exit__(self, *exception):
        for name in self.option_names:
            PETSc.Options().delValue(name)
        # Destroying is collective, so do it here, on all ranks at the same point. Python's garbage
        # collector would do it at different times on different ranks.
        for thing in (self.ts, self.vec, self.work, self.implicit and self.implicit.J):
            if thing is not None:
                thing.destroy()

    def _apply_options(self):
        """Give the TS the user's options, under a prefix of its own."""
        prefix, database = new_prefix(), PETSc.Options()
        self.option_names = [prefix + name for name, _ in self.options]
        for name, value in self.options:
            database.setValue(prefix + name, value)
        self.ts.setOptionsPrefix(prefix)
        try:
            self.ts.setFromOptions()
        except PETSc.Error as error:
            raise UsageError(
                f"PETSc refuses the options {self.config.petsc_options!r}: {last_line(error)}"
            ) from None
        # If PETSc did not look up an option, it does not know it, except if it looks it up later.
        unused = [
            name
            for name, _ in self.options
            if not database.used(prefix + name) and not LATE.fullmatch(name)
        ]
        if unused:
            names = " ".join("-" + name for name in unused)
            raise UsageError(
                f"PETSc options that a TS of type {self.config.type} does not know: {names}; "
                "see -help of PETSc's TS, or a typing error"
            )

    def solve(
        self,
        theta_P: torch.Tensor,
        step: int,
        time: float,
        dt: float,
        state: dict,
        before_step: Callable[[int], bool],
        after_step: Callable[..., bool],
    ) -> End:
        """Step from theta until max_steps, max_time, or until after_step says stop.

        Collective on comm.

        Args:
            theta_P: parameters to start from, (P,).
            step: number of steps made so far.
            time: the flow's time.
            dt: time step of the first step.
            state: what `state` returned at that theta; {} for a new run.
            before_step: called with the number of steps made. It draws the sample and returns True
                if this is a new one.
            after_step: called with (theta_P, step, time, dt of the next step, StepInfo). It
                returns True to stop.

        Returns:
            The End.

        Raises:
            NonFiniteError: a step led to no finite energy or velocity.
            FailedStepError: a step's nonlinear solve or its error control failed.
            NedError: another error of PETSc.
        """
        ts, self.before_step, self.after_step = self.ts, before_step, after_step
        self.past, self.info = [], None
        self.replayed = [*self._load(state, step), (theta_P, time, dt)]
        self.first_step = step + 1 - len(self.replayed)
        ts.setStepNumber(self.first_step)
        self._set(*self.replayed[0])
        ts.setPreStep(self.guard(self._pre_step))
        ts.setPostStep(self.guard(self._post_step))
        self.end = (theta_P, step, time, dt, None)
        self._run()
        return End(ENDS.get(ts.getConvergedReason(), "steady"), *self.end)

    def _run(self):
        """ts.solve() with its failures as errors of nedhpc."""
        try:
            self.ts.solve(self.vec)
        except PETSc.Error as error:
            if self.error is not None:
                raise self.error from None
            raise self._failure(last_line(error)) from error
        # -ts_error_if_step_fails 0 makes a failure a reason below zero instead of an error.
        reason = self.ts.getConvergedReason()
        if reason < 0:
            raise self._failure(f"reason {reason}")

    def _failure(self, reason):
        """The error for a step that PETSc could not make.

        It is a FailedStepError, which a shorter dt may avoid, only if TS gave up a step. Any other
        error of PETSc is a NedError.
        """
        error = self.implicit and self.implicit.failure()
        kind = FailedStepError if self.ts.getConvergedReason() < 0 else NedError
        return error or kind(
            f"PETSc TS stopped: {reason}; the likely cause is a time step that its error control "
            "cannot meet; try a smaller stepper.dt, another -ts_adapt_type, or a fixed sample"
        )

    def state(self) -> dict:
        """What a resumed run needs beside theta, time and dt. Local.

        Returns:
            {name: text, number or array}.
        """
        state = {"type": self.config.type}
        if self.rule is not None:
            state |= self.rule.state()
        elif self.past:
            theta, time, dt = zip(*self.past, strict=True)
            state |= {
                "theta": torch.stack(theta).double().cpu().numpy(),
                "time": np.array(time),
                "dt": np.array(dt),
            }
        return state

    def _load(self, state, step):
        """The starts (theta_P, time, dt) of the past steps that a checkpoint's state holds.

        If the stepper is a step rule, the rule loads the state and there are no starts.
        """
        memory = {name: value for name, value in state.items() if name != "type"}
        if state.get("type") != self.config.type or not memory:
            return []
        shapes = PAST if self.rule is None else self.rule.memory_shapes
        check_memory(memory, shapes, self.parameters.num_parameters)
        if self.rule is not None:
            self.rule.load(memory)
            return []
        if len(state["theta"]) > step:
            raise NotAStateError(f"the checkpoint has more than {step} past steps")
        theta = map(self.parameters.tensor, state["theta"])
        return zip(theta, map(float, state["time"]), map(float, state["dt"]), strict=True)

    def guard(self, callback: Callable) -> Callable:
        """Wrap a callback for PETSc so that `error` keeps its exception. Local.

        PETSc would replace the exception by its own.
        """

        def call(*args):
            try:
                return callback(*args)
            except BaseException as error:
                self.error = error
                raise

        return call

    def _set(self, theta_P, time, dt):
        self.theta_P = theta_P
        self.parameters.store(self.vec, theta_P)
        self.ts.setTime(time)
        self.ts.setTimeStep(dt)

    def _pre_step(self, ts):
        redrawn = self.before_step(ts.getStepNumber())
        self.last_time = ts.getTime()
        if self.rule is not None:
            return
        if redrawn or not self.memory:
            # "First same as last" types reuse the last stage of a step as the first stage of the
            # next. Forbid it for two reasons: with a new sample that stage belongs to the old one,
            # and a resumed run would compute it again, equal up to rounding only.
            ts.restartStep()
            self.past = []
            if self.implicit:
                self.implicit.restart()
        if self.memory:
            start = (self.theta_P, self.last_time, ts.getTimeStep())
            self.past = [*self.past, start][-self.memory :]

    def _post_step(self, ts):
        taken = ts.getStepNumber() - self.first_step
        if taken < len(self.replayed):
            # This step was repeated only to fill PETSc's memory. Overwrite its result with the
            # saved state, which an adaptor or a rejected step may have reached differently. If
            # PETSc saw that the vector changed, it would restart the type and forget its past, so
            # reset the vector's state number. Compute the norm, because the vector caches the old
            # one.
            seen = self.vec.stateGet()
            self._set(*self.replayed[taken])
            self.vec.norm()
            self.vec.stateSet(seen)
            return
        self.theta_P, info = self.parameters.load(self.vec), self._step_info(ts)
        self.end = (self.theta_P, ts.getStepNumber(), ts.getTime(), ts.getTimeStep(), info)
        if self.after_step(*self.end):
            ts.setConvergedReason(REASON.CONVERGED_USER)

    def _step_info(self, ts):
        if self.rule is not None:
            return self.info
        if self.implicit:
            self.implicit.check()
        # getTimeStep gives the next dt already, so the difference of the times is the dt of this
        # step.
        dt, solve = ts.getTime() - self.last_time, self.solve_info
        steady = ts.getConvergedReason() in STEADY
        if solve is None:
            return StepInfo(dt, steady=steady)
        return StepInfo(
            dt, None, solve.effective_rank, solve.projection_error, False, steady, solve.note
        )

    def _velocity(self, ts, t, u, f):
        theta_dot_P, self.solve_info = self.flow.velocity(self.parameters.load(u), t)
        self.parameters.store(f, theta_dot_P)

    # PETSc calls the next two on the context of a TS of type python, so their names are PETSc's.

    def solveStep(self, ts, t, u):
        """One step of the rule, from u to u."""
        self.guard(self._rule_step)(ts, u)

    def _rule_step(self, ts, u):
        # The argument t of solveStep is not the time at the start of the step, but getTime is.
        step = self.rule.step(self.parameters.load(u), ts.getTime(), ts.getTimeStep())
        theta_P, self.next_dt, self.info = step
        self.parameters.store(u, theta_P)
        # TS advances its time by the time step, so tell it the one that the rule took.
        ts.setTimeStep(self.info.dt)

    def adaptStep(self, ts, t, u):
        """(dt for the next step, True to accept this step). The rule has decided both already."""
        return self.next_dt, True
