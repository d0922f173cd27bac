"""Ordinary and integro-differential equations; the coordinate x is the time."""

from math import e, log

import numpy as np
import torch

from nedhpc.domains.rectangle import Interval
from nedhpc.problems.base import Problem, integral, residual


class Orbit(Problem):
    """Base class: the reference is an orbit that scipy follows."""

    def follow(self, rates, span: tuple[float, float], start: list[float], **options) -> None:
        """Find the orbit from `start`, with options of scipy's solve_ivp."""
        # scipy takes long to import, and few runs need it.
        from scipy.integrate import solve_ivp

        self.orbit = solve_ivp(rates, span, start, dense_output=True, **options).sol

    def exact(self, x):
        return torch.as_tensor(self.orbit(x[:, 0].cpu().numpy()).T.copy()).to(x)


class LotkaVolterra(Orbit):
    """u' = u (3 - 2 v), v' = v (u - 2) on (0, end), u = v = 1 at 0: prey and predators.

    The reference is a Runge-Kutta method of order eight.
    """

    outputs = ("u", "v")

    def __init__(self, *, end: float = 3.0):
        self.domain = Interval(0.0, end, sides={"left": "start"})
        self.follow(
            lambda t, y: [y[0] * (3 - 2 * y[1]), y[1] * (y[0] - 2)],
            (0.0, end),
            [1.0, 1.0],
            method="DOP853",
            rtol=1e-12,
            atol=1e-13,
            max_step=0.01,
        )

    @residual("interior")
    def ode(self, j):
        u, v = j.u_x - j.u * (3 - 2 * j.v), j.v_x - j.v * (j.u - 2)
        return torch.stack([u, v], 1)

    @residual("start")
    def start(self, j):
        return torch.stack([j.u - 1, j.v - 1], 1)


class Robertson(Orbit):
    """Robertson's stiff kinetics over x = log(t) from t = 1e-5 to t = 40.

    a_t = -0.04 a + 1e4 b c, b_t = 0.04 a - 1e4 b c - 3e7 b^2, c = 1 - a - b. The outputs are a and
    B = 1e4 b; at the start they are 1 - 0.04 t and 400 t. The reference is the method Radau IIA.
    """

    outputs = ("a", "B")

    def __init__(self):
        self.domain = Interval(log(1e-5), log(40.0), sides={"left": "start"})
        first = self.first()
        self.follow(
            lambda s, y: np.exp(s) * np.array(self.rates(*y)),
            (log(1e-5), log(40.0)),
            first,
            method="Radau",
            rtol=1e-10,
            atol=1e-12,
            max_step=0.02,
        )

    @staticmethod
    def first():
        """a and B at the start."""
        return [1 - 0.04 * 1e-5, 400 * 1e-5]

    @staticmethod
    def rates(a, B):
        """a_t and B_t."""
        c = 1 - a - 1e-4 * B
        return -0.04 * a + B * c, 400 * a - 1e4 * B * c - 3e3 * B**2

    @residual("interior")
    def ode(self, x, j):
        a, B = self.rates(j.a, j.B)
        t = torch.exp(x[:, 0])
        return torch.stack([j.a_x - t * a, (j.B_x - t * B) / (1 + 1e4 * t)], 1)

    @residual("start")
    def start(self, j):
        a, B = self.first()
        return torch.stack([j.a - a, j.B - B], 1)


class IntegroDifferential(Problem):
    """u' = u - x + x (integral of s u(s) over (0, 1)), u(0) = 1, u(1) = e; u is exp(x)."""

    domain = Interval(0.0, 1.0, sides={"left": "start", "right": "end"})

    @integral("interior")
    def moment(self, x, j):
        return x[:, 0] * j.u

    @residual("interior")
    def equation(self, x, j, i):
        return j.u_x - j.u + x[:, 0] * (1 - i.moment)

    @residual("start")
    def start(self, j):
        return j.u - 1

    @residual("end")
    def end(self, j):
        return j.u - e

    def exact(self, x):
        return torch.exp(x[:, 0])
