"""The start of a new run: the best of some candidates after a few steps of each. Collective.

The candidates are run.starts draws of the random parameters, with tanh and with sine units if the
config gives no activation function. The one with the least energy on held-out points is taken. If
there are several ranks, groups of them try different candidates at the same time.

In two or three coordinates one wide layer is tried before, of which only the last layer is fitted
(random features). On smooth solutions its error is 1e-10 to 1e-13 after some seconds, where two
layers have 1e-7 after a minute.

On smooth solutions sine units converge faster: a hundred times less energy after five steps, three
times less error after half a minute. They fail at fronts, which tanh units follow (measured on the
problems of scripts/bench_trust.py).
"""

import dataclasses
import itertools
import logging
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from nedhpc.errors import FailedStepError, NonFiniteError, UsageError
from nedhpc.files.checkpoint import State
from nedhpc.parallel.comm import agreed
from nedhpc.running.adaptation import OVERFIT
from nedhpc.running.case import Case
from nedhpc.running.start import first_state, fits_last_layer, rebalanced

log = logging.getLogger("nedhpc")

OTHER = "sin"
"""The function that is tried beside the usual one."""
TRIAL_STEPS = 8
MAX_FLOPS = 1e11
"""Work of the trial above which only one function is tried: about twenty seconds."""
TRIAL_SHARE = 0.3
"""Share of run.max_wall_time from which on no other candidate is tried, and no other round."""
MAX_ROUNDS, CLOSE = 3, 2.0
"""Most rounds of TRIAL_STEPS steps, and the ratio of the energies from which one is enough."""
GOOD = 1e-12
"""Balanced held-out energy of a start below which no other function is tried."""

FEATURES, FEATURES_DIM, SOLVED = 300, (2, 3), 1e-14
"""Units of one wide layer, the numbers of coordinates for which it is tried, and the energy from
which its start is taken."""

Candidate = tuple[str, int]
"""Name of the activation function, and number of the draw of random parameters."""


def first(case: Case, is_open: bool) -> tuple[Case, State]:
    """The case and the first state of a new run. Collective.

    Args:
        case: a case with the usual activation function.
        is_open: True if the config gives no activation function.

    Raises:
        UsageError: as `first_state`.
    """
    features = _features(case, is_open)
    if features is not None:
        return features
    usual, draws = case.config.network.activation, range(max(1, case.config.run.starts))
    state = first_state(case)
    is_open = is_open and _can_try(case) and not case.has_spent(TRIAL_SHARE)
    is_open = is_open and case.held_out_energy(case.take_up(state)) > GOOD
    candidates = list(itertools.product((usual, OTHER) if is_open else (usual,), draws))
    if len(candidates) == 1:
        return case, state
    (activation, draw), state = _best(case, candidates, state)
    state.adaptation["first_draw"] = draw
    return (case if activation == usual else _other(case, case.comm, activation)), state


def _features(case: Case, is_open: bool) -> tuple[Case, State] | None:
    """One wide layer, if the fit of its last layer alone solves the problem. Collective."""
    plan = case.plan
    # Eigenfunctions are found in the last layer, so that its width counts in one dimension too.
    is_tried = plan.problem.domain.dim in FEATURES_DIM or plan.problem.eigenvalues
    if not (plan.chooses_hidden and is_tried):
        return None
    try:
        plan = plan.variant(hidden=[FEATURES], activation=OTHER if is_open else None)
    except UsageError:
        return None
    if not fits_last_layer(plan):
        return None
    wide = Case(case.comm, plan, device=case.device)
    state = first_state(wide, wanted=SOLVED)
    return (wide, state) if wide.held_out_energy(wide.take_up(state)) < SOLVED else None


def _can_try(case: Case) -> bool:
    """True if a few steps can show which function is better. Local."""
    config, leg = case.config, case.leg
    flops = 2.0 * leg.num_rows * leg.energy.num_parameters**2  # the same on any number of ranks
    is_short = 2 * TRIAL_STEPS * flops < MAX_FLOPS and config.run.max_steps > TRIAL_STEPS
    is_fitted = fits_last_layer(leg)
    return is_short and is_fitted and case.plan.stepper.lowers_energy


@dataclasses.dataclass
class Trial:
    """The first steps of a candidate."""

    case: Case
    first: State
    """The state at step 0."""
    last: State
    held_out: float = np.inf
    """Energy of the last state on held-out points; infinity if a step failed."""
    is_overfit: bool = False
    """True if that on the sample is much smaller."""

    @property
    def start(self) -> State:
        """The last state as one at step 0; the first one if a step failed."""
        if not np.isfinite(self.held_out):
            return self.first
        first, last = self.first, self.last
        return dataclasses.replace(last, step=0, time=0.0, draw=first.draw)

    @property
    def result(self) -> tuple[float, bool]:
        return self.held_out, self.is_overfit


def _best(case: Case, candidates: list[Candidate], first: State) -> tuple[Candidate, State]:
    """The candidate with the least energy after some steps, and its state then. Collective.

    If several are close, and the sample is too small for one of them, all go on with more points.
    The steps are the start of the run: it counts its own from there.

    Args:
        case: the case of the first candidate.
        candidates: at least two.
        first: the first state of the first candidate.
    """
    comm = case.comm
    num_groups = _num_groups(case, len(candidates))
    mine = comm.rank * num_groups // comm.size
    group = comm.Split(mine, comm.rank)
    try:
        share, known = candidates[mine::num_groups], {candidates[0]: first}
        trials = agreed(comm, _begun, case, group, share, known)
        for growth in range(first.growth, MAX_ROUNDS + first.growth):
            agreed(comm, _advance, trials.values(), growth)
            found = {candidate: trial.result for candidate, trial in trials.items()}
            by_rank = comm.allgather(found)
            tried = {candidate: result for found in by_rank for candidate, result in found.items()}
            energies = {candidate: tried[candidate][0] for candidate in candidates}
            if comm.rank == 0:
                _say(energies)
            if not _is_open(tried) or growth >= 0 or case.has_spent(TRIAL_SHARE):
                break
    finally:
        group.Free()
    best = min(candidates, key=energies.__getitem__)
    root = next(rank for rank, found in enumerate(by_rank) if best in found)
    return best, comm.bcast(trials[best].start if comm.rank == root else None, root)


def _is_open(tried: dict[Candidate, tuple[float, bool]]) -> bool:
    """True if several energies are close to the least, and one of them is that of an overfit."""
    best = min(energy for energy, _ in tried.values())
    close = [is_overfit for energy, is_overfit in tried.values() if energy < CLOSE * best]
    return len(close) > 1 and any(close)


def _num_groups(case: Case, num_candidates: int) -> int:
    """Number of groups of ranks: as many as have enough memory for all points. Local."""
    size = case.comm.size
    for num_groups in range(min(size, num_candidates), 1, -1):
        try:
            case.plan.variant(num_ranks=size // num_groups)
        except UsageError:
            continue
        return num_groups
    return 1


def _begun(
    case: Case, group, candidates: list[Candidate], known: dict[Candidate, State]
) -> dict[Candidate, Trial]:
    """The trials of a group at step 0. Collective on the group."""
    trials = {}
    for candidate in candidates:
        activation, draw = candidate
        other = _other(case, group, activation)
        first = known.get(candidate) or first_state(other, draw)
        trials[candidate] = Trial(other, first, first)
    return trials


def _other(case: Case, comm, activation: str) -> Case:
    """The case with another activation function, on a group of the ranks. Collective on comm."""
    plan = case.plan.variant(activation=activation, num_ranks=comm.size)
    return Case(comm, plan, device=case.device)


def _advance(trials: Iterable[Trial], growth: int) -> None:
    """Make TRIAL_STEPS steps of each trial on a sample of the given growth. Collective."""
    for number, trial in enumerate(trials):
        case, state = trial.case, trial.last
        is_new = not np.isfinite(trial.held_out)
        if number and is_new and case.has_spent(TRIAL_SHARE):
            continue
        if state.growth != growth:
            larger = dataclasses.replace(state, growth=growth, selection={}, stepper={})
            trial.last = rebalanced(case, larger)
        theta_P = case.take_up(trial.last)
        try:
            E = _step(trial, theta_P)
        except (NonFiniteError, FailedStepError):
            trial.held_out, trial.is_overfit = np.inf, False
            continue
        energy = case.held_out_energy(case.take_up(trial.last))
        trial.held_out = energy if np.isfinite(energy) else np.inf
        trial.is_overfit = trial.held_out > OVERFIT * E


def _step(trial: Trial, theta_P: Tensor) -> float:
    """Make TRIAL_STEPS steps; return the energy on the sample. Collective."""
    case, begun = trial.case, trial.last.step
    energy = np.inf

    def after_step(parameters, step, time, dt, info) -> bool:
        nonlocal theta_P, energy
        theta_P = parameters
        trial.last = case.state(parameters, step, time, dt, stepper.state())
        energy = energy if info.E_K is None else float(info.E_K.sum())
        return step >= begun + TRIAL_STEPS or info.stalled

    with case.time_stepper() as stepper:
        state = trial.last
        start = (theta_P, state.step, state.time, state.dt, state.stepper)
        stepper.solve(*start, lambda step: case.draw(step, theta_P), after_step)
    return energy


def _say(energies: dict[Candidate, float]) -> None:
    """Log the energies of the draws with each function. Local."""
    for name in dict.fromkeys(name for name, _ in energies):
        text = ", ".join(f"{E:.1e}" for (other, _), E in energies.items() if other == name)
        log.info("the energy after %d steps is %s with %s units", TRIAL_STEPS, text, name)
