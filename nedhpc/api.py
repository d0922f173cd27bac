"""The Python API behind `nedhpc.run` and `nedhpc.load`. The command line calls it too."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import psutil

from nedhpc import config as configs
from nedhpc import config_text
from nedhpc.config import Config
from nedhpc.errors import UsageError
from nedhpc.files.folder import absolute, new_folder
from nedhpc.parallel.precision import float64_default

if TYPE_CHECKING:
    from nedhpc.plan import Plan
    from nedhpc.postprocess.solution import Solution
    from nedhpc.problems.base import Problem
    from nedhpc.running.observers import Observer

log = logging.getLogger("nedhpc")


class Outcome(NamedTuple):
    """How a run ended, and where its files are."""

    status: str
    """One of converged, stalled, max_steps, max_time, wall_time, stopped; as in `nedhpc info`."""
    run_dir: Path
    is_interrupted: bool = False
    """True if a signal or the scheduler's time limit ended it, so that the job may be requeued."""


def run(
    config: Config | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    comm: Any = None,
    *,
    problem: "Problem | type[Problem] | None" = None,
    resume: Literal["never", "auto"] = "never",
    observers: Iterable["Observer"] = (),
) -> Outcome:
    """Run a config to its end. Collective on comm.

    Args:
        config: settings, a table of them as TOML gives it, or the path of a TOML file.
        out: run folder; default runs/<config>-<UTC>.
        comm: an mpi4py communicator; default all ranks.
        problem: an instance or a class, e.g. from a notebook cell. It replaces the problem that
            config names.
        resume: "auto" continues the run that is in `out`, if there is one. If the problem's file
            has changed since, it must be given as `problem`.
        observers: the user's own, called after each step, beside those of output.observers.

    Returns:
        The status, the run folder, and whether a signal or time limit ended the run.

    Raises:
        NedError: the run failed; the error is the same on every rank. If steps were made, the
            last good state is on disk.

    Any exception that only some of several ranks raise is printed and ends the whole job.
    """
    from mpi4py import MPI

    from nedhpc.parallel.failure import ends_together
    from nedhpc.plan import Plan
    from nedhpc.running.observers import checked

    comm = MPI.COMM_WORLD if comm is None else comm
    observers = checked(observers)

    def make() -> "Plan":
        if isinstance(config, Config):
            return Plan(config, problem, comm.size)
        if isinstance(config, Mapping):
            return Plan.of_table(config, None, problem, comm.size)
        return Plan.read(config, problem=problem, num_ranks=comm.size)

    if isinstance(config, str | Path):
        name = Path(config).stem
    elif problem is not None:
        name = (problem if isinstance(problem, type) else type(problem)).__name__
    else:
        table = config.model_dump() if isinstance(config, Config) else config
        name = str(table.get("problem", {}).get("name", "run")).rpartition(":")[2]
    with ends_together(comm):
        return start(comm, make, out, name, resume, problem, observers)


def load(path: str | Path, problem: "Problem | type[Problem] | None" = None) -> "Solution":
    """Load the trained network of a run as a callable u(x). Local.

    Args:
        path: a run folder, whose newest checkpoint is read, or a checkpoint file.
        problem: the problem's class or an instance; needed if it came from a notebook or if its
            file was edited or never run by this user.

    Returns:
        The Solution, which also has derivatives (`jet`, `gradient`) and the time series.

    Raises:
        NotAStateError: the path holds no usable checkpoint.
        UsageError: the problem's file is missing, was edited or was never run by this user.
    """
    from nedhpc.postprocess.solution import Solution

    return Solution(path, problem)


def start(
    comm: Any,
    make: Callable[[], "Plan"],
    out: str | Path | None,
    name: str,
    resume: str = "never",
    problem: "Problem | type[Problem] | None" = None,
    observers: Sequence["Observer"] = (),
    signals: Any = None,
    named: Sequence[str] = (),
) -> Outcome:
    """Run, on every rank, the plan that rank 0 makes. Collective on comm.

    Args:
        comm: an mpi4py communicator.
        make: makes the plan; only rank 0 calls it.
        out: run folder; None for a new folder runs/<name>-<UTC>.
        name: begin of the new folder's name.
        resume: "auto" continues the run that is in `out`, if there is one; "never" does not.
        problem: an instance or a class that replaces the problem of the config.
        observers: the user's own, called after each step.
        signals: a running.signals.StopSignals that may stop the run, or None.
        named: config keys that name files which may differ from those of the run that continues.

    Returns:
        The status and the run folder.

    Raises:
        UsageError: a file that the config names has changed since the run was started.
        NedError: the run failed; the error is the same on every rank.
    """
    from nedhpc.files.checkpoint import any_in
    from nedhpc.files.lock import locked
    from nedhpc.files.resume import load_resume
    from nedhpc.parallel.comm import on_rank_0
    from nedhpc.user_code import check_unchanged

    place = absolute("runs" if out is None else out)  # the user's code may change the folder
    with process_settings():
        plan = same_plan(comm, make, problem)
        run_dir = place if out is not None else on_rank_0(comm, new_folder, place, name)
        with locked(comm, run_dir) as lock:
            continues = resume == "auto" and on_rank_0(comm, any_in, run_dir)
            resumed = load_resume(comm, run_dir) if continues else None
            if resumed is not None:
                on_rank_0(comm, check_unchanged, plan.config, resumed[1].user_files, named)
            return evolve(comm, plan, run_dir, lock, resumed, observers, signals)


def resume(
    comm: Any,
    run_dir: Path,
    overrides: Sequence[str] = (),
    petsc_options: Sequence[str] = (),
    signals: Any = None,
) -> Outcome:
    """Continue the run in run_dir with the config of its newest checkpoint. Collective on comm.

    Args:
        comm: an mpi4py communicator.
        run_dir: run folder.
        overrides: "section.key=value" settings that change the config.
        petsc_options: words that are appended to stepper.petsc_options.
        signals: a running.signals.StopSignals that may stop the run, or None.

    Returns:
        The status and the run folder.

    Raises:
        UsageError: there is nothing to continue, or a file that the config names has changed or
            was never run by this user.
        NedError: the run failed; the error is the same on every rank.
    """
    from nedhpc.files.checkpoint import any_in
    from nedhpc.files.lock import locked
    from nedhpc.files.resume import load_resume
    from nedhpc.parallel.comm import on_rank_0
    from nedhpc.plan import Plan
    from nedhpc.user_code import check_familiar

    run_dir = absolute(run_dir)
    if not on_rank_0(comm, any_in, run_dir):
        raise UsageError(f"{run_dir} holds no checkpoint to continue from")
    with process_settings(), locked(comm, run_dir) as lock:
        state, record = load_resume(comm, run_dir)
        changed = [setting.partition("=")[0] for setting in overrides]

        def make() -> "Plan":
            table = configs.override(config_text.parse(record.config), overrides)
            table = configs.with_petsc_options(table, petsc_options)
            check_familiar(configs.validate(table, run_dir), record.user_files, changed)
            return Plan.of_table(table, run_dir, num_ranks=comm.size)

        plan = same_plan(comm, make, None)
        return evolve(comm, plan, run_dir, lock, (state, record), (), signals)


def same_plan(comm: Any, make: Callable[[], "Plan"], problem: Any) -> "Plan":
    """Rank 0's plan on every rank, or its error. Collective on comm.

    All ranks first compare the files that the config names. Then the other ranks build their plans
    from rank 0's config and memory size.

    Args:
        comm: an mpi4py communicator.
        make: makes the plan; only rank 0 calls it.
        problem: an instance or a class that replaces the problem of the config, or None.

    Raises:
        NedError: rank 0's error, or a UsageError if the files differ between ranks.
    """
    from nedhpc.files.provenance import inputs, same_everywhere
    from nedhpc.parallel.comm import on_rank_0
    from nedhpc.plan import Plan
    from nedhpc.problems import table
    from nedhpc.user_code import digests

    mine = []

    def first():
        mine.append(make())
        return mine[0].config.toml(), psutil.virtual_memory().total

    toml, memory = on_rank_0(comm, first)
    config = configs.validate(config_text.parse(toml))
    # Neighbours of a problem file are known only where it was loaded, so they are not compared.
    files = {key: value for key, value in digests(config).items() if key.count(":") == 0}
    inputs(comm, config, files)
    plan = mine[0] if comm.rank == 0 else Plan(config, problem, comm.size, memory)
    same_everywhere(comm, table.digests(plan.problem))
    return plan


def evolve(comm, plan, run_dir: Path, lock, resumed, observers, signals) -> Outcome:
    """Evolve the plan to the end of the run, and compare it if that is asked for. Collective.

    See running.evolve.Run and running.second.compare.
    """
    from nedhpc.running.evolve import Run
    from nedhpc.running.second import compare

    if signals is not None:
        signals.install()
    run = Run(comm, plan, run_dir, resumed, signals, observers, lock)
    run.evolve()
    compare(run)
    return Outcome(run.status, run_dir, run.is_interrupted)


@contextmanager
def process_settings():
    """Context manager that makes float64 torch's default dtype and records gradients. Local.

    It restores the caller's dtype, gradient mode and thread count at the end.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        with float64_default(), torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(threads)
