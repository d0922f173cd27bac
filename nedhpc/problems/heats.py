"""Heat equations over space-time that are harder than `heat`, each with its solution."""

from math import pi

import torch

from nedhpc.domains.ball import Ball, Disk
from nedhpc.domains.box import SpaceTime
from nedhpc.domains.in_time import InTime
from nedhpc.domains.rectangle import WORDS, Rectangle
from nedhpc.problems.base import Problem, residual


class HeatBall(Problem):
    """u_t = (lap u - |x|^2 u*) / dim in the unit ball, n . grad u = u* on its sphere, 0 < t < 1.

    The solution is u* = exp(|x|^2 / 2 + t).
    """

    def __init__(self, *, dim: int = 5):
        self.domain, self.dim = InTime(Ball([0.0] * dim, 1.0), 1.0), dim

    def exact(self, x):
        return torch.exp(x[:, :-1].square().sum(1) / 2 + x[:, -1])

    @residual("interior")
    def pde(self, x, j):
        source = x[:, :-1].square().sum(1) * self.exact(x)
        return j.u_t - (j.lap_u - source) / self.dim

    @residual("boundary")
    def flux(self, x, j, n):
        return (j.grad_u[:, : self.dim] * n[:, : self.dim]).sum(1) - self.exact(x)

    @residual("initial")
    def start(self, x, j):
        return j.u - self.exact(x)


class HeatVarying(Problem):
    """u_t = div(a grad u) + f in the unit square, 0 < t < 1, a = 1 + sin(2 pi x) sin(2 pi y) / 2.

    u = 0 on the walls. The solution is exp(-t) sin(pi x) sin(pi y).
    """

    domain = SpaceTime([0.0, 0.0], [1.0, 1.0], 1.0)

    def exact(self, x):
        return torch.exp(-x[:, 2]) * torch.sin(pi * x[:, :2]).prod(1)

    def conductivity(self, x):
        """a (N,) and its gradient (N, 2)."""
        sines, cosines = torch.sin(2 * pi * x[:, :2]), torch.cos(2 * pi * x[:, :2])
        return 1 + sines.prod(1) / 2, pi * cosines * sines.flip(1)

    def source(self, x):
        """f = u_t - div(a grad u) of the solution."""
        u, (a, grad_a) = self.exact(x), self.conductivity(x)
        slopes = pi * torch.cos(pi * x[:, :2]) * torch.sin(pi * x[:, :2]).flip(1)
        grad_u = torch.exp(-x[:, 2:]) * slopes
        return -u + 2 * pi**2 * a * u - (grad_a * grad_u).sum(1)

    @residual("interior")
    def pde(self, x, j):
        a, grad_a = self.conductivity(x)
        transport = grad_a[:, 0] * j.u_x + grad_a[:, 1] * j.u_y
        return j.u_t - a * j.lap_u - transport - self.source(x)

    @residual("boundary")
    def wall(self, j):
        return j.u

    @residual("initial")
    def start(self, x, j):
        return j.u - self.exact(x)


class HeatMultiscale(Problem):
    """u_t = u_xx / (500 pi)^2 + u_yy / pi^2 in the unit square, u = 0 on the walls, 0 < t < 1.

    The solution is exp(-(m^2 / 500^2 + 1) t) sin(m pi x) sin(pi y).
    """

    domain = SpaceTime([0.0, 0.0], [1.0, 1.0], 1.0)

    def __init__(self, *, m: int = 20):
        self.m = m

    def exact(self, x):
        decay = torch.exp(-((self.m / 500) ** 2 + 1) * x[:, 2])
        return decay * torch.sin(self.m * pi * x[:, 0]) * torch.sin(pi * x[:, 1])

    @residual("interior")
    def pde(self, j):
        return j.u_t - j.u_xx / (500 * pi) ** 2 - j.u_yy / pi**2

    @residual("boundary")
    def wall(self, j):
        return j.u

    @residual("initial")
    def start(self, x, j):
        return j.u - self.exact(x)


class HeatHoles(Problem):
    """u_t = lap u / 4 in the square (-2, 2)^2 with three round holes, 0 < t < 1.

    u is given on the walls, and n . grad u + u on the holes. The solution is
    exp(-t / 2) cos x cos y.
    """

    domain = InTime(
        Rectangle([-2.0, -2.0], [2.0, 2.0], sides=dict.fromkeys(WORDS, "wall"))
        - Disk([-1.0, -1.0], 0.4, name="hole")
        - Disk([1.0, 0.5], 0.5, name="hole")
        - Disk([-0.5, 1.2], 0.3, name="hole"),
        1.0,
    )

    def exact(self, x):
        return torch.exp(-x[:, 2] / 2) * torch.cos(x[:, :2]).prod(1)

    @residual("interior")
    def pde(self, j):
        return j.u_t - j.lap_u / 4

    @residual("wall")
    def wall(self, x, j):
        return j.u - self.exact(x)

    @residual("hole")
    def exchange(self, x, j, n):
        sines = torch.sin(x[:, :2]) * torch.cos(x[:, :2]).flip(1)
        slope = -torch.exp(-x[:, 2] / 2) * (n[:, :2] * sines).sum(1)
        return n[:, 0] * j.u_x + n[:, 1] * j.u_y + j.u - slope - self.exact(x)

    @residual("initial")
    def start(self, x, j):
        return j.u - self.exact(x)


class HeatLong(Problem):
    """u_t = nu u_xx + f on (0, 1) for the long time 0 < t < end, u = 0 at the ends.

    The solution is sin(pi x) (cos t + exp(-nu pi^2 t)).
    """

    def __init__(self, *, nu: float = 0.02, end: float = 30.0):
        self.nu, self.domain = nu, SpaceTime([0.0], [1.0], end)

    def exact(self, x):
        t, rate = x[:, 1], self.nu * pi**2
        return torch.sin(pi * x[:, 0]) * (torch.cos(t) + torch.exp(-rate * t))

    @residual("interior")
    def pde(self, x, j):
        t, rate = x[:, 1], self.nu * pi**2
        source = torch.sin(pi * x[:, 0]) * (rate * torch.cos(t) - torch.sin(t))
        return j.u_t - self.nu * j.u_xx - source

    @residual("boundary")
    def wall(self, j):
        return j.u

    @residual("initial")
    def start(self, x, j):
        return j.u - 2 * torch.sin(pi * x[:, 0])
