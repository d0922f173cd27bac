"""The error, estimated from a second solution by a network of another size. Collective.

With run.estimate_error, the problem is solved again after the run, with hidden layers SIZE times as
wide, from other random parameters and on other points. If e_1 and e_2 are the errors of the two
solutions,

    |u_1 - u_2| = |e_1 - e_2|,

which is about the larger error unless the two are wrong in the same way. So the difference adds to
what is known, and replaces nothing: the larger of it and the linearised estimate counts
(running/trust.py), and no warning is withdrawn. Two grids or two orders are compared in the same
way to judge a solution (Roache, J. Fluids Eng. 116, 1994).

The run is saved before this begins, and nothing else is written into its folder. If
run.max_wall_time is given, the run has the share limits.FIRST_SHARE of it, and the second solution
has what is left; without it, both end by the same criteria. After a stop there is no second
solution: the run that continues makes it at its end.
"""

import contextlib
import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nedhpc.config import ProblemTable
from nedhpc.errors import NedError, StorageError
from nedhpc.parallel.comm import block, on_rank_0, total
from nedhpc.plan import Plan
from nedhpc.running.evolve import Run
from nedhpc.running.signals import describe
from nedhpc.sampling.points import evaluation_points

log = logging.getLogger("nedhpc")

SIZE = 0.75
"""Ratio of the widths of the hidden layers to those of the run's network.

A wider network needs more time than the run had. One half as wide cannot represent what the run's
network can, if that is small: its difference is up to 1e3 times the run's error.
"""
LEAST_UNITS = 3
"""A hidden layer of the second network has at least so many units, and not the run's number."""


def compare(run: Run) -> None:
    """Solve the problem again if run.estimate_error asks for it, and save the difference.

    Args:
        run: a run that has ended. If a signal stops the second solution, its status becomes
            "stopped", so that it is continued.
    """
    if run.config.run.estimate_error and not run.is_compared and run.comm.rank == 0:
        log.info("run.estimate_error does nothing here, because the error is measured")
    if not run.is_compared or run.known is None or run.status == "stopped":
        return
    warning = ""
    try:
        second = _solved(run)
        if second.status == "stopped":
            reason = describe(second.clock.reason)
            run.status, run.clock.reason = "stopped", second.clock.reason
            run.note = (
                f"stopped {reason} during the second solution; `nedhpc resume {run.run_dir}` "
                "makes it again"
            )
        else:
            warning = _compared(run, second)
    except NedError as error:
        warning = f"there is no second solution that would show the error: {error}"
    run.warn(*([warning] if warning else []))
    run.save_last()


def second_plan(plan: Plan, seconds: float) -> Plan:
    """The plan of the second solution. Local.

    Args:
        plan: the plan of the run.
        seconds: time that is left for it; infinity without a limit.

    Raises:
        NedError: there is no such plan, e.g. because no time is left.
    """
    config = plan.config
    if seconds <= 0:
        raise NedError("no time is left for it; give the run a longer run.max_wall_time")
    hidden = [_width(units) for units in config.network.hidden or []]
    settings = {
        "seed": (config.run.seed + 1) % 2**63,
        "initial": None,
        "max_wall_time": seconds if np.isfinite(seconds) else None,
        "estimate_error": False,
    }
    tables = {
        # The problem is given as an instance, which has no options.
        "problem": ProblemTable(name=config.problem.name),
        "network": config.network.model_copy(update={"hidden": hidden}),
        "run": config.run.model_copy(update=settings),
        "output": config.output.model_copy(update={"observers": []}),
    }
    config = config.model_copy(update=tables)
    return Plan(config, plan.problem, plan.num_ranks, plan.available_bytes)


def _width(units: int) -> int:
    """Units of a hidden layer of the second network. Local."""
    other = max(LEAST_UNITS, round(SIZE * units))
    return other if other != units else units + 1


class _Second(Run):
    """A run whose own error is not estimated."""

    def _judge(self) -> None:
        pass


def _solved(run: Run) -> Run:
    """The second run at its end."""
    run.clock.look()
    limit = run.config.run.max_wall_time
    plan = second_plan(run.plan, np.inf if limit is None else limit - run.clock.seconds)
    if run.comm.rank == 0:
        log.info("a second solution with hidden layers %s follows", plan.config.network.hidden)
    with _marked(), _temporary(run.comm) as folder:
        second = _Second(run.comm, plan, folder, signals=run.clock.signals)
        second.evolve()
    return second


def _compared(run: Run, second: Run) -> str:
    """Add the difference of the two solutions to what the run knows. Returns a warning, or ""."""
    ends = [end for end in (run.solved_to, second.solved_to) if end is not None]
    x_ND = _points(run)
    if ends:
        x_ND = x_ND[x_ND[:, -1] <= min(ends)]
    u_NM, v_NM = (_values(solution, x_ND) for solution in (run, second))
    squares_M = (u_NM - v_NM).double().square().sum(0).tolist()
    num, *sums = total(run.comm, [len(x_ND), *squares_M])
    difference_M = np.sqrt(np.array(sums) / max(num, 1))
    second_M = np.where(np.isnan(difference_M), np.inf, difference_M)
    run.known = dataclasses.replace(run.known, second_M=second_M)
    if second.solved_to is None or run.solved_to is not None and run.solved_to <= second.solved_to:
        return ""
    return (
        f"the second solution is known up to t = {second.solved_to:.6g} only, so that it shows no "
        "error after that; give the run more steps or time"
    )


def _points(run: Run) -> Tensor:
    """This rank's share of the points at which the solutions are compared, (N, D). Local.

    They are the evaluation points of the domain, or the data if no term holds in the interior.
    """
    problem = run.plan.problem
    sets = [data.x_ND for data in run.plan.given.values()]
    is_fit = bool(sets) and "interior" not in run.plan.counts
    x_ND = np.concatenate(sets) if is_fit else evaluation_points(problem.domain)
    x_ND = x_ND[slice(*block(len(x_ND), run.comm.rank, run.comm.size))]
    return torch.as_tensor(x_ND, dtype=run.case.dtype, device=run.case.device)


def _values(run: Run, x_ND: Tensor) -> Tensor:
    """The solution of a run at points, (N, M). Local."""
    state, case = run.last.state, run.case
    theta_P = case.parameters.join(state.theta_P, state.coefficients)
    with torch.no_grad():
        return case.evaluation.u(theta_P, x_ND)


@contextlib.contextmanager
def _temporary(comm) -> Iterator[Path]:
    """A folder outside the run's, which rank 0 deletes at the end. Collective on comm."""

    def make() -> str:
        try:
            return tempfile.mkdtemp(prefix="nedhpc-")
        except OSError as error:
            raise StorageError(f"no temporary folder: {error.strerror or error}") from None

    folder = Path(on_rank_0(comm, make))
    try:
        yield folder
    finally:
        if comm.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _marked() -> Iterator[None]:
    """Context manager that marks log messages as those of the second solution. Local."""

    def mark(record: logging.LogRecord) -> bool:
        record.msg = f"second solution: {record.msg}"
        return True

    log.addFilter(mark)
    try:
        yield
    finally:
        log.removeFilter(mark)
