"""Explicit steps of a march in time: the parameters follow the projection of N(u).

    theta_dot = argmin sum_q w_q |J_q theta_dot - N_q|^2 + eps |theta_dot|^2

is stepped by a type of PETSc's TS. The tangent space holds stiff directions, with small singular
values of J, which eps damps. A small eps makes the projection exact and dt small, a large one the
other way round. So both follow from the tolerance: eps is the largest one with which the residual
of the projection uses no more than its share of it (discrepancy principle), and dt follows from the
estimated error. The norm of both is that of L2, i.e. the Gram norm of theta.

References: Du and Zaki, Phys. Rev. E 104, 2021; Bruna, Peherstorfer and Vanden-Eijnden, J. Comput.
Phys. 496, 2024; Berman and Peherstorfer, arXiv:2310.04867 (random columns).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from nedhpc.config import Positive
from nedhpc.errors import NonFiniteError
from nedhpc.rows.held import dense
from nedhpc.steppers.marching import NUMBERS, Marching, MarchSettings, Step


@dataclass(frozen=True, slots=True)
class Method:
    """A type of PETSc's TS."""

    kind: str
    subtype: str
    order: int
    error: tuple[float, ...] = ()
    """Weights b minus those of the embedded formula; (): the estimate is by two half steps.

    That of rk2a has order 1 only, so that two half steps lead to far longer steps.
    """


METHODS = {
    "euler": Method("euler", "", 1),
    "ssprks2": Method("ssp", "rks2", 2),
    "ssprks3": Method("ssp", "rks3", 3),
    "ssprk104": Method("ssp", "rk104", 4),
    "rk1fe": Method("rk", "1fe", 1),
    "rk2a": Method("rk", "2a", 2),
    "rk2b": Method("rk", "2b", 2),
    "rk3": Method("rk", "3", 3),
    "rk3bs": Method("rk", "3bs", 3, (-5 / 72, 1 / 12, 1 / 9, -1 / 8)),
    "rk4": Method("rk", "4", 4),
    "rk5f": Method("rk", "5f", 5),
    "rk5dp": Method(
        "rk",
        "5dp",
        5,
        (
            35 / 384 - 5179 / 57600,
            0.0,
            500 / 1113 - 7571 / 16695,
            125 / 192 - 393 / 640,
            -2187 / 6784 + 92097 / 339200,
            11 / 84 - 187 / 2100,
            -1 / 40,
        ),
    ),
    "rk5bs": Method("rk", "5bs", 5),
    "rk6vr": Method("rk", "6vr", 6),
    "rk7vr": Method("rk", "7vr", 7),
    "rk8vr": Method("rk", "8vr", 8),
}
"""The explicit types of PETSc's TS by name."""
SHARE = 0.3
"""Share of the tolerance that the residuals of the projections may use."""
NEAR = 2.0
"""Ratio to the least possible residual up to which one is good enough, if that share is less."""
EPS = np.geomspace(1e-2, 1e-20, 37)
"""Trials of eps, relative to the square of J's largest singular value."""
STREAM = 0x52534E47
"""Key of the random columns."""


class ExplicitSettings(MarchSettings):
    """[stepper.explicit]."""

    method: Literal[*METHODS] = "rk5dp"  # pyright: ignore
    """Type of PETSc's TS. rk3bs and rk5dp have embedded error estimates."""
    eps: Literal["auto"] | Positive = "auto"
    """Tikhonov parameter of the projection, in units of the square of J's largest singular value.

    auto: it follows from `tolerance` in each step.
    """
    columns: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the parameters that a step moves; they are drawn at random for each step."""


class Explicit(Marching):
    """An explicit step; it keeps the number of steps, by which random columns are drawn."""

    name = "explicit"
    numbers = (*NUMBERS, "count")
    memory_shapes = Marching.memory_shapes | {"count": ""}
    remedy = (
        "a stiff equation (stepper.type = 'sdirk4' takes longer steps), a time step that is too "
        "long (stepper.dt with adapt = 'none')"
    )
    Settings = ExplicitSettings
    settings: ExplicitSettings

    def __init__(self, flow, settings):
        super().__init__(flow, settings)
        self.method = METHODS[settings.method]
        self.order = self.method.order + (not self.method.error)
        self.count = 0.0

    def attempt(self, theta_P, t, dt):
        size = float(self.flow.rms(self.flow.values(theta_P))[0])
        tangent = Tangent(self, theta_P, t, dt, size)
        end, slopes_P = tangent.step(theta_P, t, dt)
        error = 0.0
        if self.method.error:
            pairs = zip(self.method.error, slopes_P, strict=True)
            error = self._distance(end, end - dt * sum(d * slope for d, slope in pairs), size)
        elif self.settings.adapt == "auto":
            whole, half = end, tangent.step(theta_P, t, dt / 2)[0]
            end = tangent.step(half, t + dt / 2, dt / 2)[0]
            error = self._distance(end, whole, size) / (2**self.method.order - 1)
        self.flow.rest(end, t + dt)
        E_K = self.flow.energies(end, t + dt)
        if not np.isfinite(E_K).all():
            raise NonFiniteError("its result is not finite")
        return Step(end, E_K, error, dt * float(np.mean(tangent.residuals)) / size)

    def _accepted(self, *arguments):
        self.count += 1
        return super()._accepted(*arguments)

    def _distance(self, theta_P, other_P, size):
        """|u - u_other| / |u|."""
        difference = self.flow.values(theta_P) - self.flow.values(other_P)
        return float(self.flow.rms(difference)[0]) / size


class Tangent:
    """The velocity in one step: its columns and its eps are fixed.

    Args:
        rule: the stepper.
        theta_P: start of the step, (P,).
        t: its time.
        dt: size of the step.
        size: root mean square of u.
    """

    def __init__(self, rule: Explicit, theta_P: torch.Tensor, t: float, dt: float, size: float):
        self.rule, self.flow, self.dt, self.like = rule, rule.flow, dt, theta_P
        self.unit = float(np.sqrt(self.flow.measure))
        self.residuals: list[float] = []
        """|J theta_dot - N| of the stages, each a root mean square."""
        energy = self.flow.energy
        linear = energy.ansatz.linear_columns if self.flow.is_linear else None
        self.columns = linear or energy.all_columns
        self.index: np.ndarray | None = None
        """Numbers of the columns that move among these; None: all."""
        share, number = rule.settings.columns, self.columns.stop - self.columns.start
        if share < 1:
            rng = np.random.Generator(np.random.Philox(key=(STREAM, int(rule.count))))
            self.index = np.sort(rng.choice(number, max(1, round(share * number)), replace=False))
        self.eps: float | None = None
        self._share = SHARE * rule.settings.tolerance * size / self.flow.stops[-1]

    def step(self, theta_P: torch.Tensor, t: float, dt: float):
        """(theta after a step, the slopes of its stages), (P,) each. Collective."""
        from nedhpc.steppers.ts.one_step import one_step

        method = self.rule.method
        start = theta_P.double().cpu().numpy()
        end, slopes = one_step(method.kind, method.subtype, self._velocity, start, t, dt)
        return torch.as_tensor(end).to(theta_P), [torch.as_tensor(f).to(theta_P) for f in slopes]

    def _velocity(self, t: float, y_P: np.ndarray) -> np.ndarray:
        """theta_dot (P,). Collective."""
        flow, theta_P = self.flow, torch.as_tensor(y_P).to(self.like)
        A, b_N = flow.tangent(theta_P, t, self.dt, self.columns)
        if self.index is not None:
            A = dense(torch.cat([block for _, block in A.blocks()])[:, self.index])
        with flow.phases("solve"):
            state = flow.solver.init(A, b_N)
            if self.eps is None:
                self.eps = self._chosen(state)
            x, info = flow.solver.solve_rows(state, self.eps)
        found = np.zeros(len(y_P))
        moved = found[self.columns]
        moved[slice(None) if self.index is None else self.index] = x.double().cpu().numpy()
        if not np.isfinite(found).all():
            raise NonFiniteError(f"theta_dot is not finite at t = {t:.6g}")
        self.residuals.append(info.residual / self.unit)
        return found

    def _chosen(self, state) -> float:
        """The largest eps with which the residual is within its share, or nearly the least one."""
        solver, settings = self.flow.solver, self.rule.settings
        largest = solver.solve_rows(state, 0.0)[1].sigma_max ** 2
        if settings.eps != "auto":
            return settings.eps * largest
        least = solver.solve_rows(state, EPS[-1] * largest)[1].residual / self.unit
        limit = max(self._share, NEAR * least)
        # The residual grows with eps, so that bisection finds it.
        low, high = 0, len(EPS) - 1
        while low < high:
            middle = (low + high) // 2
            residual = solver.solve_rows(state, EPS[middle] * largest)[1].residual / self.unit
            low, high = (low, middle) if residual <= limit else (middle + 1, high)
        return float(EPS[low] * largest)
