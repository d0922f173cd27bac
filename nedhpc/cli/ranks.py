"""A command that all ranks run together: process-wide settings, and failures that end the job."""

import logging
import os
import sys

from nedhpc.errors import NedError
from nedhpc.running.signals import StopSignals

LAUNCHED = (
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MPI_LOCALNRANKS",
    "MV2_COMM_WORLD_SIZE",
    "SLURM_STEP_NUM_TASKS",
)
"""Variables in which launchers tell a process the number of ranks."""
STOPPED = 75
"""Exit code after a stop by a signal or before the scheduler's limit. A checkpoint is written."""


def has_ranks() -> bool:
    """True if a launcher started this process as one of several ranks. Local, without MPI."""
    counts = [os.environ.get(name, "") for name in LAUNCHED]
    return any(count.isdigit() and int(count) > 1 for count in counts)


def on_all_ranks(args, is_run: bool = True) -> int:
    """Call args.function(args, comm) and return the exit code. Collective on COMM_WORLD.

    A command that `is_run` ends at a signal by itself, and returns its status.

    Expected errors are the same on every rank and are printed once. Any other exception ends the
    whole job, because otherwise the other ranks would wait for ever for this one.
    """
    if is_run:
        args.signals = StopSignals()
        args.signals.install()
    import mpi4py

    mpi4py.rc.thread_level = "funneled"
    from mpi4py import MPI

    from nedhpc.parallel.failure import explain
    from nedhpc.parallel.placement import quiet_threads

    comm, own = MPI.COMM_WORLD, MPI.COMM_WORLD.Dup()
    quiet_threads(os.environ)  # OpenMP reads these variables when torch is imported
    level = logging.INFO if comm.rank == 0 else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    try:
        return STOPPED if args.function(args, comm) else 0
    except NedError as error:
        if comm.rank == 0:
            print(f"nedhpc: {error}", file=sys.stderr, flush=True)
        from nedhpc.parallel.comm import all_come

        if not all_come(own):
            print(f"nedhpc: only rank {comm.rank} failed: {error}", file=sys.stderr, flush=True)
            comm.Abort(error.exit_code)
        return error.exit_code
    except BaseException as error:
        explain(error, comm.rank)
        if comm.size > 1:
            comm.Abort(1)
        return 1
