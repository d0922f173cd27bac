"""The start of a march in time: a fit of the network to u0. Collective.

The first layer gets random features, the last layer is fitted, and ptc does the rest. If the scale
of the features is too small, the units nearly depend on each other, and u0 is a small difference of
large terms, from which the march can hardly move. So the largest scale is taken whose fit is nearly
as good as the best one with moderate weights.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from nedhpc import steppers
from nedhpc.errors import UsageError
from nedhpc.files.checkpoint import State
from nedhpc.files.record import RunRecord
from nedhpc.flows.stage import fit_term
from nedhpc.march import FIT_DT, fit_weights, stage_of
from nedhpc.parallel.comm import total
from nedhpc.plan import Plan
from nedhpc.problems.march import start_values
from nedhpc.running.case import Case
from nedhpc.running.start import first_state, solve_last_layer, taken_over
from nedhpc.steppers.ptc import Ptc

log = logging.getLogger("nedhpc")

START_ERROR = "start_error"
"""Name of the relative L2 error of the fit in the state's memory and in the facts of a run."""
SCALES = (16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.25)
"""Scales of the features for a domain of width one."""
MODERATE, NEAR, EXACT = 1e4, 10.0, 1e-10
"""Largest weight of the last layer, ratio of two errors that are nearly as good, and the error
below which none is better than another."""
GOOD, AIM = 1e-8, 1e-9
"""Relative L2 error with which no other scale is tried, and the one at which a fit ends."""
SHARE = 1e-4
"""A fit ends too if its error is at most this share of the march's tolerance."""
ENOUGH = 1e-6
"""Error of a fit with which random features are kept, if only the last layer will move."""
MAX_STEPS, CHECK_EVERY, SLOW = 200, 10, 0.7
"""Most steps of a fit, and the share of the energy that CHECK_EVERY steps may leave at most."""


def fitted(case: Case) -> State:
    """The state at t = 0, with a network that fits u0 and the derivatives that N uses. Collective.

    Args:
        case: the case of the march.

    Raises:
        UsageError: the error of the fit is above run.max_start_error.
    """
    config = case.config
    fit = _fit_case(case, case.plan.fit())
    state = first_state(fit)

    best, error = _best(fit, state, lambda x_ND: _u0(case, x_ND), config.run.seed)
    _check(
        case,
        error,
        "a network that is too small for u0 (network.hidden, network.periodic.harmonics), too few "
        "points (sampling.interior), or a `start` that the network cannot represent, such as a "
        "jump or a function that is not periodic",
    )
    state.theta_P, _ = case.parameters.split(best)
    memory = {START_ERROR: error}
    return dataclasses.replace(state, dt=config.stepper.dt, adaptation=memory, stepper={})


def continued(case: Case, given: State, record: RunRecord) -> State:
    """The state of run.initial, at its time if a march wrote it, else at t = 0. Collective.

    Args:
        case: the case of the march.
        given: the state in that checkpoint.
        record: its record.

    Raises:
        UsageError: as `start.taken_over`; the march would end before that time; or the error of the
            state as a fit of u0 is above run.max_start_error.
    """
    state, config = taken_over(case, given, record), case.config
    if steppers.find(record.parsed().stepper.type).marches:
        state.time = given.time
    if state.time >= config.run.max_time:
        raise UsageError(
            f"run.initial = {config.run.initial!r} holds the state at t = {state.time:g}, and the "
            f"march would end at run.max_time = {config.run.max_time:g}; give a later end"
        )
    if state.time == 0:
        error = fit_error(case, case.take_up(state), lambda x_ND: _u0(case, x_ND))
        _check(case, error, f"that run.initial = {config.run.initial!r} solves another problem")
        state.adaptation = {START_ERROR: error}
    return state


def refitted(case: Case, state: State) -> State | None:
    """A state with other features that fits the present u; None if there is none. Collective.

    There is none if [stepper.<type>] refits does not allow it, or if the fit is poor.

    Args:
        case: the case of the march.
        state: a state after a step.
    """
    plan, memory = case.plan, state.stepper
    limits = plan.stepper_settings
    if not plan.problem.is_march or not memory.get("refits", np.inf) < limits.refits:
        return None
    theta_P, stage = case.take_up(state), stage_of(plan.terms)

    def u(x_ND):
        return case.evaluation.u_now(theta_P, x_ND)

    def jets(x_ND, layout):
        return plan.ansatz.jets(theta_P[: plan.energy.num_network], x_ND, layout)

    x_ND = case.held_out["interior"].x_ND
    j_NCM = jets(x_ND, stage.layout)
    sums = [len(x_ND), *torch.cat([j_NCM[:, 0].sum(0), j_NCM.square().sum(0).flatten()]).tolist()]
    number, *sums = total(case.comm, sums)
    mean_M, rms_CM = np.split(np.array(sums) / number, [j_NCM.shape[2]])
    rms_CM = np.sqrt(rms_CM.reshape(j_NCM.shape[1:]))
    spread_M = np.sqrt(np.maximum(rms_CM[0] ** 2 - mean_M**2, 0))
    weights = fit_weights(spread_M, rms_CM)
    fit = _fit_case(case, plan.fit([fit_term(stage, jets, weights.to(x_ND))]))
    blank = dataclasses.replace(state, stepper={}, dt=FIT_DT)
    best, error = _best(fit, blank, u, case.config.run.seed + state.step)
    if case.comm.rank == 0:
        log.warning("at t = %.4g the network is fitted again: error %.1e", state.time, error)
    spent = {"refits": memory["refits"] + 1, "projected": memory["projected"] + error}
    if best is None or spent["projected"] > limits.max_projection_error:
        return None
    found, _ = case.parameters.split(best)
    return dataclasses.replace(state, theta_P=found, stepper=memory | spent)


def _u0(case: Case, x_ND: Tensor) -> Tensor:
    """u0 (N, M) at points. Local."""
    return start_values(case.plan.problem, x_ND.double().cpu()).to(x_ND)


def _fit_case(case: Case, plan: Plan) -> Case:
    """The case of a fit, which starts from random parameters."""
    fit = Case(case.comm, plan, device=case.device)
    random = fit.config.run.model_copy(update={"start": "random"})
    fit.config = fit.config.model_copy(update={"run": random})
    return fit


def _best(
    fit: Case, state: State, u: Callable[[Tensor], Tensor], seed: int
) -> tuple[Tensor | None, float]:
    """The best parameters (P,) that some candidates lead to, and their error."""
    best, error = None, np.inf
    for theta_P in _candidates(fit, state, u, seed):
        theta_P = _descended(fit, theta_P, state.dt, u)
        found = fit_error(fit, theta_P, u)
        if found < error:
            best, error = theta_P, found
        if error <= max(GOOD, _aim(fit)):
            break
    return best, error


def _check(case: Case, error: float, causes: str) -> None:
    """Raise UsageError if the error of the start is above the limit. Local."""
    limit = case.config.run.max_start_error
    if case.comm.rank == 0:
        log.info("the start fits u0 with a relative L2 error of %.1e", error)
    if not error <= limit:
        raise UsageError(
            f"the network fits u0 with a relative L2 error of {error:.1e}, above "
            f"run.max_start_error = {limit:g}; likely causes are {causes}"
        )


def _candidates(fit: Case, state: State, u: Callable, seed: int) -> Iterator[Tensor]:
    """Parameters from which a fit begins, (P,) each, the best scale of features first."""
    ansatz = fit.plan.ansatz
    theta_P = fit.take_up(state)
    if ansatz.linear_columns is None or fit.plan.config.run.start == "random":
        yield theta_P
        return
    low, high = fit.leg.domain.low, fit.leg.domain.high
    width = float(np.mean(ansatz.scaling.unit(high) - ansatz.scaling.unit(low)))
    found = []
    for scale in SCALES:
        features = ansatz.features(seed, scale / width, low, high)
        theta_P = solve_last_layer(fit, fit.parameters.join(features, {}))[1]
        size = float(theta_P[ansatz.linear_columns].abs().max())
        found.append((max(EXACT, fit_error(fit, theta_P, u)), size, theta_P))
    limit = NEAR * min(found, key=lambda one: (one[1] > MODERATE, one[0]))[0]
    first = next(one for one in found if one[0] <= limit)
    yield first[2]
    for one in sorted(found, key=lambda one: one[:2]):
        if one is not first:
            yield one[2]


def _descended(fit: Case, theta_P: Tensor, dt: float, u: Callable) -> Tensor:
    """The parameters after steps of ptc, as long as they help.

    If only the last layer will move, random features are better than those that suit u0 only.
    """
    is_linear = fit.config.flow.parameters == "last_layer"
    aim = _aim(fit)
    enough = max(aim, min(ENOUGH, fit.config.run.max_start_error)) if is_linear else aim
    if fit_error(fit, theta_P, u) < enough:
        return theta_P
    rule, energies = Ptc(fit.flow, Ptc.Settings()), []
    for step in range(MAX_STEPS):
        theta_P, dt, info = rule.step(theta_P, 0.0, dt)
        energies.append(float(info.E_K.sum()))
        is_checked = step % CHECK_EVERY == 0
        is_slow = step >= CHECK_EVERY and energies[-1] > SLOW * energies[-1 - CHECK_EVERY]
        if info.stalled or is_slow or is_checked and fit_error(fit, theta_P, u) < aim:
            break
    return theta_P


def _aim(fit: Case) -> float:
    """The error at which a fit ends. Local."""
    return max(AIM, SHARE * fit.plan.stepper_settings.tolerance)


def fit_error(fit: Case, theta_P: Tensor, given: Callable[[Tensor], Tensor]) -> float:
    """|u - u_given| / |u_given| on the held-out points. Collective."""
    x_ND = fit.held_out["interior"].x_ND
    wanted = given(x_ND)
    error = fit.evaluation.u_now(theta_P, x_ND) - wanted
    sums = total(fit.comm, [float(v.double().square().sum()) for v in (error, wanted)])
    return float(np.sqrt(sums[0] / (sums[1] or 1.0)))
