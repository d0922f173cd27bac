"""Observers that write the series and checkpoints, and that show the user the progress."""

import copy
import dataclasses
import logging
import sys
import time

import numpy as np
import psutil
from tqdm import tqdm

from nedhpc.files import checkpoint
from nedhpc.files.series import Series
from nedhpc.parallel.comm import total
from nedhpc.running.measured import entry
from nedhpc.running.observers import Observer

log = logging.getLogger("nedhpc")

SERIES_SECONDS = 10.0
"""Least seconds between two writes of the series, checkpoints apart."""
SERIES_ENTRIES = 100_000
"""With more entries, the writes are rarer in proportion, because each writes the whole series."""
PROGRESS_SECONDS = 60.0
"""Seconds between two lines of progress, if stderr is not a terminal."""


class Recorder(Observer):
    """Appends measurements to the series every output.every_steps steps and at the end."""

    def __init__(self, series: Series):
        self.series = series
        self._recorded, self._written = -1, -np.inf

    def start(self, run, moment):
        moment.measured()
        if run.is_resumed:  # rank 0 has read the entries from before the resume
            self._recorded = run.comm.bcast(self.series.last_step)
        else:
            self._record(run, moment)

    def step(self, run, moment):
        if moment.state.step % run.config.output.every_steps == 0:
            self._record(run, moment)

    def end(self, run, stop):
        if run.last.state.step > self._recorded:
            self._record(run, run.last)
        errors = run.coefficient_errors.items()
        self.series.amend({f"coefficient_errors/{name}": value for name, value in errors})

    def _record(self, run, moment):
        state, found = moment.state, entry(moment)
        self._recorded = state.step
        seconds = run.case.phases.take()
        found |= {f"seconds/{phase}": value for phase, value in seconds.items()}
        self.series.append(found)
        entries = state.step / run.config.output.every_steps
        seconds = SERIES_SECONDS * max(1.0, entries / SERIES_ENTRIES)
        if state.wall_time - self._written >= seconds:
            self._written = state.wall_time
            run.writer.submit(self.series.writing())


class Checkpoints(Observer):
    """Writes a checkpoint when one is due, by steps or by wall time; `save` writes one now."""

    def __init__(self, series: Series):
        self.series = series
        self._saved_at = self._memory = 0.0

    def start(self, run, moment):
        self._saved_at = moment.state.wall_time
        if not run.is_resumed:
            self.save(run, moment)
            run.writer.wait()  # a folder that cannot be written is told before the first step

    def step(self, run, moment):
        settings, state = run.config.checkpoint, moment.state
        due = settings.every_steps is not None and state.step % settings.every_steps == 0
        due = due or state.wall_time - self._saved_at >= settings.every_seconds
        if due and run.stop is None:  # the end is saved anyway
            moment.measured()
            self.save(run, moment)

    def save(self, run, moment) -> None:
        """Begin to write the moment's state, and its measurement if there is one. Collective.

        Raises:
            StorageError: the write before failed. The error is the same on every rank.
        """
        self._saved_at = moment.state.wall_time
        with run.case.phases("output"):
            resident = psutil.Process().memory_info().rss / 2**20
            self._memory = int(total(run.comm, [resident])[0])
            record = dataclasses.replace(run.record, stats=self.stats(run, moment))
            state, keep = copy.deepcopy(moment.state), run.config.checkpoint.keep
            state.observers = run.own.states
            write_series = self.series.writing()

            def write():
                write_series()
                checkpoint.write(run.run_dir, state, record, keep)

            run.writer.submit(write)
        run.clock.longest_save = run.writer.longest

    def stats(self, run, moment) -> dict:
        """The run's stats of a moment, with the memory at the last call of `save`. Local."""
        return run.stats(moment) | {"peak_memory_mb": self._memory}


class Progress(Observer):
    """Shows a bar on a terminal, else logs a line each minute. Only rank 0 shows it."""

    def __init__(self):
        self.bar = None
        self._reported_at = 0.0

    def start(self, run, moment):
        self._started, self._first_step = time.monotonic(), moment.state.step
        if run.comm.rank == 0 and sys.stderr is not None and sys.stderr.isatty():
            steps = run.config.run.max_steps
            self.bar = tqdm(total=steps, initial=moment.state.step, unit="step", file=sys.stderr)

    def step(self, run, moment):
        if moment.info.note and not run.note:
            run.note = moment.info.note
            if run.comm.rank == 0:
                log.warning("%s", moment.info.note)
        if run.comm.rank or moment.known is None:
            return
        state, now = moment.state, time.monotonic()
        seconds = (now - self._started) / max(1, state.step - self._first_step)
        if self.bar is not None:
            self.bar.set_postfix_str(describe(moment, seconds), refresh=False)
            self.bar.update(state.step - self.bar.n)
        elif now - self._reported_at >= PROGRESS_SECONDS:
            self._reported_at = now
            left = int(seconds * max(0, run.config.run.max_steps - state.step))
            text = describe(moment, seconds)
            clock = f"{left // 3600:02}:{left // 60 % 60:02}:{left % 60:02}"
            log.info("step %d  %s  at most %s left", state.step, text, clock)

    def end(self, run, stop):
        if self.bar is not None:
            self.bar.update(run.last.state.step - self.bar.n)
            self.bar.close()


def describe(moment, seconds: float) -> str:
    """The numbers of a line of progress, as text. Local."""
    measured, state = moment.known, moment.state
    error = "" if measured.relative_l2 is None else f"relL2={measured.relative_l2:.1e}  "
    error += "".join(f"{name}={value:.4g}  " for name, value in measured.metrics.items())
    return (
        f"t={state.time:.2e}  dt={moment.info.dt:.0e}  E={measured.energy:.1e}  "
        f"held-out={measured.held_out_energy:.1e}  "
        f"{error}{seconds:.3f} s/step"
    )
