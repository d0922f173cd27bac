"""Evolution equations over space-time: time is a coordinate, and the whole of it is solved."""

from math import pi

import numpy as np
import torch

from nedhpc.domains.box import SpaceTime
from nedhpc.domains.in_time import InTime
from nedhpc.domains.periodic import Periodic
from nedhpc.problems.base import Problem, residual
from nedhpc.problems.inverse import cole_hopf
from nedhpc.problems.spectral import Spectral


class BurgersSpaceTime(Problem):
    """u_t + u u_x = nu u_xx on (-1, 1) x (0, 1), u = 0 at the ends, u = -sin pi x at t = 0.

    The solution is Cole and Hopf's formula.
    """

    domain = SpaceTime([-1.0], [1.0], 1.0)

    def __init__(self, *, nu: float = 0.05):
        self.nu = nu

    @residual("interior")
    def pde(self, j):
        return j.u_t + j.u * j.u_x - self.nu * j.u_xx

    @residual("boundary")
    def wall(self, j):
        return j.u

    @residual("initial")
    def start(self, x, j):
        return j.u + torch.sin(pi * x[:, 0])

    def exact(self, x):
        return cole_hopf(x, self.nu)


class AllenCahnSpaceTime(Problem):
    """u_t = nu u_xx + 5 (u - u^3), periodic on (-1, 1), for 0 < t < end.

    At t = 0, u = sin(pi x / 2)^2 cos(pi x), the smooth neighbour of x^2 cos(pi x), which has a kink
    at the ends. The reference is a Fourier method.
    """

    def __init__(self, *, nu: float = 1e-3, end: float = 0.5):
        self.nu = nu
        self.domain = InTime(Periodic([-1.0], [1.0]), end)
        self.exact = Spectral(  # pyright: ignore
            [-1.0],
            [1.0],
            lambda x: np.sin(pi * x / 2) ** 2 * np.cos(pi * x),
            lambda k: 5 - nu * k**2,
            lambda u, u_x: -5 * u**3,
        ).over_time

    @residual("interior")
    def pde(self, j):
        return j.u_t - self.nu * j.u_xx - 5 * (j.u - j.u**3)

    @residual("initial")
    def start(self, x, j):
        return j.u - torch.sin(pi * x[:, 0] / 2) ** 2 * torch.cos(pi * x[:, 0])


class KuramotoSivashinskySpaceTime(Problem):
    """u_t = -u u_x - u_xx - u_xxxx, periodic on (0, 22), u = cos(pi x / 11) at t = 0.

    The reference is a Fourier method.
    """

    def __init__(self, *, end: float = 2.0):
        self.domain = InTime(Periodic([0.0], [22.0]), end)
        self.exact = Spectral(  # pyright: ignore
            [0.0],
            [22.0],
            lambda x: np.cos(pi * x / 11),
            lambda k: k**2 - k**4,
            lambda u, u_x: -u * u_x,
        ).over_time

    @residual("interior")
    def pde(self, j):
        return j.u_t + j.u * j.u_x + j.u_xx + j.u_xxxx

    @residual("initial")
    def start(self, x, j):
        return j.u - torch.cos(pi * x[:, 0] / 11)


class KdVSpaceTime(Problem):
    """u_t + 6 u u_x + u_xxx = 0 on (-8, 8) x (0, 1): two solitons, of which one is faster.

    u is given at both ends and at t = 0, and u_x at the right end. The solution is Hirota's
    formula u = 2 (log tau)_xx with tau = 1 + e^p + e^q + e^(p + q) / 25, p = x - t + 2 and
    q = 3 x / 2 - 27 t / 8.
    """

    domain = SpaceTime([-8.0], [8.0], 1.0, sides={"x_low": "left", "x_high": "right"})

    def exact(self, x):
        e1 = torch.exp(x[:, 0] - x[:, 1] + 2)
        e2 = torch.exp(1.5 * x[:, 0] - 3.375 * x[:, 1])
        both = e1 * e2 / 25
        tau, tau_x = 1 + e1 + e2 + both, e1 + 1.5 * e2 + 2.5 * both
        tau_xx = e1 + 2.25 * e2 + 6.25 * both
        return 2 * (tau_xx / tau - (tau_x / tau) ** 2)

    def slope(self, x):
        """u_x of the solution, which is small at the right end."""
        e1 = torch.exp(x[:, 0] - x[:, 1] + 2)
        e2 = torch.exp(1.5 * x[:, 0] - 3.375 * x[:, 1])
        both = e1 * e2 / 25
        a, b, c = ((e1 + 1.5**k * e2 + 2.5**k * both) / (1 + e1 + e2 + both) for k in (1, 2, 3))
        return 2 * (c - 3 * a * b + 2 * a**3)

    @residual("interior")
    def pde(self, j):
        return j.u_t + 6 * j.u * j.u_x + j.u_xxx

    @residual("boundary")
    def ends(self, x, j):
        return j.u - self.exact(x)

    @residual("right")
    def slope_at_the_right(self, x, j):
        return j.u_x - self.slope(x)

    @residual("initial")
    def start(self, x, j):
        return j.u - self.exact(x)


class GrayScottSpaceTime(Problem):
    """u_t = Du lap u - u v^2 + F (1 - u) + f, v_t = Dv lap v + u v^2 - (F + k) v + g, 0 < t < 1.

    The square (-1, 1)^2 is periodic. The solution is u = 1 - w e^-t / 2 and v = w e^-t / 4 with
    w = 1 + cos(pi x) cos(pi y) / 2; the sources f and g belong to it.
    """

    domain = InTime(Periodic([-1.0, -1.0], [1.0, 1.0]), 1.0)
    outputs = ("u", "v")
    Du, Dv, F, k = 2e-2, 1e-2, 0.04, 0.06

    def exact(self, x):
        wave = torch.cos(pi * x[:, :2]).prod(1) / 2
        decay = torch.exp(-x[:, 2]) * (1 + wave)
        return torch.stack([1 - decay / 2, decay / 4], 1)

    def sources(self, x):
        """f and g, (N, 2)."""
        u, v = self.exact(x).unbind(1)
        lap = -2 * pi**2 * torch.exp(-x[:, 2]) * torch.cos(pi * x[:, :2]).prod(1) / 2
        f = 2 * v + self.Du * lap / 2 + u * v**2 - self.F * (1 - u)
        g = -v - self.Dv * lap / 4 - u * v**2 + (self.F + self.k) * v
        return torch.stack([f, g], 1)

    @residual("interior")
    def pde(self, x, j):
        uvv = j.u * j.v**2
        u = j.u_t - self.Du * j.lap_u + uvv - self.F * (1 - j.u)
        v = j.v_t - self.Dv * j.lap_v - uvv + (self.F + self.k) * j.v
        return torch.stack([u, v], 1) - self.sources(x)

    @residual("initial")
    def start(self, x, j):
        return j.values - self.exact(x)


class WaveSpaceTime(Problem):
    """u_tt = c^2 lap u in (0, 1)^dim x (0, 1), u = 0 on the walls, u_t = 0 at t = 0.

    The solution is the sum over k of `modes` of cos(c pi k sqrt(dim) t) prod sin(k pi x_i) / k.
    """

    def __init__(self, *, dim: int = 1, c: float = 2.0, modes: tuple[int, ...] = (1,)):
        self.domain = SpaceTime([0.0] * dim, [1.0] * dim, 1.0)
        self.dim, self.c, self.modes = dim, c, modes

    @residual("interior")
    def pde(self, j):
        return j.u_tt - self.c**2 * j.lap_u

    @residual("boundary")
    def wall(self, j):
        return j.u

    @residual("initial")
    def start(self, x, j):
        return torch.stack([j.u - self.exact(x), j.u_t], 1)

    def exact(self, x):
        speed = self.c * pi * self.dim**0.5
        return sum(
            torch.cos(speed * k * x[:, -1]) * torch.sin(k * pi * x[:, :-1]).prod(1) / k
            for k in self.modes
        )
