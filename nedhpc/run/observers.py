"""What happens between steps: errors measured, series and checkpoints written, progress shown, the end decided.

The decisions (target reached, wall time over, a signal to stop) come from rank 0's clock and reduced numbers, so that all ranks take
the same.
"""

import dataclasses
import logging
import sys
import time

import numpy as np
import psutil
from tqdm import tqdm

from nedhpc.errors import NonFiniteError, StorageError
from nedhpc.files import checkpoint
from nedhpc.parallel.comm import agree, maximum, total
from nedhpc.run.case import method
from nedhpc.run.stop import LIMIT, MARGIN_SECONDS, Stop, describe, slurm_end
from nedhpc.steppers.ts import RULES

log = logging.getLogger("nedhpc")

PROGRESS_SECONDS = 60.0
CUT, MAX_CUTS = 0.25, 10
"""What dt is multiplied by where a step is not finite, and how often in a row: PETSc's own numbers for steps that it rejects."""


class Monitor:
    """Watches one run; `after_step` is its per-step hook and returns True when the run ends."""

    def __init__(self, comm, config, case, run_dir, series, about, state, started, stop=None):
        self.comm, self.config, self.case, self.run_dir = comm, config, case, run_dir
        self.series, self.about = series, about
        self.started, self.wall_before = started, state.wall_time
        self.stop, self.end = stop or Stop(), slurm_end() if comm.rank == 0 else None
        self.longest_step = self.longest_save = 0.0
        self.last_look = None
        self.first_step = state.step
        self.saved_at = self.reported_at = self.started
        self.status, self.message = "running", ""
        self.good = state
        """The last state known to have a finite energy."""
        self.cuts, self.cut_at = 0, None
        self.relative_l2 = self.energy = None
        self.metrics = {}
        self.bar = None
        if comm.rank == 0 and sys.stderr.isatty():
            self.bar = tqdm(
                total=config.run.max_steps, initial=state.step, unit="step", file=sys.stderr
            )

    def look(self):
        """(Seconds of this run and those it continues by rank 0's clock, why to stop now: a signal, LIMIT or 0). Collective."""
        now, reason = time.monotonic(), self.stop.signal
        self.longest_step, self.last_look = (
            max(self.longest_step, now - (self.last_look or now)),
            now,
        )
        if self.end is not None and self.end - time.time() < MARGIN_SECONDS + 2 * (
            self.longest_step + self.longest_save
        ):
            reason = LIMIT
        rank_0 = now - self.started + self.wall_before if self.comm.rank == 0 else -np.inf
        wall_time, reason = maximum(self.comm, [rank_0, reason])
        return float(wall_time), int(reason)

    @property
    def on_target(self):
        """Whether the error last measured is the target's or less."""
        return (
            self.relative_l2 is not None and self.relative_l2 <= self.config.run.target_relative_l2
        )

    def stop_early(self, reason):
        self.status, self.message = (
            "stopped",
            f"stopped {describe(reason)}; `nedhpc resume {self.run_dir}` continues",
        )

    def after_step(self, state, info):
        """Record `state` (a checkpoint.State) after an accepted step. Collective."""
        config = self.config
        state.wall_time, reason = self.look()
        if info.E_K is not None and np.isfinite(info.E_K).all():
            self.good = state
        wall_over = (
            config.run.max_wall_time is not None
            and state.wall_time - self.wall_before >= config.run.max_wall_time
        )
        time_over = config.run.max_time is not None and state.time >= config.run.max_time * (
            1 - 1e-14
        )
        complete = time_over or state.step >= config.run.max_steps
        last = bool(complete or info.stalled or wall_over or reason)
        if state.step % config.output.every_steps == 0 or last:
            self.record(state, info)
        if info.note and not self.message:
            self.message = info.note
            log.warning("%s", info.note) if self.comm.rank == 0 else None
        if self.on_target:
            self.status, last = "converged", True
        elif info.stalled:
            self.status, self.message = (
                "converged",
                "no step lowers the energy further: it is at the level of rounding",
            )
        elif complete:
            self.status = "max_time" if time_over else "max_steps"
        elif wall_over:
            self.status = "wall_time"
        elif reason:
            self.stop_early(reason)
        if not last:  # the end is saved anyway
            self._save_when_due(state, info)
        return last

    def cut(self, error):
        """The last good state with a shorter dt, to go on from after a NonFiniteError. Raises `error` where that does not help: after many
        in a row, or in a step rule, which looks for its own dt or has a learning rate instead. Collective."""
        self.cuts = self.cuts + 1 if self.good.step == self.cut_at else 1
        self.cut_at = self.good.step
        if self.config.stepper.type in RULES or self.cuts > MAX_CUTS:
            raise error
        self.good = dataclasses.replace(self.good, dt=CUT * self.good.dt)
        if self.comm.rank == 0:
            log.warning(
                "%s; again from step %d with dt = %.3g", error, self.good.step, self.good.dt
            )
        return self.good

    def measure(self, state, info):
        """Energy and error of `state`; NonFiniteError where it has none. Collective."""
        theta_P = self.case.parameters(state)
        E_K = info.E_K if info.E_K is not None else self.case.flow.energies(theta_P)
        self.energy, self.energy_terms = float(np.sum(E_K)), [float(E) for E in E_K]
        with self.case.flow.phases("output"):
            self.relative_l2, self.metrics = (
                self.case.relative_l2(theta_P),
                self.case.metrics(theta_P),
            )
        self.projection_error = info.projection_error
        if not np.isfinite(self.energy):
            raise NonFiniteError(
                f"the energy is not finite after step {state.step}; the likely cause is a time step dt or a learning rate that "
                "is too large, or a problem function that divides by zero or takes a root or log of a negative number"
            )
        self.good = state

    def record(self, state, info):
        """Measure and append to the series. Collective."""
        self.measure(state, info)
        entry = {
            "step": state.step,
            "time": state.time,
            "dt": info.dt,
            "energy": self.energy,
            "relative_l2": np.nan if self.relative_l2 is None else self.relative_l2,
            "wall_time": state.wall_time,
            "solver/effective_rank": info.effective_rank,
            "solver/projection_error": info.projection_error,
        }
        entry |= {
            f"seconds/{phase}": seconds for phase, seconds in self.case.flow.phases.take().items()
        }
        entry |= {
            f"energy_terms/{term.name}": E
            for term, E in zip(self.case.problem.terms, self.energy_terms)
        }
        entry |= {f"metrics/{name}": value for name, value in self.metrics.items()}
        self.series.append(entry)
        self._on_disk(lambda: self.series.write(force=False))
        if self.comm.rank == 0:
            self._progress(state, info)

    def _progress(self, state, info):
        seconds = (time.monotonic() - self.started) / max(1, state.step - self.first_step)
        error = "" if self.relative_l2 is None else f"relL2={self.relative_l2:.1e}  "
        error += "".join(f"{name}={value:.4f}  " for name, value in self.metrics.items())
        text = f"t={state.time:.2e}  dt={info.dt:.0e}  E={self.energy:.1e}  {error}{seconds:.3f} s/step"
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(state.step - self.bar.n)
        elif (
            time.monotonic() - self.reported_at >= PROGRESS_SECONDS or state.step == self.first_step
        ):
            self.reported_at = time.monotonic()
            left = int(seconds * max(0, self.config.run.max_steps - state.step))
            log.info(
                "step %d  %s  ETA %02d:%02d:%02d",
                state.step,
                text,
                left // 3600,
                left // 60 % 60,
                left % 60,
            )

    def _save_when_due(self, state, info):
        every = self.config.checkpoint.every_steps
        due = every is not None and state.step % every == 0
        due = (
            due
            or state.wall_time - self.wall_before - (self.saved_at - self.started)
            >= self.config.checkpoint.every_seconds
        )
        if due:
            if self.good is not state:
                self.measure(state, info)
            self.save(state)

    def save(self, state):
        """Write a checkpoint and the series; a failure is the same error on every rank. Collective."""
        begun = time.monotonic()
        with self.case.flow.phases("output"):
            self._save(state)
        self.longest_save = max(self.longest_save, time.monotonic() - begun)

    def _save(self, state):
        self.saved_at = self.started + state.wall_time - self.wall_before
        memory = int(total(self.comm, [psutil.Process().memory_info().rss / 2**20])[0])
        about = self.about | {"stats": self.stats() | {"peak_memory_mb": memory}}

        def write():
            self.series.write()
            checkpoint.write(self.run_dir, state, about, self.config.checkpoint.keep)

        self._on_disk(write)

    def _on_disk(self, write):
        """write() by rank 0; where the run folder does not take it, the same error on every rank. Collective."""
        error = None
        if self.comm.rank == 0:
            try:
                write()
            except OSError as caught:
                error = StorageError(
                    f"cannot write in {self.run_dir}: {caught.strerror or caught}; the checkpoints that are there are untouched: "
                    f"free space or restore the folder, then `nedhpc resume {self.run_dir}`"
                )
        agree(self.comm, error)

    def stats(self):
        """What `nedhpc info` reports beside the state."""
        config, case, state = self.config, self.case, self.good
        steps = max(1, state.step - self.first_step)
        stats = {
            "status": self.status,
            "message": self.message,
            "num_parameters": case.energy.num_parameters,
            "num_points": sum(case.counts.values()),
            "num_ranks": self.comm.size,
            "device": str(case.device),
            "dtype": config.device.dtype,
            "method": method(config, case.solver),
            "seconds_per_step": (state.wall_time - self.wall_before) / steps,
            "has_reference": self.relative_l2 is not None,
        }
        if self.energy is not None:
            stats |= {
                "energy": self.energy,
                "relative_l2": np.nan if self.relative_l2 is None else self.relative_l2,
                "projection_error": self.projection_error,
            }
            stats |= {f"metrics_{name}": value for name, value in self.metrics.items()}
            stats |= {
                f"energy_terms_{term.name}": E
                for term, E in zip(case.problem.terms, self.energy_terms)
            }
        return stats

    def close(self):
        if self.bar is not None:
            self.bar.update(self.good.step - self.bar.n)
            self.bar.close()
