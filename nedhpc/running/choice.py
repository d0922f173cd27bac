"""The start of a new run: the best of some candidates after a few steps of each. Collective.

The candidates are run.starts draws of the random parameters, with tanh and with sine units if the
config gives no activation function. The one with the least energy on held-out points is taken. If
there are several ranks, groups of them try different candidates at the same time.

On smooth solutions sine units converge faster: a hundred times less energy after five steps, three
times less error after half a minute. They fail at fronts, which tanh units follow (measured on the
problems of scripts/bench_trust.py).
"""

import itertools
import logging

import numpy as np

from nedhpc.errors import FailedStepError, NonFiniteError, UsageError
from nedhpc.files.checkpoint import State
from nedhpc.parallel.comm import agreed
from nedhpc.running.case import Case
from nedhpc.running.start import first_state, fits_last_layer

log = logging.getLogger("nedhpc")

OTHER = "sin"
"""The function that is tried beside the usual one."""
TRIAL_STEPS = 8
MAX_FLOPS = 1e11
"""Work of the trial above which only one function is tried: about twenty seconds."""
GOOD = 1e-12
"""Balanced held-out energy of a start below which no other function is tried."""

Candidate = tuple[str, int]
"""Name of the activation function, and number of the draw of random parameters."""


def first(case: Case, is_open: bool) -> tuple[Case, State]:
    """The case and the first state of a new run. Collective.

    The run is the same as if its config gave the function that is taken.

    Args:
        case: a case with the usual activation function.
        is_open: True if the config gives no activation function.

    Raises:
        UsageError: as `first_state`.
    """
    usual, draws = case.config.network.activation, range(max(1, case.config.run.starts))
    state = first_state(case)
    is_open = is_open and _can_try(case) and case.held_out_energy(case.take_up(state)) > GOOD
    candidates = list(itertools.product((usual, OTHER) if is_open else (usual,), draws))
    if len(candidates) == 1:
        return case, state
    (activation, draw), state = _best(case, candidates, state)
    state.adaptation["first_draw"] = draw
    return (case if activation == usual else _other(case, case.comm, activation)), state


def _can_try(case: Case) -> bool:
    """True if a few steps can show which function is better. Local."""
    config, leg = case.config, case.leg
    flops = 2.0 * leg.num_rows * leg.energy.num_parameters**2  # the same on any number of ranks
    is_short = 2 * TRIAL_STEPS * flops < MAX_FLOPS and config.run.max_steps > TRIAL_STEPS
    is_fitted = config.run.initial is None and fits_last_layer(leg)
    return is_short and is_fitted and case.plan.stepper.lowers_energy


def _best(case: Case, candidates: list[Candidate], first: State) -> tuple[Candidate, State]:
    """The candidate with the least energy after some steps, and its first state. Collective.

    `first` is the first state of the first candidate.
    """
    comm = case.comm
    num_groups = _num_groups(case, len(candidates))
    mine = comm.rank * num_groups // comm.size
    group = comm.Split(mine, comm.rank)
    try:
        known = {candidates[0]: first}
        tried = agreed(comm, _tried, case, group, candidates[mine::num_groups], known)
        is_first = group.rank == 0
    finally:
        group.Free()
    everyone = comm.allgather([E for E, _ in tried] if is_first else None)
    energies = np.full(len(candidates), np.inf)
    groups = [found for found in everyone if found is not None]
    for number, found in enumerate(groups):
        energies[number::num_groups] = found
    best = int(np.argmin(energies))
    root = [rank for rank, found in enumerate(everyone) if found is not None][best % num_groups]
    state = comm.bcast(tried[best // num_groups][1] if comm.rank == root else None, root)
    if comm.rank == 0:
        _say(candidates, energies)
    return candidates[best], state


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


def _tried(
    case: Case, group, candidates: list[Candidate], known: dict[Candidate, State]
) -> list[tuple[float, State]]:
    """Energy after some steps and first state of each candidate. Collective on the group."""
    found = []
    for candidate in candidates:
        activation, draw = candidate
        other = _other(case, group, activation)
        state = known.get(candidate) or first_state(other, draw)
        found.append((_energy_after_steps(other, state), state))
    return found


def _other(case: Case, comm, activation: str) -> Case:
    """The case with another activation function, on a group of the ranks. Collective on comm."""
    plan = case.plan.variant(activation=activation, num_ranks=comm.size)
    return Case(comm, plan, device=case.device)


def _energy_after_steps(case: Case, state: State) -> float:
    """Energy on held-out points after TRIAL_STEPS steps; infinity if they fail. Collective."""
    theta_P = case.take_up(state)

    def after_step(parameters, step, time, dt, info) -> bool:
        nonlocal theta_P
        theta_P = parameters.clone()
        return step >= TRIAL_STEPS or info.stalled

    try:
        with case.time_stepper() as stepper:
            start = (theta_P, state.step, state.time, state.dt, state.stepper)
            stepper.solve(*start, lambda step: case.draw(step, theta_P), after_step)
    except (NonFiniteError, FailedStepError):
        return np.inf
    energy = case.held_out_energy(theta_P)
    return energy if np.isfinite(energy) else np.inf


def _say(candidates: list[Candidate], energies: np.ndarray) -> None:
    """Log the energy of each function's best draw, or of each draw. Local."""
    names = list(dict.fromkeys(name for name, _ in candidates))
    for name in names:
        found = [
            f"{E:.1e}" for (other, _), E in zip(candidates, energies, strict=True) if other == name
        ]
        text = "the energy after %d steps is %s with %s units"
        log.info(text, TRIAL_STEPS, ", ".join(found), name)
