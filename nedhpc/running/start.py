"""The first state of a run: random parameters, a checkpoint's, or a fitted last layer.

Functions are collective on the case's comm.
"""

import copy
import dataclasses
import itertools
import logging
from collections.abc import Iterable
from math import floor, log2

import numpy as np
from torch import Tensor

from nedhpc.config import Config
from nedhpc.errors import UsageError, shortened
from nedhpc.files import checkpoint
from nedhpc.files.checkpoint import State
from nedhpc.files.record import RunRecord
from nedhpc.network import USUAL_ACTIVATION
from nedhpc.parallel.comm import on_rank_0
from nedhpc.plan import Plan
from nedhpc.running import eigen
from nedhpc.running.case import Case
from nedhpc.solvers import SOLVERS

log = logging.getLogger("nedhpc")

SCALES = np.geomspace(0.1, 300, 9)
"""Scales of the first layer that are tried, in units of 1 / (mean width of the domain)."""
LIKELY = 2.0
"""The scales near this one are tried first, because the time may end the search."""
SEARCH_SHARE, PROMISING_SHARE = 0.1, 0.4
"""Shares of run.max_wall_time from which on no other scales are tried. The second one is used if
the fit may be all that is needed."""
REFINEMENTS = 4
"""Number of times that the logarithmic distance to the best scale's neighbours is halved."""
DIRECTIONAL = 1e-6
"""Score above which each coordinate gets a scale of its own: u may vary faster along some."""
MAX_DIRECTIONS = 4
RATIOS, MAX_SWEEPS = (4.0, 2.0, 1.4), 3
"""Ratios by which one coordinate's scale is changed, and sweeps over all of them for each ratio."""
RTOL = 1e-15
"""Singular values below this share of the largest are cut off."""
MAX_ITERATIONS = 10
MAX_FLOPS = 5e10
"""Work above which run.start = "auto" does not fit the last layer: about ten seconds."""
USUAL_SIZE = 100.0
"""Norm of the last layer's weights from which a fit counts as ill-conditioned."""
FIRST_ROWS = 500
"""Rows of the first sample, if the config asks for more and the network is not much larger."""


def first_state(case: Case, draw: int = 0, wanted: float = np.inf) -> State:
    """The state at step 0, according to run.start. Collective.

    Args:
        case: the case.
        draw: number of the draw of random parameters.
        wanted: as for `last_layer`.

    Raises:
        UsageError: run.start = "last_layer" cannot be used.
    """
    return fresh(case, _blank(case), draw, wanted)


def _blank(case: Case) -> State:
    """A state without parameters, in the first window. Local."""
    config, plan = case.config, case.plan
    blank = State(np.empty(0), dict(plan.problem.coefficients), 0, 0.0, config.stepper.dt)
    if config.run.windows > 1:
        domain = plan.problem.domain
        start, end = float(domain.low[-1]), float(domain.high[-1])
        blank.window = (start, start + (end - start) / config.run.windows)
    return blank


def taken_over(case: Case, given: State, record: RunRecord) -> State:
    """The state at step 0 with the parameters of run.initial. Local.

    Args:
        case: the case.
        given: the state in that checkpoint.
        record: its record.

    Raises:
        UsageError: they belong to another network, or leave nothing to draw.
    """
    config, plan, blank = case.config, case.plan, _blank(case)
    if config.run.starts > 1:
        raise UsageError(
            f"run.starts = {config.run.starts} draws random parameters, and run.initial gives "
            "those of a checkpoint; remove one of the two"
        )
    here = checkpoint.layout(plan.ansatz)
    if not checkpoint.belongs(given, record, here):
        raise UsageError(
            f"run.initial = {config.run.initial!r} holds the parameters "
            f"{record.parameters}; this config's network has {shortened(', '.join(here))}"
        )
    theirs, ours = meaning(record.parsed(config.run.initial)), meaning(config)
    if theirs != ours:
        raise UsageError(
            f"run.initial = {config.run.initial!r} holds the parameters of a network with "
            f"{theirs}; this config's has {ours}; give the same"
        )
    known = given.coefficients.items()
    blank.coefficients |= {name: value for name, value in known if name in blank.coefficients}
    blank.theta_P, blank.scaling = given.theta_P, given.scaling
    return rebalanced(case, blank)


def meaning(config: Config) -> str:
    """The settings beside the layout that the meaning of theta depends on, as text. Local."""
    network = config.network
    if network.name is not None:
        words = [f"network.name = {network.name.rpartition(':')[2]!r}"]
        words.append(f"network.arguments = {network.arguments}")
    else:
        words = [f"network.activation = {network.activation or USUAL_ACTIVATION!r}"]
    words.append(f"network.embedding = {network.embedding!r}")
    if network.embedding == "fourier":
        scale, seed = network.fourier.scale, config.run.seed
        words.append(f"network.fourier.scale = {scale}, run.seed = {seed}")
    return ", ".join(words)


def fresh(case: Case, state: State, draw: int = 0, wanted: float = np.inf) -> State:
    """A state with new scales, parameters and balance, in the same window. Collective.

    Args:
        case: the case.
        state: window, pieces, coefficients and clock are kept.
        draw: number of the draw of random parameters.
        wanted: as for `last_layer`.

    Raises:
        UsageError: run.start = "last_layer" cannot be used.
    """
    config, ansatz = case.config, case.plan.ansatz
    seed = config.run.seed + draw
    state = dataclasses.replace(state, stepper={}, draw=0, selection={}, dt=config.stepper.dt)
    state.growth = first_growth(case.plan)
    leg = case.plan.leg(state)
    scaling = on_rank_0(case.comm, leg.first_scales)
    state = dataclasses.replace(state, scaling=scaling, reference_P=None)
    ansatz.scaling = case.plan.scaling(scaling)
    reason = why_no_last_layer(leg)
    if config.run.start == "last_layer" and reason:
        raise UsageError(f"run.start = 'last_layer' {reason}")
    if not fits_last_layer(leg):
        state.theta_P = ansatz.initial(seed)
    else:
        state.theta_P = ansatz.features(seed, 1.0, leg.domain.low, leg.domain.high)
        state = rebalanced(case, state)
        state.theta_P, state.coefficients = case.parameters.split(
            last_layer(case, state, seed, wanted)
        )
    state = rebalanced(case, state)
    if not state.pieces:
        return state
    # The window before may be a better first guess, e.g. if u changes little with time.
    before = rebalanced(case, dataclasses.replace(state, theta_P=_taken_over(case.plan, state)))
    states = [state, before]
    energies = [case.held_out_energy(case.take_up(candidate)) for candidate in states]
    return states[energies[1] < energies[0]]


def _taken_over(plan: Plan, state: State) -> np.ndarray:
    """Parameters of the window before, in the scales of the state. Local."""
    piece, ansatz = state.pieces[-1], copy.copy(plan.ansatz)
    if ansatz.linear_columns is None:
        return piece.theta_P
    ansatz.scaling = plan.scaling(piece.scaling)
    return ansatz.resized(piece.theta_P, plan.scaling(state.scaling))


def first_growth(plan: Plan) -> int:
    """How often the sample is halved at the start: early steps gain nothing from many points."""
    sampling = plan.config.sampling
    if sampling.adapt == "none" or sampling.rule == "grid" or sampling.resample_every:
        return 0
    num_parameters = plan.energy.num_parameters
    enough = min(2 * num_parameters, max(FIRST_ROWS, num_parameters // 4))
    return -max(0, floor(log2(plan.num_rows / enough)))


def rebalanced(case: Case, state: State) -> State:
    """The state with its rows balanced at its own parameters. Local."""
    if not case.plan.balanced:
        return state
    return dataclasses.replace(state, reference_P=state.parameters)


def why_no_last_layer(plan: Plan) -> str:
    """The reason why the last layer cannot be fitted; "" if it can. Local."""
    if plan.ansatz.linear_columns is None:
        return "needs the built-in network: which columns of a torch module are linear is not known"
    if not plan.energy.has_row_residual:
        return "needs Residual terms: a Density has no row residual to solve for"
    return ""


def fits_last_layer(leg: Plan) -> bool:
    """True if a start fits the last layer. Local."""
    start = leg.config.run.start
    if start == "random" or why_no_last_layer(leg):
        return False
    return start == "last_layer" or last_layer_flops(leg) <= MAX_FLOPS


def last_layer_flops(leg: Plan) -> float:
    """Floating-point operations of all trials of `last_layer` on all ranks, at the least. Local."""
    columns, functions = leg.ansatz.linear_columns, leg.problem.eigenfunctions.values()
    trials = len(SCALES) + 2 * REFINEMENTS
    flops = 2.0 * trials * leg.num_rows * (columns.stop - columns.start) ** 2
    # Of an eigenvalue problem, two sets of rows of one eigenfunction are factorised.
    share = sum(map(len, functions)) / len(functions) / len(leg.problem.outputs) if functions else 1
    return flops * (4 * share**3 if functions else 1)


def last_layer(case: Case, state: State, seed: int, wanted: float) -> Tensor:
    """Parameters (P,) of random features, with the last layer at its steady state. Collective.

    The last layer holds the columns in which u is linear. The flow restricted to them reaches its
    steady state in one least-squares solve if the terms are linear in u, else in a few Gauss-Newton
    steps (random features, Huang et al. 2006). The scale of the features is the one with
    the least energy on held-out points, and is then refined; if the fit is still poor, each
    coordinate's scale is refined by itself. The time may end the search. Cost: one N x P_last
    factorisation for each trial.

    Args:
        case: the case.
        state: gives the window, the scales and the balance.
        seed: of the random features.
        wanted: a start with more energy is of no use, so that a search that is far from it ends.
    """
    ansatz = case.plan.ansatz
    case.begin()
    case.take_up(state)
    low, high = case.leg.domain.low, case.leg.domain.high
    width = float(np.mean(ansatz.scaling.unit(high) - ansatz.scaling.unit(low)))
    dim, is_eigen = ansatz.widths[0], bool(case.plan.problem.eigenvalues)
    solve = eigen.solve if is_eigen else solve_last_layer
    tried: dict[tuple[float, ...], tuple[float, Tensor, float]] = {}
    share = SEARCH_SHARE

    def score(scale_D: tuple[float, ...]) -> float:
        if scale_D not in tried:
            if tried and case.has_spent(share):
                return np.inf
            theta_P = ansatz.features(seed, np.array([scale_D]) / width, low, high)
            tried[scale_D] = solve(case, case.parameters.join(theta_P, state.coefficients))
        return tried[scale_D][0]

    def best_of(scale_D, ratio, axes):
        changed = (scaled(scale_D, factor, axes) for factor in (1 / ratio, ratio))
        return min((scale_D, *changed), key=score)

    nearest = sorted(SCALES, key=lambda scale: abs(np.log(scale / LIKELY)))
    best = min(((scale,) * dim for scale in nearest), key=score)
    if not tried[best][0] < wanted**0.5:
        return tried[best][1]
    share = SEARCH_SHARE if np.isinf(wanted) else PROMISING_SHARE
    ratio = SCALES[1] / SCALES[0]
    for _ in range(REFINEMENTS):
        ratio **= 0.5
        best = best_of(best, ratio, range(dim))
    if 1 < dim <= MAX_DIRECTIONS and tried[best][0] > DIRECTIONAL:
        for ratio, _ in itertools.product(RATIOS, range(MAX_SWEEPS)):
            for axis in range(dim):
                best = best_of(best, ratio, (axis,))
    if case.comm.rank == 0:
        scales = ", ".join(f"{scale / width:.3g}" for scale in dict.fromkeys(best))
        log.info("last-layer start: first-layer scale %s, energy %.3g", scales, tried[best][2])
    return eigen.refined(case, tried[best][1]) if is_eigen else tried[best][1]


def scaled(scale_D: tuple[float, ...], factor: float, axes: Iterable[int]) -> tuple[float, ...]:
    """The scales, of which those of some axes are multiplied by a factor. Local."""
    return tuple(factor * scale if d in axes else scale for d, scale in enumerate(scale_D))


def solve_last_layer(case: Case, theta_P: Tensor) -> tuple[float, Tensor, float]:
    """(score, theta, energy) of the last layer's solution.

    The score is the larger of the energy and that on held-out points, times the size of the last
    layer's weights if they are large: features that nearly depend on each other fit well with huge
    weights of both signs, but the flow can hardly move from such a state.

    Collective.
    """
    flow, columns = case.flow, case.plan.ansatz.linear_columns
    solver = SOLVERS["tsqr"](case.comm, RTOL)
    E = float(flow.energies(theta_P, 0.0).sum())
    for _ in range(MAX_ITERATIONS):
        linear = flow.rows(theta_P, columns)
        delta, _ = solver.solve_rows(solver.init(linear.A, -linear.r_N))
        trial = theta_P.clone()
        trial[columns] += delta
        E_trial = float(flow.energies(trial, 0.0).sum())
        if not E_trial < E:
            break
        is_small_gain = E_trial > 0.5 * E
        theta_P, E = trial, E_trial
        if is_small_gain:
            break
    size = float(theta_P[columns].norm())
    return max(E, case.held_out_energy(theta_P)) * (1 + size / USUAL_SIZE), theta_P, E
