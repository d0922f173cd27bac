"""The run folder and what a run starts from in it: a new state, or its newest checkpoint.

Functions are collective.
"""

import dataclasses
import logging
from pathlib import Path

from nedhpc.files import checkpoint, provenance
from nedhpc.files.checkpoint import State
from nedhpc.files.record import RunRecord
from nedhpc.files.resume import adapt, check, prepare
from nedhpc.files.series import Series
from nedhpc.network import USUAL_ACTIVATION
from nedhpc.parallel.comm import agreed, on_rank_0
from nedhpc.plan import Plan
from nedhpc.problems import table
from nedhpc.problems.data import digest
from nedhpc.running.case import Case
from nedhpc.running.choice import first
from nedhpc.running.first_fit import continued, fitted
from nedhpc.running.start import rebalanced, taken_over
from nedhpc.user_code import digests, remember

log = logging.getLogger("nedhpc")

Resumed = tuple[State, RunRecord]


def open_folder(
    comm, plan: Plan, run_dir: Path, resumed: Resumed | None
) -> tuple[Case, State, RunRecord, Series]:
    """Prepare the run folder; return the case, state, record and series of the start. Collective.

    Args:
        comm: all ranks of the run.
        plan: the same on every rank.
        run_dir: run folder.
        resumed: state and record of the checkpoint to continue from; None for a new run.

    Raises:
        UsageError: the folder holds another run, or the checkpoint does not belong to this one.
    """
    initial = None if resumed is not None else _initial(comm, plan)
    given = resumed or initial
    is_open = plan.config.network.activation is None
    before = {} if given is None else chosen(plan, given[1])
    if is_open or before:
        plan = plan.variant(**{"activation": USUAL_ACTIVATION} | before)
    case = Case(comm, plan, None if resumed is None else resumed[1].threads)
    user_files = digests(plan.config) | table.digests(plan.problem)
    data_sha256 = digest(plan.given)
    state = None
    if resumed is not None:
        state, record = _resumed(case, resumed, data_sha256, user_files)
    with case.time_stepper():  # check the PETSc options before anything is written
        pass
    on_rank_0(comm, prepare, run_dir, plan.config, None if state is None else state.step)
    if comm.rank == 0:
        remember(plan.config, user_files)
    if state is None:
        case, state = _first(case, is_open, initial)
        record = RunRecord.start(case.config)
        case.take_up(state)
        case.say_scales()
    threads = case.set_threads(case.take_up(state))
    record = dataclasses.replace(
        record,
        config=case.config.toml(),
        layout=checkpoint.layout(case.plan.ansatz),
        user_files=user_files,
        sampling={
            "rule": case.config.sampling.rule,
            "seed": case.config.run.seed,
            "data_sha256": data_sha256,
        },
        provenance=provenance.collect(comm, case.device),
        threads=threads,
    )
    file = run_dir / "series.h5"
    last_step = None if resumed is None else state.step
    return case, state, record, agreed(comm, _series, comm, file, last_step)


def _first(case: Case, is_open: bool, initial: Resumed | None) -> tuple[Case, State]:
    """The case and the state at step 0 of a new run. Collective."""
    if case.plan.problem.is_march:
        return case, continued(case, *initial) if initial else fitted(case)
    return (case, taken_over(case, *initial)) if initial else first(case, is_open)


def _initial(comm, plan: Plan) -> Resumed | None:
    """State and record of the checkpoint run.initial; None if there is none. Collective."""
    initial = plan.config.run.initial
    return None if initial is None else on_rank_0(comm, checkpoint.read, initial)


def chosen(plan: Plan, record: RunRecord) -> dict:
    """What the program chose in [network] where the config gives nothing. Local."""
    settings, before = plan.config.network, record.parsed().network
    found = {}
    if settings.activation is None:
        found["activation"] = before.activation
    if plan.chooses_hidden:
        found["hidden"] = before.hidden
    return {key: value for key, value in found.items() if value is not None}


def _series(comm, file: Path, last_step: int | None) -> Series:
    """The series on rank 0, which writes it, and an empty one elsewhere. Local."""
    is_new = last_step is None or comm.rank
    return Series(file) if is_new else Series.open(file, last_step)


def _resumed(case: Case, resumed: Resumed, data_sha256: str, user_files: dict[str, str]) -> Resumed:
    """State and record with which a run continues, checked to belong to it. Local."""
    state, record, notes = adapt(*resumed, case.config, user_files)
    check(
        state,
        record,
        layout=checkpoint.layout(case.plan.ansatz),
        coefficients=tuple(case.plan.problem.coefficients),
        data_sha256=data_sha256,
        user_files=user_files,
    )
    for note in notes if case.comm.rank == 0 else []:
        log.info("after step %d: %s", state.step, note)
    if case.plan.balanced != (state.reference_P is not None):  # weights.balance has changed
        state = rebalanced(case, dataclasses.replace(state, reference_P=None))
    return state, record
