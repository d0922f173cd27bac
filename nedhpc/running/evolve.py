"""The whole run: build, start, step, observe, stop."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nedhpc.errors import FailedStepError, NedError, NonFiniteError, StorageError
from nedhpc.files import checkpoint, uncertainty
from nedhpc.files.checkpoint import State
from nedhpc.files.lock import Lock
from nedhpc.files.record import RunRecord
from nedhpc.files.resume import write_config
from nedhpc.files.series import Series
from nedhpc.files.writer import Writer
from nedhpc.flows.uncertainty import covariance_factor
from nedhpc.flows.worst import worst
from nedhpc.network import singular_coefficients
from nedhpc.parallel.comm import all_come, on_rank_0
from nedhpc.parallel.failure import AloneError
from nedhpc.plan import Plan
from nedhpc.running.adaptation import Adaptation
from nedhpc.running.best import better
from nedhpc.running.case import Case
from nedhpc.running.eigen import doubts
from nedhpc.running.first_fit import START_ERROR, refitted
from nedhpc.running.folder import open_folder
from nedhpc.running.guard import Guard, located
from nedhpc.running.limits import Clock, Limits, time_limit
from nedhpc.running.measured import OTHER_ENERGIES, Measured, Moment
from nedhpc.running.observers import Observer, Stop, made
from nedhpc.running.own import Own
from nedhpc.running.recorder import Checkpoints, Progress, Recorder
from nedhpc.running.rescue import Rescue
from nedhpc.running.signals import StopSignals
from nedhpc.running.states import States
from nedhpc.running.triggers import Triggers
from nedhpc.running.trust import Known, warnings
from nedhpc.steppers.base import StepInfo

log = logging.getLogger("nedhpc")


class Run:
    """One run. Observers see its config, case, run folder and last moment. Collective on comm.

    Args:
        comm: all ranks of the run.
        plan: the same on every rank.
        run_dir: this run's folder, locked by the caller.
        resumed: (State, RunRecord) of the checkpoint to continue from, as files.resume loads them;
            None for a new run.
        signals: signals that may stop the run; default: none.
        observers: the user's own, beside those that the config names.
        lock: the lock of run_dir, which is checked before each write; None if there is none.
    """

    def __init__(
        self,
        comm,
        plan: Plan,
        run_dir: Path,
        resumed: tuple[State, RunRecord] | None = None,
        signals: StopSignals | None = None,
        observers: Sequence[Observer] = (),
        lock: Lock | None = None,
    ):
        started = time.monotonic()
        self.comm, self.run_dir = comm, run_dir
        self.own = Own([*made(plan.config.output.observers), *observers])
        self.writer = Writer(comm, run_dir, lock)
        self.is_resumed, self.status, self.note = resumed is not None, "running", ""
        self.known: Known | None = None
        self.contradictions = on_rank_0(comm, plan.contradictions)
        self.warnings: list[str] = []
        self.coefficient_errors: dict[str, float] = {}
        """Standard errors of the coefficients at the end, by name, if data show their noise."""
        self.doubts: list[str] = []
        """What speaks against the eigenvalues being the wanted ones, a sentence each."""
        self.worst = ""
        """The place of the largest residual at the end, in words."""
        self.case, state, self.record, series = open_folder(comm, plan, run_dir, resumed)
        self.plan, self.config = self.case.plan, self.case.config
        if not self.is_resumed:  # it was written before the start chose the network
            self._write_config()
        self._say_what_is_known()
        self.first_step, self.first_wall_time = state.step, state.wall_time
        self.is_compared = plan.config.run.estimate_error and not self.case.evaluation.has_reference
        """True if a second solution follows, as running.second makes it."""
        limit = time_limit(plan.config, self.is_compared)
        self.clock = Clock(comm, state.wall_time, started, signals, limit)
        self.last = self.good = Moment(state, StepInfo(dt=0.0), self.measure)
        self.guard = Guard(self.case)
        self.adaptation = Adaptation(self, state)
        self.checkpoints = Checkpoints(series)
        self.observers = self._observers(series, signals is not None)

    def _observers(self, series: Series, is_rescued: bool) -> list[Observer]:
        """All observers in order: a checkpoint holds what those before it made of the step."""
        rescue = [Rescue(self.checkpoints)] if is_rescued else []
        triggers = Triggers(self.checkpoints)
        before = [Recorder(series), States(), Limits(), self.own, triggers]
        return [*before, self.checkpoints, Progress(), *rescue]

    def _say_what_is_known(self):
        if self.comm.rank:
            return
        for text in self.contradictions:
            log.warning("%s", text)
        for text in self.plan.notes():
            log.info("note: %s", text)

    def evolve(self) -> tuple[str, State]:
        """Evolve to the end of the run. Collective on comm.

        Returns:
            The status and the last good state. This state is on disk, whatever ends the run.
        """
        with self._failures_agreed():
            self.clock.look()
            self.first_wall_time = self.clock.wall_time
            if not self.is_resumed:
                self.last.state.wall_time = self.clock.wall_time  # includes the start
            stop = self._ask("start")
            while stop is None:
                stop = self._march()
            self._finish(stop)
        return self.status, self.good.state

    def _march(self) -> Stop | None:
        """Step from the last good state until an observer or a failed step ends this.

        Returns:
            The Stop; None after a step that failed, when the run may try a shorter one.
        """
        case, state, stop, changed = self.case, self.good.state, None, None
        theta = case.take_up(state)

        def before_step(step: int) -> bool:
            return case.draw(step, theta)

        def after_step(parameters, step, time, dt, info) -> bool:
            nonlocal theta, stop, changed
            theta = parameters
            self.clock.look()
            state = case.state(parameters, step, time, dt, stepper.state())
            state.wall_time = self.clock.wall_time
            changed = self.adaptation.change(theta, state, info)
            state.adaptation = dict(self.adaptation.memory)
            self.last = Moment(state, info, self.measure)
            if self.last.is_finite:
                self.good = self.last
            stop = self._ask("step") if changed is None else None
            return stop is not None or changed is not None

        try:
            with case.time_stepper() as stepper:
                start = (theta, state.step, state.time, state.dt, state.stepper)
                end = stepper.solve(*start, before_step, after_step)
        except (NonFiniteError, FailedStepError) as error:
            self._agreed(error)
            again = refitted(case, self.good.state)
            if again is None:
                self.last = self.good = self.guard.shorter_step(self.good, self.last, error)
            else:
                self.last = self.good = Moment(again, StepInfo(dt=0.0), self.measure)
            return None
        if stop is None and changed is not None:
            if self.adaptation.ended:
                return Stop("stalled", self.adaptation.ended)
            self._change(changed)
            return self._ask("step")  # the step is observed as the state that the run goes on from
        return stop or Stop(end.reason, "an option of PETSc ended the run")

    def _change(self, state: State) -> None:
        """Continue from a state with another window, sample, scales or network."""
        state.adaptation = dict(self.adaptation.memory)
        if self.adaptation.case is not self.case:
            self._use(self.adaptation.case, f"after step {state.step}: a wider network")
        self.case.take_up(state)
        info = StepInfo(dt=self.last.info.dt)
        self.good = self.last = Moment(state, info, self.measure)

    def _use(self, case: Case, note: str) -> None:
        """Go on with a case that has another network."""
        self.case, self.plan, self.config = case, case.plan, case.config
        self.guard = Guard(case)
        self.record = self.record.changed(self.config, note)
        self.record = dataclasses.replace(self.record, layout=checkpoint.layout(self.plan.ansatz))
        self._write_config()

    def _write_config(self) -> None:
        config = self.config
        self.writer.submit(lambda: write_config(self.run_dir, config))

    def _ask(self, event: str) -> Stop | None:
        """Call every observer, and return the first Stop."""
        self.stop: Stop | None = None
        for observer in self.observers:
            stop = getattr(observer, event)(self, self.last)
            self.stop = self.stop or stop
        if self.last.is_finite:
            self.good = self.last
        return self.stop

    def _finish(self, stop: Stop) -> None:
        """Measure, record and save the last state with the status of the run."""
        self.status, self.note = stop.status, stop.message or self.note
        best = better(self.case, self.adaptation.memory, self.last.state)
        if best is not None:
            self._change(best)
        self.last.measured()
        self.good = self.last
        self._judge()
        for observer in self.observers:
            observer.end(self, stop)
        self.save_last()

    def save_last(self) -> None:
        """Write the last good state, and return when it is on disk. Collective."""
        self.checkpoints.save(self, self.good)
        self.writer.wait()

    def _judge(self) -> None:
        """Estimate the errors of the last state and of its coefficients. Collective."""
        state = self.last.state
        theta_P = self.case.parameters.join(state.theta_P, state.coefficients)
        self.known = self.adaptation.known(theta_P)
        leg, comm = self.case.leg, self.comm
        if self.plan.problem.eigenvalues:
            self.doubts = doubts(self.case, theta_P)
        if self.plan.energy.is_least_squares:
            self.worst = worst(comm, leg.energy, theta_P, self.case.held_out)
        self._keep_uncertainty(covariance_factor(comm, leg.energy, theta_P, self.case.flow.sample))
        self.warn()

    def _keep_uncertainty(self, factor_PP: np.ndarray | None) -> None:
        """Take the errors of the coefficients, and write the covariance. Collective."""
        if factor_PP is None:
            return
        coefficients, step = self.last.state.coefficients, self.last.state.step
        unit_QP = np.eye(len(factor_PP))[len(factor_PP) - len(coefficients) :]
        errors_Q = uncertainty.standard_errors(factor_PP, unit_QP)
        self.coefficient_errors = dict(zip(coefficients, errors_Q.tolist(), strict=True))
        path = self.run_dir / uncertainty.NAME
        self.writer.submit(lambda: uncertainty.write(path, step, factor_PP))

    @property
    def is_interrupted(self) -> bool:
        """True if a signal or the scheduler's limit ended the run, so that it may go on. Local."""
        return self.status == "stopped" and self.clock.reason != 0

    @property
    def solved_to(self) -> float | None:
        """Time to which the solution was found, if that is not the end. Local."""
        state = self.last.state
        return state.window[1] if self.adaptation.is_followed(state) else None

    def warn(self, *others: str) -> None:
        """Collect the warnings and those given, and log the new ones. Collective."""
        measured, balanced = self.last.measured(), self.plan.balanced
        rest = (balanced, self.solved_to, self.worst, self.contradictions)
        found = [*warnings(measured, self.known, *rest), *self.doubts, *others]
        before, self.warnings = self.warnings, found
        for text in self.warnings if self.comm.rank == 0 else []:
            if text not in before:
                log.warning("%s", text)

    def measure(self, state: State, info: StepInfo) -> Measured:
        """Energy and errors of a state. Collective on comm.

        Args:
            state: the state.
            info: info of the step that led to it.

        Raises:
            NonFiniteError: its energy is not finite.
        """
        case = self.case
        theta_P = case.parameters.join(state.theta_P, state.coefficients)
        E_K = info.E_K if info.E_K is not None else case.flow.energies(theta_P, state.time)
        if not np.isfinite(E_K).all():
            cause = "a time step dt or a learning rate that is too large" if state.step else ""
            raise case.flow.non_finite(theta_P, f"the energy after step {state.step}", cause)
        with case.phases("output"):
            written_K, held_out_K, balanced_held_out = case.energies_as_written(theta_P, E_K)
            evaluation = case.evaluation
            evaluation.at(state.time)
            error, metrics = evaluation.relative_l2(theta_P), evaluation.metrics(theta_P)
            metrics |= evaluation.by_output(theta_P) | case.conserved(theta_P)
        terms = {term.name: 0.0 for term in self.plan.terms}
        terms |= {term.name: float(E) for term, E in zip(case.leg.terms, written_K, strict=True)}
        return Measured(
            step=state.step,
            energy=float(written_K.sum()),
            energy_terms=terms,
            held_out_energy=float(held_out_K.sum()),
            balanced_energy=float(np.sum(E_K)),
            balanced_held_out_energy=balanced_held_out,
            relative_l2=error,
            metrics=metrics,
            singular=singular_coefficients(
                self.plan.ansatz, self.plan.problem.outputs, state.theta_P
            ),
        )

    def stats(self, moment: Moment) -> dict:
        """The facts that `nedhpc info` reports beside the state, {name: value}. Local."""
        plan, leg, measured = self.plan, self.case.leg, moment.known
        steps = max(1, moment.state.step - self.first_step)
        stats = {
            "status": self.status,
            "message": self.note,
            "num_parameters": plan.energy.num_parameters,
            "num_points": sum(leg.counts.values()),
            "num_ranks": self.comm.size,
            "device": str(self.case.device),
            "dtype": self.config.device.dtype,
            "method": leg.method,
            "seconds_per_step": (moment.state.wall_time - self.first_wall_time) / steps,
            "projection_error": moment.info.projection_error,
        }
        stats |= {"warnings": "\n".join(self.warnings)}
        if START_ERROR in self.adaptation.memory:
            stats[START_ERROR] = self.adaptation.memory[START_ERROR]
        if self.known is not None:
            stats |= self.known.stats(plan.problem.outputs)
        stats |= {f"coefficient_error_{n}": error for n, error in self.coefficient_errors.items()}
        if measured is None:
            return stats
        error = measured.relative_l2
        stats |= {"energy": measured.energy, "relative_l2": np.nan if error is None else error}
        stats |= {name: getattr(measured, name) for name in OTHER_ENERGIES}
        stats |= {f"metrics_{name}": value for name, value in measured.metrics.items()}
        stats |= measured.singular
        return stats | {f"energy_terms_{name}": E for name, E in measured.energy_terms.items()}

    @contextlib.contextmanager
    def _failures_agreed(self):
        """If an expected error ends the run, save the last good state and raise on every rank."""
        self._own = self.comm.Dup()
        try:
            yield
        except BaseException as error:
            self.own.error(self, error)
            if isinstance(error, StorageError) or not isinstance(error, NedError):
                raise
            self._agreed(error)
            message = located(self.case, self.good, error)
            self.status, self.note, self.last = "failed", message, self.good
            with contextlib.suppress(NonFiniteError):  # the state is then saved without an energy
                self.good.measured()
            for observer in self.observers:
                with contextlib.suppress(NonFiniteError):
                    observer.end(self, Stop(self.status, self.note))
            self.save_last()
            raise type(error)(
                f"{message}; the state after step {self.good.state.step} is in {self.run_dir}"
            ) from error
        finally:
            self.writer.finish()
            self._own.Free()

    def _agreed(self, error: NedError) -> None:
        """Return if every rank has failed; else end this rank, which ends the job."""
        if not all_come(self._own):
            raise AloneError(f"only rank {self.comm.rank} failed: {error}") from error
