"""Implicit steps in time that are projected to the network stage by stage.

A diagonally implicit Runge-Kutta step of u_t = N(u) solves, for i = 1 .. s,

    U_i = y_i + a_ii dt N(U_i, t + c_i dt),   y_i = u + dt sum_j<i a_ij K_j,   K_j = N(U_j),

each as the least-squares problem of flows/stage.py in the parameters of U_i. As in stiff solvers,
K_j = (U_j - y_j) / (a_jj dt) is used, because N would amplify the error of the projection. The
last stage is the new state (a_sj = b_j).

References: Alexander, SIAM J. Numer. Anal. 14, 1977 (sdirk3); Hairer and Wanner, Solving Ordinary
Differential Equations II, table 6.5 (sdirk4).
"""

import numpy as np
import torch

from nedhpc.config import Count, Positive
from nedhpc.flows.stage import Pose
from nedhpc.solvers import SOLVERS
from nedhpc.steppers.marching import NUMBERS, Marching, MarchSettings, Step
from nedhpc.steppers.ptc import Ptc

SLOW = 0.5
"""A stage is solved as well as the network can if an iteration leaves this share of its energy."""
LAST_LAYER_STEPS, LAST_LAYER_RTOL, LAST_LAYER_DAMPING = 2, 1e-15, 1e-14
"""Most Gauss-Newton steps in the last layer, and their cutoff and damping."""
STAGE_SHARE = 0.1
"""Residual of a stage, as a share of the error that the step may make, with which it is solved."""
FIRST_PTC_DT = 1e8
"""Time step of ptc with which a march begins; ptc makes it longer or shorter."""


class StageSettings(MarchSettings):
    """[stepper.midpoint], [stepper.sdirk3] and [stepper.sdirk4]."""

    stage_tolerance: Positive = 1e-11
    """A stage is solved if its residual, relative to u, is at most this."""
    max_iterations: Count = 8
    """Largest number of Gauss-Newton steps of a stage."""
    damping: Positive = 1e-14
    """Damping of these steps. They get more if the energy does not fall otherwise."""


class Projected(Marching):
    """A diagonally implicit step."""

    numbers = (*NUMBERS, "ptc_dt")
    memory_shapes = Marching.memory_shapes | {"ptc_dt": ""}
    noise = 30.0  # the weights of the embedded formulas amplify the residuals of stages as much
    is_shortened = True
    Settings = StageSettings
    settings: StageSettings

    def __init__(self, flow, settings):
        super().__init__(flow, settings)
        self.ptc_settings = Ptc.Settings(max_dt=1 / settings.damping, corrections=3)
        self.ptc_dt = FIRST_PTC_DT

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
        unit, before, aim = flow.measure * size**2, np.inf, settings.stage_tolerance
        if settings.adapt == "auto":
            aim = max(aim, STAGE_SHARE * self.allowed)
        if flow.is_linear:
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
            if residual <= aim or is_slow:
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
