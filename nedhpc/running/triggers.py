"""A running job obeys files in its run folder: `touch RUN_DIR/stop`. Collective.

| file | what the run does after its present step |
|---|---|
| checkpoint | write a checkpoint |
| plot | write a checkpoint, then draw plot.png from it in a process of its own |
| stop | write a checkpoint and end as `stopped`, with exit code 0: the job is not requeued |

The run deletes the file first. A stop file from before the start is deleted without an effect.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping

from nedhpc.parallel.comm import on_rank_0
from nedhpc.running.observers import Observer, Stop

log = logging.getLogger("nedhpc")

FILES = ("checkpoint", "plot", "stop")
EVERY_SECONDS = 1.0
"""Least wall time between two looks into the folder, which may be on a slow file system."""


class Triggers(Observer):
    """Looks for the files at most once a second.

    Args:
        checkpoints: the observer that writes the checkpoints.
    """

    def __init__(self, checkpoints):
        self.checkpoints = checkpoints
        self._process: subprocess.Popen | None = None

    def start(self, run, moment):
        on_rank_0(run.comm, taken, run.run_dir)
        self._looked_at = moment.state.wall_time

    def step(self, run, moment):
        if run.clock.wall_time - self._looked_at < EVERY_SECONDS:
            return None
        self._looked_at = run.clock.wall_time
        found = on_rank_0(run.comm, taken, run.run_dir)
        if "stop" in found:
            text = f"the file {run.run_dir}/stop asked for it; `nedhpc resume` continues"
            return Stop("stopped", text)
        if found and run.stop is None:
            moment.measured()
            self.checkpoints.save(run, moment)
            if run.comm.rank == 0:
                log.info("step %d: a checkpoint, as the file %s asked", moment.state.step, found[0])
        if "plot" in found:
            self._plot(run)
        return None

    def end(self, run, stop):
        if self._process is not None:
            self._process.wait()

    def _plot(self, run) -> None:
        """Start the command on rank 0."""
        run.writer.wait()
        if run.comm.rank or (self._process is not None and self._process.poll() is None):
            return
        words = [sys.executable, "-P", "-m", "nedhpc", "plot", str(run.run_dir)]
        self._process = subprocess.Popen(
            words, env=without_mpi(os.environ), stdin=subprocess.DEVNULL
        )


def without_mpi(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables by which MPI would count a process in. Local."""
    marks = ("OMPI_COMM", "PMIX", "PMI_", "PRTE", "SLURM_PROCID")
    return {key: value for key, value in environ.items() if not key.startswith(marks)}


def taken(run_dir) -> list[str]:
    """The names of the trigger files in the folder, which are deleted. Local."""
    found = []
    for name in FILES:
        try:
            (run_dir / name).unlink()
            found.append(name)
        except OSError:  # most often there is none; one that cannot be deleted would act for ever
            continue
    return found
