"""Implicit steps in time that are projected to the network stage by stage.

A diagonally implicit Runge-Kutta step of u_t = N(u) solves, for i = 1 .. s,

    U_i = y_i + a_ii dt N(U_i, t + c_i dt),   y_i = u + dt sum_j<i a_ij K_j,   K_j = N(U_j),

each as the least-squares problem of flows/stage.py in the parameters of U_i. As in stiff solvers,
K_j = (U_j - y_j) / (a_jj dt) is used, because N would amplify the error of the projection. The
last stage is the new state (a_sj = b_j).

The error of a step is estimated by the embedded formula, or by two steps of half the size. Its
norm is that of L2 on the sample, i.e. the Gram norm of theta. A step is accepted if the error is at
most tolerance |u| dt / T, so that the errors of a march of length T add up to the tolerance.

References: Alexander, SIAM J. Numer. Anal. 14, 1977 (sdirk3); Hairer and Wanner, Solving Ordinary
Differential Equations II, table 6.5 (sdirk4).
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import torch

from nedhpc.config import Count, Positive, Section
from nedhpc.errors import FailedStepError, NonFiniteError
from nedhpc.flows.evolution import Evolution
from nedhpc.flows.stage import Pose
from nedhpc.solvers import SOLVERS
from nedhpc.steppers.base import StepInfo, StepRule
from nedhpc.steppers.ptc import Ptc

SAFETY, SHRINK, GROW = 0.8, 0.2, 3.0
"""Factor of the best dt, and the least and the largest ratio of a dt to the one before."""
MAX_REJECTIONS = 12
"""A march ends if so many trials of a step in a row were rejected."""
SLOW = 0.5
"""A stage is solved as well as the network can if an iteration leaves this share of its energy."""
LAST_LAYER_STEPS, LAST_LAYER_RTOL, LAST_LAYER_DAMPING = 2, 1e-15, 1e-14
"""Most Gauss-Newton steps in the last layer, and their cutoff and damping."""
NOISE = 30.0
"""An estimate below this many times the largest residual of a stage is noise: the weights of the
embedded formulas amplify the residuals as much. A shorter step would not make it smaller."""
CAP, HALF = 0.1, 0.5
"""A step is made shorter by the factor HALF, as long as that helps, if a projection's residual is
above the share CAP of the tolerance."""
STAGE_SHARE = 0.1
"""Residual of a stage, as a share of the error that the step may make, with which it is solved."""
TINY = 1e-300
FIRST_PTC_DT = 1e8
"""Time step of ptc with which a march begins; ptc makes it longer or shorter."""
MEMORY = ("spent", "projected", "ptc_dt")
"""Numbers that a march keeps from step to step."""


class MarchSettings(Section):
    """[stepper.midpoint], [stepper.sdirk3] and [stepper.sdirk4]."""

    adapt: Literal["auto", "none"] = "auto"
    """auto: dt follows from `tolerance`. none: dt is stepper.dt, or less to meet output.times."""
    tolerance: Positive = 1e-6
    """Aim for the relative L2 error at the end of the march, without the growth of errors."""
    max_projection_error: Positive = 1e-3
    """The march ends if a stage's residual, relative to u, is larger.

    With adapt = "auto" it also ends if the largest ones of all steps add up to more.
    """
    stage_tolerance: Positive = 1e-11
    """A stage is solved if its residual, relative to u, is at most this."""
    max_iterations: Count = 8
    """Largest number of Gauss-Newton steps of a stage."""
    damping: Positive = 1e-14
    """Damping of these steps. They get more if the energy does not fall otherwise."""


@dataclass(frozen=True, slots=True)
class Step:
    """A trial of a step."""

    theta_P: torch.Tensor
    E_K: np.ndarray
    error: float
    """Estimated error, relative to u."""
    projection: float
    """Largest residual of a stage, relative to u."""


class Projected(StepRule):
    """A diagonally implicit step; its memory is the part of the tolerance that is spent."""

    marches = True
    uses_metric = False
    memory_shapes = dict.fromkeys(MEMORY, "")
    order: int
    """Order of the error that the estimate measures, as a power of dt for one step."""
    Settings = MarchSettings
    flow: Evolution
    settings: MarchSettings

    def __init__(self, flow, settings):
        super().__init__(flow, settings)
        self.ptc_settings = Ptc.Settings(max_dt=1 / settings.damping, corrections=3)
        self.spent = self.projected = 0.0
        self.ptc_dt = FIRST_PTC_DT
        self.aim, self.is_linear = settings.stage_tolerance, flow.is_linear

    def state(self):
        return {name: getattr(self, name) for name in MEMORY}

    def load(self, state):
        for name in MEMORY:
            setattr(self, name, float(state[name]))

    def attempt(self, theta_P: torch.Tensor, t: float, dt: float) -> Step:
        """A step of size dt with its error estimate. Collective."""
        raise NotImplementedError

    def step(self, theta_P, t, dt):
        """One step of at most dt. Collective. Cost: some linearisations for each stage.

        Raises:
            FailedStepError: the network cannot follow the solution, or the estimated error stays
                too large for any dt.
        """
        settings, least = self.settings, np.inf
        taken, reason = dt, self._why_lost()
        for _ in range(0 if reason else MAX_REJECTIONS):
            taken = self._to_next_stop(t, dt)
            allowed = settings.tolerance * taken / self.flow.stops[-1]
            self.aim = settings.stage_tolerance
            if settings.adapt == "auto":
                self.aim = max(self.aim, STAGE_SHARE * allowed)
            trial, reason = self._tried(theta_P, t, taken)
            if settings.adapt == "none" and trial is None:
                break
            if trial is None:
                dt = SHRINK * taken
                continue
            ratio = trial.error / max(allowed, NOISE * trial.projection)
            # A shorter step changes u less, so that the network can follow it better.
            is_poor = CAP * settings.tolerance < trial.projection < least / 2
            if settings.adapt == "none" or ratio <= 1 and not is_poor:
                return self._accepted(trial, t, dt, taken, ratio)
            least, best = trial.projection, SAFETY * max(ratio, TINY) ** (-1 / (self.order - 1))
            dt = taken * max(SHRINK, min(HALF if is_poor else 1.0, best))
            reason = (
                f"its estimated error is {trial.error:.1e} of u (allowed: {allowed:.1e}), and the "
                f"residual of its projection {trial.projection:.1e}"
            )
        raise FailedStepError(
            f"the step from t = {t:.6g} with dt = {taken:.3g} failed: {reason}; likely causes are "
            "a network that is too small (network.hidden, network.periodic.harmonics), too few "
            "points (sampling.interior), a time step that is too long (stepper.dt with adapt = "
            "'none'), or a tolerance below what the network "
            f"reaches (stepper.{self.name}.tolerance)"
        )

    def _why_lost(self) -> str:
        """The reason why the march cannot go on, as far as it is known before a step; "" if it can.

        With a given dt, only the stages themselves are judged.
        """
        settings = self.settings
        if settings.adapt == "none" or self.projected <= settings.max_projection_error:
            return ""
        return (
            f"the residuals of the projections so far add up to {self.projected:.1e} of u, which "
            f"is above stepper.{self.name}.max_projection_error"
        )

    def _to_next_stop(self, t: float, dt: float) -> float:
        """The largest dt with which equal steps of at most dt end at the next stop."""
        left = next((stop - t for stop in self.flow.stops if stop > t * (1 + 1e-13)), dt)
        return left / max(1, ceil(left / dt * (1 - 1e-9)))

    def _tried(self, theta_P, t, dt) -> tuple[Step | None, str]:
        """(the trial, ""), or (None, the reason why there is none)."""
        try:
            trial = self.attempt(theta_P, t, dt)
        except NonFiniteError as error:
            return None, str(error)
        if not np.isfinite(trial.error):
            return None, "its result is not finite"
        if trial.projection > self.settings.max_projection_error:
            return None, (
                f"the residual of its projection to the network is {trial.projection:.1e} of u, "
                f"above stepper.{self.name}.max_projection_error"
            )
        return trial, ""

    def _accepted(self, trial: Step, t, dt, taken, ratio):
        self.spent += trial.error
        self.projected += trial.projection
        following = dt
        if self.settings.adapt == "auto":
            growth = SAFETY * max(ratio, TINY) ** (-1 / (self.order - 1))
            most = 1.0 if trial.projection > CAP / 2 * self.settings.tolerance else GROW
            following = taken * min(most, max(SHRINK, growth))
            # A step that was shortened to meet a stop tells nothing against the dt before it.
            following = max(following, dt) if taken < dt and ratio <= SAFETY else following
        info = StepInfo(taken, trial.E_K, projection_error=trial.projection, note=self._note(t))
        return trial.theta_P, following, info

    def _note(self, t: float) -> str:
        """A warning if the projections, not the time steps, limit the accuracy."""
        settings = self.settings
        if settings.adapt == "none" or self.projected <= max(settings.tolerance, self.spent):
            return ""
        return (
            f"at t = {t:.4g} the residuals of the projections add up to {self.projected:.1e} of u, "
            "more than the tolerance: the network limits the accuracy, not dt; use a larger "
            "network or more points"
        )

    def solve(self, pose: Pose, theta_P: torch.Tensor, size: float):
        """Solve a stage from theta. Collective.

        Args:
            pose: the stage.
            theta_P: first guess.
            size: root mean square of u.

        Returns:
            parameters (P,), energy by term, relative residual.
        """
        flow, settings = self.flow, self.settings
        flow.pose(pose)
        unit, before = flow.measure * size**2, np.inf
        if self.is_linear:
            theta_P, E_K = self._last_layer(theta_P, pose.t)
            residual = float(np.sqrt(2 * E_K.sum() / unit))
            if residual <= settings.max_projection_error:
                return theta_P, E_K, residual
        rule = Ptc(flow, self.ptc_settings)
        for _ in range(settings.max_iterations):
            # All layers move by the shortest step that nearly solves the stage; then the last layer
            # solves it as far as it can. The other way round, the last layer's weights grow.
            theta_P, self.ptc_dt, info = rule.step(theta_P, pose.t, self.ptc_dt)
            theta_P, E_K = self._last_layer(theta_P, pose.t)
            E = float(E_K.sum())
            residual = float(np.sqrt(2 * E / unit))
            is_slow = E > SLOW * before if info.dt else residual < settings.max_projection_error
            if residual <= self.aim or is_slow:
                break
            before = E
        self.ptc_dt = max(self.ptc_dt, FIRST_PTC_DT)
        return theta_P, E_K, residual

    def _last_layer(self, theta_P: torch.Tensor, t: float) -> tuple[torch.Tensor, np.ndarray]:
        """(theta, energy by term) after Gauss-Newton steps in the columns in which u is linear.

        The network does not bend along these columns, so that hardly any damping is needed. Without
        this, the residuals of stages were 10 to 1000 times as large.
        """
        flow = self.flow
        columns, E_K = flow.energy.ansatz.linear_columns, flow.energies(theta_P, t)
        if columns is None:
            return theta_P, E_K
        solver = SOLVERS["tsqr"](flow.comm, LAST_LAYER_RTOL)
        for _ in range(LAST_LAYER_STEPS):
            linear = flow.rows(theta_P, columns)
            with flow.phases("solve"):
                state = solver.init(linear.A, -linear.r_N)
                delta, _ = solver.solve_rows(state, LAST_LAYER_DAMPING)
            trial_P = theta_P.clone()
            trial_P[columns] += delta
            trial_K = flow.energies(trial_P, t)
            if not trial_K.sum() < E_K.sum():
                break
            is_slow = trial_K.sum() > SLOW * E_K.sum()
            theta_P, E_K = trial_P, trial_K
            if is_slow:
                break
        return theta_P, E_K


class Dirk(Projected):
    """A diagonally implicit Runge-Kutta method that is stiffly accurate."""

    A: tuple[tuple[float, ...], ...]
    """Rows of the tableau, up to the diagonal. The last one holds the weights b."""
    embedded: tuple[float, ...]
    """Weights of the embedded formula."""

    def attempt(self, theta_P, t, dt):
        flow, size = self.flow, float(self.flow.rms(self.flow.values(theta_P))[0])
        slopes, guess, worst = [], theta_P, 0.0
        for row in self.A:
            # The base y_i and dt K_i = (U_i - y_i) / a_ii as {network number: weight}.
            base = {0: 1.0}
            for a, slope in zip(row, slopes, strict=False):
                base = _plus(base, slope, a)
            networks = [theta_P, *self.stages] if slopes else [theta_P]
            pose = Pose(t + sum(row) * dt, row[-1] * dt, _of(base, networks))
            guess, E_K, residual = self.solve(pose, guess, size)
            worst = max(worst, residual)
            self.stages = [*networks[1:], guess]
            own = {len(self.stages): 1.0}
            slopes.append(_plus({}, _plus(own, base, -1.0), 1 / row[-1]))
        difference = {}
        for b, b_hat, slope in zip(self.A[-1], self.embedded, slopes, strict=True):
            difference = _plus(difference, slope, b - b_hat)
        values = [flow.values(theta_P), *map(flow.values, self.stages)]
        error = sum(weight * values[k] for k, weight in difference.items())
        return Step(guess, E_K, float(flow.rms(error)[0]) / size, worst)


def _plus(x: dict[int, float], y: dict[int, float], factor: float) -> dict[int, float]:
    """x + factor y, sums of networks by number."""
    return {k: x.get(k, 0.0) + factor * y.get(k, 0.0) for k in x | y}


def _of(weights: dict[int, float], networks) -> tuple:
    return tuple((weight, networks[k]) for k, weight in weights.items() if weight)


G = 0.43586652150845899942
"""Root of g^3 - 3 g^2 + 3 g / 2 - 1 / 6, for which sdirk3 is L-stable and of order 3."""


class Sdirk3(Dirk):
    """Alexander's method: order 3, L-stable, 3 stages, with an embedded formula of order 2."""

    name = "sdirk3"
    order = 3
    A = (
        (G,),
        ((1 - G) / 2, G),
        (-(6 * G**2 - 16 * G + 1) / 4, (6 * G**2 - 20 * G + 5) / 4, G),
    )
    embedded = (G / (1 - G), (1 - 2 * G) / (1 - G), 0.0)


class Sdirk4(Dirk):
    """Hairer and Wanner's method: order 4, L-stable, 5 stages, with an embedded order 3."""

    name = "sdirk4"
    order = 4
    A = (
        (1 / 4,),
        (1 / 2, 1 / 4),
        (17 / 50, -1 / 25, 1 / 4),
        (371 / 1360, -137 / 2720, 15 / 544, 1 / 4),
        (25 / 24, -49 / 48, 125 / 16, -85 / 12, 1 / 4),
    )
    embedded = (59 / 48, -17 / 96, 225 / 32, -85 / 12, 0.0)


class Midpoint(Projected):
    """The implicit midpoint rule: order 2, A-stable, symplectic; Gauss's method of one stage.

    u+ - u = dt N((u+ + u) / 2), solved for u+. The error estimate needs two steps of half the size
    and one of the whole, of which the result is the former.
    """

    name = "midpoint"
    order = 3

    def attempt(self, theta_P, t, dt):
        flow, size = self.flow, float(self.flow.rms(self.flow.values(theta_P))[0])
        if self.settings.adapt == "none":
            theta_P, E_K, residual = self._one(theta_P, t, dt, size, theta_P)
            return Step(theta_P, E_K, 0.0, residual)
        whole, _, worst = self._one(theta_P, t, dt, size, theta_P)
        half, _, first = self._one(theta_P, t, dt / 2, size, theta_P)
        end, E_K, second = self._one(half, t + dt / 2, dt / 2, size, whole)
        error = float(flow.rms(flow.values(end) - flow.values(whole))[0]) / size / 3
        return Step(end, E_K, error, max(worst, first, second))

    def _one(self, theta_P, t, dt, size, guess):
        pose = Pose(t + dt / 2, dt, ((1.0, theta_P),), 0.5, theta_P, t + dt)
        return self.solve(pose, guess, size)
