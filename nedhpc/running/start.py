"""The first state of a run: random parameters, a checkpoint's, or a fitted last layer.

Functions are collective on the case's comm.
"""

import dataclasses
import logging
from math import inf
from pathlib import Path

import numpy as np
from torch import Tensor

from nedhpc.errors import UsageError
from nedhpc.files import checkpoint, provenance
from nedhpc.files.checkpoint import State
from nedhpc.files.record import RunRecord
from nedhpc.files.resume import adapt, check, prepare
from nedhpc.files.series import Series
from nedhpc.parallel.comm import on_rank_0, total
from nedhpc.running.case import Case
from nedhpc.solvers import SOLVERS
from nedhpc.user_code import digests

log = logging.getLogger("nedhpc")

SCALES = np.geomspace(0.1, 300, 9)
"""Scales of the first layer that are tried, in units of 1 / (mean width of the domain)."""
REFINEMENTS = 4
"""Number of times that the logarithmic distance to the best scale's neighbours is halved."""
RTOL = 1e-15
"""Singular values below this share of the largest are cut off."""
MAX_ITERATIONS = 10


Resumed = tuple[State, RunRecord]


def open_folder(
    case: Case, run_dir: Path, resumed: Resumed | None
) -> tuple[State, RunRecord, Series]:
    """Prepare the run folder; return the state, record and series of the start. Collective.

    Args:
        case: the case of the run.
        run_dir: run folder.
        resumed: state and record of the checkpoint to continue from; None for a new run.

    Raises:
        UsageError: the folder holds another run, or the checkpoint does not belong to this one.
    """
    plan, config, comm = case.plan, case.config, case.comm
    data, user_files = plan.problem.data, digests(plan.config)
    layout, data_sha256 = checkpoint.layout(plan.ansatz), "" if data is None else data.digest()
    record, state = RunRecord.start(config), None
    if resumed is not None:
        state, record, notes = adapt(*resumed, config, user_files)
        check(
            state,
            record,
            layout=layout,
            coefficients=tuple(plan.problem.coefficients),
            data_sha256=data_sha256,
            user_files=user_files,
        )
        for note in notes if comm.rank == 0 else []:
            log.info("after step %d: %s", state.step, note)
    with case.time_stepper():  # check the PETSc options before anything is written
        pass
    on_rank_0(comm, prepare, run_dir, config, None if state is None else state.step)
    if state is None:
        state = first_state(case)
    threads = case.set_threads(case.take_up(state))
    record = dataclasses.replace(
        record,
        config=config.toml(),
        layout=layout,
        user_files=user_files,
        sampling={
            "rule": config.sampling.rule,
            "seed": config.run.seed,
            "data_sha256": data_sha256,
        },
        provenance=provenance.collect(comm, case.device),
        threads=threads,
    )
    file = run_dir / "series.h5"
    continues = resumed is not None and comm.rank == 0
    return state, record, Series.open(file, state.step) if continues else Series(file)


def first_state(case: Case) -> State:
    """The state at step 0, according to run.initial and run.start. Collective.

    Raises:
        UsageError: run.initial belongs to another network.
    """
    config, plan = case.config, case.plan
    coefficients = dict(plan.problem.coefficients)
    if config.run.initial is not None:
        given, record = on_rank_0(case.comm, checkpoint.read, config.run.initial)
        here = checkpoint.layout(plan.ansatz)
        if record.layout != here:
            raise UsageError(
                f"run.initial = {config.run.initial!r} holds the parameters "
                f"{', '.join(record.layout)}; this config's network has {', '.join(here)}"
            )
        known = given.coefficients.items()
        coefficients |= {name: value for name, value in known if name in coefficients}
        theta_P = given.theta_P
    elif config.run.start == "last_layer":
        case.draw(0, None)
        theta_P, coefficients = case.parameters.split(last_layer(case))
    else:
        theta_P = plan.ansatz.initial(config.run.seed)
    return State(theta_P, coefficients, 0, 0.0, config.stepper.dt)


def last_layer(case: Case) -> Tensor:
    """Parameters (P,) of random features, with the last layer at its steady state. Collective.

    The last layer holds the columns in which u is linear. The flow restricted to them reaches its
    steady state in one least-squares solve if the terms are linear in u, else in a few Gauss-Newton
    steps (random features, Huang et al. 2006). The scale of the features is chosen by generalised
    cross-validation of the energy (Golub, Heath and Wahba 1979), then refined around the best one.
    Cost: one N x P_last factorisation for each trial.

    Raises:
        UsageError: the network's linear columns are not known, or a term has no row residual.
    """
    plan, ansatz = case.plan, case.plan.ansatz
    if ansatz.linear_columns is None:
        raise UsageError(
            "run.start = 'last_layer' needs the built-in network: which columns of a torch module "
            "are linear is not known"
        )
    if not plan.energy.has_row_residual:
        raise UsageError(
            "run.start = 'last_layer' needs Residual terms: a Density has no row residual to "
            "solve for"
        )
    domain = plan.problem.domain
    width = float(np.mean(domain.high - domain.low))
    tried: dict[float, tuple[float, Tensor, float]] = {}

    def score(scale: float) -> float:
        if scale not in tried:
            theta_P = ansatz.features(case.config.run.seed, scale / width, domain.low, domain.high)
            tried[scale] = solve_last_layer(
                case, case.parameters.join(theta_P, plan.problem.coefficients)
            )
        return tried[scale][0]

    best = min(SCALES, key=score)
    ratio = SCALES[1] / SCALES[0]
    for _ in range(REFINEMENTS):
        ratio **= 0.5
        best = min((best / ratio, best, best * ratio), key=score)
    if case.comm.rank == 0:
        log.info(
            "last-layer start: first-layer scale %.3g, energy %.3g", best / width, tried[best][2]
        )
    return tried[best][1]


def solve_last_layer(case: Case, theta_P: Tensor) -> tuple[float, Tensor, float]:
    """(cross-validation score, theta, energy) of the last layer's least-squares solution.

    Collective.
    """
    flow, energy, columns = case.flow, case.plan.energy, case.plan.ansatz.linear_columns
    solver = SOLVERS["tsqr"](case.comm, RTOL)
    E, score = float(flow.energies(theta_P, 0.0).sum()), inf
    for _ in range(MAX_ITERATIONS):
        linear = energy.linearise(theta_P, flow.sample, columns)
        num_rows = int(total(case.comm, [linear.A.num_rows])[0])
        delta, info = solver.solve_rows(solver.init(linear.A, -linear.r_N))
        trial = theta_P.clone()
        trial[columns] += delta
        E_trial = float(flow.energies(trial, 0.0).sum())
        if not E_trial < E:
            break
        is_small_gain = E_trial > 0.5 * E
        theta_P, E = trial, E_trial
        # Generalised cross-validation: E over the squared share of rows that the fit leaves free.
        score = E / max(1 - info.effective_rank / num_rows, 1 / num_rows) ** 2
        if is_small_gain:
            break
    return score, theta_P, E
