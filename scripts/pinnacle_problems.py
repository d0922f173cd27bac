"""Problems of the benchmark PINNacle (Hao et al. 2023, arXiv:2306.08827), from their equations.

All terms have the weight 1, and coordinates and outputs are as the benchmark has them. Not here:
Poisson3D-ComplexGeometry, Heat2D-ComplexGeometry, NS2D-LongTime and Burgers2D, whose data are not
to be had; Wave2D-LongTime, whose reference does not solve its equation.
"""

from math import pi
from pathlib import Path

import numpy as np
import torch

import nedhpc


class Burgers1D(nedhpc.Problem):
    """u_t + u u_x = nu u_xx on (-1, 1) x (0, 1), u = -sin pi x at t = 0, u = 0 at the ends."""

    domain = nedhpc.SpaceTime([-1.0], [1.0], 1.0)
    nu = 0.01 / pi

    @nedhpc.residual("interior")
    def pde(self, j):
        return j.u_t + j.u * j.u_x - self.nu * j.u_xx

    @nedhpc.residual("boundary")
    def wall(self, j):
        return j.u

    @nedhpc.residual("initial")
    def start(self, x, j):
        return j.u + torch.sin(pi * x[:, 0])

    def exact(self, x):
        """Cole and Hopf's formula; its integrals by the Gauss-Hermite rule with 200 points."""
        z, w = (torch.as_tensor(a) for a in np.polynomial.hermite.hermgauss(200))
        y = x[:, :1] - 2 * torch.sqrt(self.nu * x[:, 1:]) * z
        weight = w * torch.exp((1 - torch.cos(pi * y)) / (2 * pi * self.nu))
        return -(weight * torch.sin(pi * y)).sum(1) / weight.sum(1)


class Poisson1D(nedhpc.Problem):
    """u'' = -sin x on (0, 2 pi), u = 0 at the ends."""

    domain = nedhpc.Box([0.0], [2 * pi])

    @nedhpc.residual("interior")
    def pde(self, x, j):
        return j.u_xx + torch.sin(x[:, 0])

    @nedhpc.residual("boundary")
    def wall(self, j):
        return j.u

    def exact(self, x):
        return torch.sin(x[:, 0])


def perforated(half, discs):
    """A square [-half, half]^2, whose sides are "walls", without discs (x, y, radius), "rims"."""
    sides = dict.fromkeys(("left", "right", "bottom", "top"), "walls")
    domain = nedhpc.Rectangle([-half, -half], [half, half], sides=sides)
    for x, y, radius in discs:
        domain = domain - nedhpc.Disk([x, y], radius, name="rims")
    return domain


class Poisson2DClassic(nedhpc.Problem):
    """lap u = 0 on a square without four discs, u = 1 on the walls and 0 on the rims."""

    domain = perforated(0.5, [(x, y, 0.1) for x in (0.3, -0.3) for y in (0.3, -0.3)])

    @nedhpc.residual("interior")
    def pde(self, j):
        return j.lap_u

    @nedhpc.residual("walls")
    def wall(self, j):
        return j.u - 1

    @nedhpc.residual("rims")
    def rim(self, j):
        return j.u


class PoissonBoltzmann2D(nedhpc.Problem):
    """-lap u + 64 u = f on a square without four discs, u = 0.2 on the walls and 1 on the rims."""

    domain = perforated(
        1.0, [(0.5, 0.5, 0.2), (0.4, -0.4, 0.4), (-0.2, -0.7, 0.1), (-0.6, 0.5, 0.3)]
    )

    @nedhpc.residual("interior")
    def pde(self, x, j):
        wave = torch.sin(pi * x[:, 0]) * torch.sin(4 * pi * x[:, 1])
        return -j.lap_u + 64 * j.u - 10 * (17 + (x * x).sum(1)) * wave

    @nedhpc.residual("walls")
    def wall(self, j):
        return j.u - 0.2

    @nedhpc.residual("rims")
    def rim(self, j):
        return j.u - 1


class Poisson2DManyArea(nedhpc.Problem):
    """a lap u = -f on (-10, 10)^2, u_n = -u on the walls; a and f differ in 5 x 5 blocks.

    In the block i, j, a is a number and f = b + c sin(pi r) sin(pi s), where r and s run from 0 to
    1 in the block. The numbers a, b, c are those of the benchmark.
    """

    domain = nedhpc.Box([-10.0, -10.0], [10.0, 10.0])

    def __init__(self):
        file = Path(__file__).with_name("pinnacle_blocks.csv")
        table = np.loadtxt(file, delimiter=",", skiprows=1)
        self.blocks = torch.as_tensor(table.reshape(5, 5, 3))

    def coefficients_at(self, x):
        """(a, f) at points, each (N,)."""
        scaled = (x + 10) / 4
        block = scaled.floor().clamp(0, 4)
        wave = torch.sin(pi * (scaled - block)).prod(1)
        i, j = block.long().unbind(1)
        a, b, c = self.blocks.to(x)[i, j].unbind(1)
        return a, b + c * wave

    @nedhpc.residual("interior")
    def pde(self, x, j):
        a, f = self.coefficients_at(x)
        return a * j.lap_u + f

    @nedhpc.residual("boundary")
    def wall(self, j, n):
        return (j.grad_u * n).sum(1) + j.u


class PoissonND(nedhpc.Problem):
    """lap u = -pi^2 / 4 sum sin(pi x_i / 2) on (0, 1)^dim, u = sum sin(pi x_i / 2) on the walls."""

    def __init__(self, *, dim: int = 5):
        self.domain = nedhpc.Box([0.0] * dim, [1.0] * dim)

    @nedhpc.residual("interior")
    def pde(self, x, j):
        return j.lap_u + pi**2 / 4 * self.exact(x)

    @nedhpc.residual("boundary")
    def wall(self, x, j):
        return j.u - self.exact(x)

    def exact(self, x):
        return torch.sin(pi / 2 * x).sum(1)


class Heat2DMultiscale(nedhpc.Problem):
    """u_t = u_xx / (500 pi)^2 + u_yy / pi^2 on (0, 1)^2 x (0, 5), u = 0 on the walls.

    At t = 0, u = sin(20 pi x) sin(pi y).
    """

    domain = nedhpc.SpaceTime([0.0, 0.0], [1.0, 1.0], 5.0)
    rates = 1 / (500 * pi) ** 2, 1 / pi**2

    @nedhpc.residual("interior")
    def pde(self, j):
        return j.u_t - self.rates[0] * j.u_xx - self.rates[1] * j.u_yy

    @nedhpc.residual("boundary")
    def wall(self, j):
        return j.u

    @nedhpc.residual("initial")
    def start(self, x, j):
        return j.u - self.exact(x)

    def exact(self, x):
        decay = torch.exp(-(self.rates[0] * 400 + self.rates[1]) * pi**2 * x[:, 2])
        return torch.sin(20 * pi * x[:, 0]) * torch.sin(pi * x[:, 1]) * decay


class Heat2DLongTime(nedhpc.Problem):
    """u_t = lap u / 1000 + 5 sin(u^2) (1 + 2 sin(pi t / 4)) sin(4 pi x) sin(2 pi y) on (0, 1)^2.

    u = 0 on the walls, u = sin(4 pi x) sin(3 pi y) at t = 0.
    """

    def __init__(self, *, end: float = 100.0):
        self.domain = nedhpc.SpaceTime([0.0, 0.0], [1.0, 1.0], end)
        self.end = end

    @nedhpc.residual("interior")
    def pde(self, x, j, t):
        wave = torch.sin(4 * pi * x[:, 0]) * torch.sin(2 * pi * x[:, 1])
        source = 5 * torch.sin(j.u**2) * (1 + 2 * torch.sin(pi / 4 * t)) * wave
        return j.u_t - 0.001 * j.lap_u - source

    @nedhpc.residual("boundary")
    def wall(self, j):
        return j.u

    @nedhpc.residual("initial")
    def start(self, x, j):
        return j.u - torch.sin(4 * pi * x[:, 0]) * torch.sin(3 * pi * x[:, 1])


def random_field(x, seed=0):
    """A smooth random field of mean 0 and variance 1 and of period 1 in x and y, (N, D) -> (N,).

    Its amplitudes fall as 1 / k^2. The benchmark's own tables are not to be had.
    """
    rng, k = np.random.default_rng(seed), np.arange(-4, 5)
    waves = np.array([(p, q) for p in k for q in k if (p, q) > (0, 0)])
    amplitude = rng.normal(size=len(waves)) / (waves**2).sum(1)
    amplitude *= np.sqrt(2 / (amplitude**2).sum())
    angle = 2 * pi * x[:, :2] @ torch.as_tensor(waves.T).to(x)
    phase = torch.as_tensor(rng.uniform(0, 2 * pi, len(waves))).to(x)
    return torch.cos(angle + phase) @ torch.as_tensor(amplitude).to(x)


class Heat2DVaryingCoef(nedhpc.Problem):
    """u_t = a lap u + 200 sin(pi x) sin(5 pi y) sin(pi t) on (0, 1)^2 x (0, 5), u = 0 around.

    The coefficient a is a lognormal field of our own.
    """

    domain = nedhpc.SpaceTime([0.0, 0.0], [1.0, 1.0], 5.0)

    def diffusivity(self, x):
        return torch.exp(random_field(x))

    def source(self, x):
        """The source at the time at which it is largest."""
        return 200 * torch.sin(pi * x[:, 0]) * torch.sin(5 * pi * x[:, 1])

    @nedhpc.residual("interior")
    def pde(self, x, j, t):
        return j.u_t - self.diffusivity(x) * j.lap_u - self.source(x) * torch.sin(pi * t)

    @nedhpc.residual("boundary")
    def wall(self, j):
        return j.u

    @nedhpc.residual("initial")
    def start(self, j):
        return j.u


class HeatND(nedhpc.Problem):
    """u_t = lap u / dim + f on the unit ball, u_n = u on the sphere; u = exp(|x|^2 / 2 + t)."""

    def __init__(self, *, dim: int = 5):
        self.domain = nedhpc.InTime(nedhpc.Ball([0.0] * dim, 1.0), 1.0)
        self.num_space = dim

    @nedhpc.residual("interior")
    def pde(self, x, j):
        square = (x[:, :-1] ** 2).sum(1)
        return j.lap_u / self.num_space - square / self.num_space * self.exact(x) - j.u_t

    @nedhpc.residual("boundary")
    def flux(self, x, j, n):
        return (j.grad_u * n[:, :-1]).sum(1) - self.exact(x)

    @nedhpc.residual("initial")
    def start(self, x, j):
        return j.u - self.exact(x)

    def exact(self, x):
        return torch.exp((x[:, :-1] ** 2).sum(1) / 2 + x[:, -1])


class Flow(nedhpc.Problem):
    """The stationary Navier-Stokes equations for u, v, p with the viscosity 1/100."""

    outputs = ("u", "v", "p")
    nu = 0.01

    @nedhpc.residual("interior")
    def pde(self, j):
        momentum_x = j.u * j.u_x + j.v * j.u_y + j.p_x - self.nu * j.lap_u
        momentum_y = j.u * j.v_x + j.v * j.v_y + j.p_y - self.nu * j.lap_v
        return torch.stack([momentum_x, momentum_y, j.u_x + j.v_y], 1)


class NS2DLidDriven(Flow):
    """A cavity (0, 1)^2 whose lid moves with u = 4 x (1 - x); p = 0 at the origin."""

    domain = nedhpc.Box([0.0, 0.0], [1.0, 1.0])
    data = nedhpc.DataSet(np.zeros((1, 2)), np.zeros((1, 3)))

    @nedhpc.residual("boundary")
    def wall(self, x, j):
        # 4 x (1 - x) is zero on the walls at the sides too.
        lid = 4 * x[:, 0] * (1 - x[:, 0]) * (x[:, 1] > 0.5)
        return torch.stack([j.u - lid, j.v], 1)

    @nedhpc.residual("data")
    def pin(self, j, y):
        return j.p - y[:, 2]


class NS2DBackStep(Flow):
    """Flow over a step: u = 4 y (1 - y), v = 0 at the inlet, p = 0 at the outlet."""

    domain = nedhpc.Rectangle(
        [0, 0], [4, 2], sides=dict(left="inlet", right="outlet", bottom="walls", top="walls")
    ) - nedhpc.Rectangle([0, 1], [2, 2], sides=dict(bottom="walls", right="walls"))

    @nedhpc.residual("inlet")
    def inflow(self, x, j):
        return torch.stack([j.u - 4 * x[:, 1] * (1 - x[:, 1]), j.v], 1)

    @nedhpc.residual("outlet")
    def outflow(self, j):
        return j.p

    @nedhpc.residual("walls")
    def wall(self, j):
        return torch.stack([j.u, j.v], 1)


class Wave1D(nedhpc.Problem):
    """u_tt = 4 u_xx on (0, 1) x (0, 1), u = 0 at the ends, u_t = 0 at t = 0."""

    domain = nedhpc.SpaceTime([0.0], [1.0], 1.0)

    @nedhpc.residual("interior")
    def pde(self, j):
        return j.u_tt - 4 * j.u_xx

    @nedhpc.residual("boundary")
    def wall(self, j):
        return j.u

    @nedhpc.residual("initial")
    def start(self, x, j):
        return torch.stack([j.u - self.exact(x), j.u_t], 1)

    def exact(self, x):
        x, t = pi * x[:, 0], 2 * pi * x[:, 1]
        return torch.sin(x) * torch.cos(t) + torch.sin(4 * x) * torch.cos(4 * t) / 2


class Wave2DHeterogeneous(nedhpc.Problem):
    """u_tt / a = lap u on (-1, 1)^2 x (0, 5), u_n = 0 on the walls, from a Gaussian at rest.

    The coefficient a between 1 and 12 is a smooth field of our own.
    """

    domain = nedhpc.SpaceTime([-1.0, -1.0], [1.0, 1.0], 5.0)

    def coefficient(self, x):
        return 6.5 + 5.5 * torch.tanh(2 * random_field((x + 1) / 2))

    @nedhpc.residual("interior")
    def pde(self, x, j):
        return j.lap_u - j.u_tt / self.coefficient(x)

    @nedhpc.residual("boundary")
    def wall(self, j, n):
        return (j.grad_u * n[:, :2]).sum(1)

    @nedhpc.residual("initial")
    def start(self, x, j):
        return torch.stack([j.u - self.first(x), j.u_t], 1)

    def first(self, x):
        """u at t = 0."""
        return torch.exp(-((x[:, 0] + 0.5) ** 2 + x[:, 1] ** 2) / (2 * 0.3**2))


class KuramotoSivashinsky(nedhpc.Problem):
    """u_t + alpha u u_x + beta u_xx + gamma u_xxxx = 0 on (0, 2 pi) x (0, end), periodic.

    u = cos x (1 + sin x) at t = 0. The benchmark has no condition at the ends; its reference is
    periodic.
    """

    alpha, beta, gamma = 100 / 16, 100 / 16**2, 100 / 16**4

    def __init__(self, *, end: float = 1.0):
        self.domain = nedhpc.SpaceTime([0.0], [2 * pi], end, periodic=[0])
        self.end = end

    @nedhpc.residual("interior")
    def pde(self, j):
        return j.u_t + self.alpha * j.u * j.u_x + self.beta * j.u_xx + self.gamma * j.u_xxxx

    @nedhpc.residual("initial")
    def start(self, x, j):
        return j.u - torch.cos(x[:, 0]) * (1 + torch.sin(x[:, 0]))


class GrayScott(nedhpc.Problem):
    """u_t = lap u / 1e5 + b (1 - u) - u v^2, v_t = lap v / 2e5 - d v + u v^2 on (-1, 1)^2.

    For times (0, 200), without a condition on the walls, as the benchmark has it.
    """

    outputs = ("u", "v")
    b, d, rates = 0.04, 0.1, (1e-5, 5e-6)

    def __init__(self, *, end: float = 200.0):
        self.domain = nedhpc.SpaceTime([-1.0, -1.0], [1.0, 1.0], end)
        self.end = end

    def reaction(self, u, v):
        """The two equations' terms without derivatives."""
        cubic = u * v**2
        return self.b * (1 - u) - cubic, cubic - self.d * v

    def first(self, x):
        """u and v at t = 0, each (N,)."""
        u = 1 - torch.exp(-80 * ((x[:, 0] + 0.05) ** 2 + (x[:, 1] + 0.02) ** 2))
        v = torch.exp(-80 * ((x[:, 0] - 0.05) ** 2 + (x[:, 1] - 0.02) ** 2))
        return u, v

    @nedhpc.residual("interior")
    def pde(self, j):
        f, g = self.reaction(j.u, j.v)
        r, s = self.rates
        return torch.stack([j.u_t - r * j.lap_u - f, j.v_t - s * j.lap_v - g], 1)

    @nedhpc.residual("initial")
    def start(self, x, j):
        u, v = self.first(x)
        return torch.stack([j.u - u, j.v - v], 1)


class PoissonInv(nedhpc.Problem):
    """div(a grad u) = -f on (0, 1)^2; a is sought from noisy u at 2500 points and a on the walls.

    f is the right one for u and a of `exact`; the benchmark's own has two wrong signs.
    """

    domain = nedhpc.Box([0.0, 0.0], [1.0, 1.0])
    outputs = ("u", "a")

    def __init__(self, *, noise: float = 0.1):
        side = np.linspace(0, 1, 50)
        x = np.stack([a.ravel() for a in np.meshgrid(side, side)], 1)
        self.data = noisy(self, x, noise)

    @nedhpc.residual("interior")
    def pde(self, x, j):
        X, Y = pi * x[:, 0], pi * x[:, 1]
        a = self.exact(x)[:, 1]
        slope = (2 * x[:, 0] - 1) * torch.cos(X) * torch.sin(Y)
        slope = slope + (2 * x[:, 1] - 1) * torch.sin(X) * torch.cos(Y)
        f = 2 * pi**2 * a * torch.sin(X) * torch.sin(Y) + 2 * pi * a**2 * slope
        return (j.grad_a * j.grad_u).sum(1) + j.a * j.lap_u + f

    @nedhpc.residual("boundary")
    def wall(self, x, j):
        return j.a - self.exact(x)[:, 1]

    @nedhpc.residual("data")
    def sensors(self, j, y):
        return j.u - y[:, 0]

    def exact(self, x):
        u = torch.sin(pi * x).prod(1)
        return torch.stack([u, 1 / (1 + (x**2 + (x - 1) ** 2).sum(1))], 1)


class HeatInv(nedhpc.Problem):
    """u_t = div(a grad u) + f on (-1, 1)^2 x (0, 1); a is sought from noisy u at 2500 points."""

    domain = nedhpc.SpaceTime([-1.0, -1.0], [1.0, 1.0], 1.0)
    outputs = ("u", "a")

    def __init__(self, *, noise: float = 0.1):
        x = np.random.default_rng(1).uniform([-1, -1, 0], [1, 1, 1], (2500, 3))
        self.data = noisy(self, x, noise)

    @nedhpc.residual("interior")
    def pde(self, x, j, t):
        s, c = torch.sin(pi * x[:, :2]).square(), torch.cos(pi * x[:, :2]).square()
        wave = torch.sin(pi * x[:, :2]).prod(1)
        products = 2 * s.prod(1) - c[:, 0] * s[:, 1] - s[:, 0] * c[:, 1]
        f = torch.exp(-t) * ((4 * pi**2 - 1) * wave + pi**2 * products)
        return j.u_t - (j.grad_a * j.grad_u).sum(1) - j.a * j.lap_u - f

    @nedhpc.residual("interior")
    def steady(self, j):
        return j.a_t

    @nedhpc.residual("boundary")
    def wall(self, x, j):
        return j.a - self.exact(x)[:, 1]

    @nedhpc.residual("data")
    def sensors(self, j, y):
        return j.u - y[:, 0]

    def exact(self, x):
        wave = torch.sin(pi * x[:, :2]).prod(1)
        return torch.stack([torch.exp(-x[:, 2]) * wave, 2 + wave], 1)


def noisy(problem, x_ND, noise):
    """The data set of the first exact output with normal noise."""
    u = problem.exact(torch.as_tensor(x_ND))[:, :1].numpy()
    return nedhpc.DataSet(x_ND, u + noise * np.random.default_rng(0).normal(size=u.shape))
