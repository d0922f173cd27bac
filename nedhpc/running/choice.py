"""The activation function of a new run, if the config gives none. Collective.

Both functions make some steps, and the one with less energy on held-out points is taken. On smooth
solutions sine units converge faster: a hundred times less energy after five steps, three times less
error after half a minute. They fail at fronts, which tanh units follow (measured on the problems of
scripts/bench_trust.py).
"""

import logging

import numpy as np

from nedhpc.errors import FailedStepError, NonFiniteError
from nedhpc.files.checkpoint import State
from nedhpc.running.case import Case
from nedhpc.running.start import first_state, fits_last_layer

log = logging.getLogger("nedhpc")

OTHER = "sin"
"""The function that is tried beside the usual one."""
TRIAL_STEPS = 8
MAX_FLOPS = 1e11
"""Work of the trial above which nothing is tried: about twenty seconds."""
GOOD = 1e-12
"""Balanced held-out energy of a start below which nothing is tried."""


def first(case: Case, is_open: bool) -> tuple[Case, State]:
    """The case and the first state of a new run. Collective.

    The run is the same as if its config gave the function that is taken.

    Args:
        case: a case with the usual activation function.
        is_open: True if the config gives no activation function.

    Raises:
        UsageError: as `first_state`.
    """
    state = first_state(case)
    if not (is_open and _can_try(case) and case.held_out_energy(case.take_up(state)) > GOOD):
        return case, state
    other = Case(case.comm, case.plan.with_activation(OTHER))
    other_state = first_state(other)
    energies = [_energy_after_steps(*start) for start in ((case, state), (other, other_state))]
    if case.comm.rank == 0:
        names = (case.config.network.activation, OTHER)
        text = " and ".join(f"{E:.1e} with {name}" for E, name in zip(energies, names, strict=True))
        log.info("activation: the energy after %d steps is %s units", TRIAL_STEPS, text)
    return (other, other_state) if energies[1] < energies[0] else (case, state)


def _can_try(case: Case) -> bool:
    """True if a few steps can show which function is better. Local."""
    config, leg = case.config, case.leg
    flops = 2.0 * leg.num_rows * leg.energy.num_parameters**2  # the same on any number of ranks
    is_short = 2 * TRIAL_STEPS * flops < MAX_FLOPS and config.run.max_steps > TRIAL_STEPS
    is_fitted = config.run.initial is None and fits_last_layer(leg)
    return is_short and is_fitted and case.plan.stepper.lowers_energy


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
