"""Saves the last finished step as soon as a signal arrives, while the next step goes on.

A run reacts to a signal only at the end of a step, and a launcher may not wait that long: Open
MPI's mpirun kills its ranks a quarter of a second after the TERM that it sends them. A thread of
rank 0 therefore writes the state of the last finished step at once.
"""

import dataclasses
import logging
import os
import signal
import threading

import numpy as np

from nedhpc.errors import StorageError
from nedhpc.files import checkpoint
from nedhpc.running.observers import Observer
from nedhpc.running.recorder import Checkpoints

log = logging.getLogger("nedhpc")

END = b"\0"
"""Ends the thread. The bytes before it are the numbers of signals."""


class Rescue(Observer):
    """Writes a checkpoint in a thread of rank 0 if the process receives a signal.

    Python notes a signal in its main thread only, between two operations. So the thread waits at
    a pipe into which the interpreter writes at once (signal.set_wakeup_fd). torch and MPI let
    other threads run while they compute or wait.

    Args:
        checkpoints: the observer that writes the other checkpoints.
    """

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints
        self._latest = None
        self._thread: threading.Thread | None = None

    def start(self, run, moment):
        if run.comm.rank == 0:
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._listen, args=(run,), daemon=True)
            self._thread.start()
            self.step(run, moment)

    def step(self, run, moment):
        # A wider network has another record. No step changes the state of an earlier one.
        self._latest = moment, run.record, run.own.states

    def end(self, run, stop):
        self._latest = None  # the state that follows is the last one, which the run writes itself
        if self._thread is not None:
            signal.set_wakeup_fd(self._before)
            os.write(self._writer, END)
            self._thread.join()
            os.close(self._reader)
            os.close(self._writer)
            self._thread = None

    def _listen(self, run) -> None:
        """Save the latest state whenever signals arrive, until END is written."""
        while END not in os.read(self._reader, 4096):
            try:
                run.writer.at_once(lambda: self._save(run))
            except StorageError as error:
                log.warning("the last finished step could not be saved at once: %s", error)

    def _save(self, run) -> None:
        latest = self._latest
        if latest is None:
            return
        moment, record, observers = latest
        state = dataclasses.replace(moment.state, observers=observers)
        if state.step in map(checkpoint.step_of, checkpoint.paths(run.run_dir)):
            return
        # The energy of most steps is not known before an output is due.
        if np.isfinite(state.theta_P).all():
            self.checkpoints.series.writing()()
            record = dataclasses.replace(record, stats=self.checkpoints.stats(run, moment))
            checkpoint.write(run.run_dir, state, record, run.config.checkpoint.keep)
