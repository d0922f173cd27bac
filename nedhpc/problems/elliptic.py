"""Steady equations on an interval or a square: waves, reactions, charges, layers and fronts."""

from math import pi
from typing import Annotated

import torch
from pydantic import Field

from nedhpc.domains.ball import Disk
from nedhpc.domains.rectangle import Interval, Rectangle
from nedhpc.problems.base import Problem, residual

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Helmholtz(Problem):
    """-lap u - k^2 u = f in the unit square, u = 0 on its walls, with k = 2 pi waves.

    The solution is u = sin(k x) sin(k y), as in DeepXDE's example, which has two waves. The walls
    are exact.
    """

    domain = Rectangle([0, 0], [1, 1])
    hard = {"boundary": {"u": 0.0}}

    def __init__(self, *, waves: Count = 1):
        self.k = 2 * pi * waves

    @residual("interior")
    def pde(self, x, j):
        return -j.lap_u - self.k**2 * j.u - self.k**2 * self.exact(x)

    def exact(self, x):
        return torch.sin(self.k * x).prod(1)


class NonlinearPoisson(Problem):
    """-lap u + u^3 = f in the unit square; the solution has two peaks.

    It is u = sum exp(-|x - c|^2 / (2 width^2)) for the two points c in `peaks`.
    """

    domain = Rectangle([0, 0], [1, 1])
    peaks = ((0.3, 0.4), (0.7, 0.6))

    def __init__(self, *, width: Positive = 0.1):
        self.width = width

    @residual("interior")
    def pde(self, x, j):
        laplacian = sum((r - 2) * torch.exp(-r / 2) for r in self.squares(x)) / self.width**2
        return -j.lap_u + j.u**3 + laplacian - self.exact(x) ** 3

    @residual("boundary")
    def wall(self, x, j):
        return j.u - self.exact(x)

    def exact(self, x):
        return sum(torch.exp(-r / 2) for r in self.squares(x))

    def squares(self, x):
        """The squares (N,) of the distances to each peak, in units of the width."""
        return [((x - x.new_tensor(c)) / self.width).square().sum(1) for c in self.peaks]


class PoissonBoltzmann(Problem):
    """u'' = sinh u: the potential in a salt solution beside a plate with the potential `plate`.

    Lengths are in units of Debye's length, potentials in units of k T / e. The solution is that of
    Gouy and Chapman, u = 2 log((1 + g e^-x) / (1 - g e^-x)) with g = tanh(plate / 4).
    """

    domain = Interval(0, 5, sides={"left": "plate", "right": "far"})

    def __init__(self, *, plate: Positive = 4.0):
        self.plate = plate

    @residual("interior")
    def pde(self, j):
        return j.u_xx - torch.sinh(j.u)

    @residual("boundary")
    def ends(self, x, j):
        return j.u - self.exact(x)

    def exact(self, x):
        g = torch.tanh(x.new_tensor(self.plate / 4)) * torch.exp(-x[:, 0])
        return 2 * torch.log((1 + g) / (1 - g))


class AdvectionDiffusion(Problem):
    """u_x - eps lap u = f in the unit square, with a layer of the thickness eps before x = 1.

    The solution is u = (x - (e^((x - 1) / eps) - e^(-1 / eps)) / (1 - e^(-1 / eps))) sin(pi y); it
    is zero on the walls.
    """

    domain = Rectangle([0, 0], [1, 1])
    hard = {"boundary": {"u": 0.0}}

    def __init__(self, *, eps: Positive = 0.05):
        self.eps = eps

    @residual("interior")
    def pde(self, x, j):
        source = torch.sin(pi * x[:, 1]) + self.eps * pi**2 * self.exact(x)
        return j.u_x - self.eps * j.lap_u - source

    def exact(self, x):
        first = torch.exp(x.new_tensor(-1 / self.eps))
        layer = (torch.exp((x[:, 0] - 1) / self.eps) - first) / (1 - first)
        return (x[:, 0] - layer) * torch.sin(pi * x[:, 1])


class Eikonal(Problem):
    """|grad u| = 1 in a square: the time that a front takes from the rim of a disk to x.

    The equation has two solutions with u = 0 on the rim; the slope there chooses the one that grows
    away from it.
    """

    domain = Rectangle([-1, -1], [1, 1]) - Disk([0, 0], 0.2, name="rim")

    @residual("interior")
    def pde(self, j):
        return j.grad_u.square().sum(1) - 1

    @residual("rim")
    def start(self, j, n):
        return torch.stack([j.u, (j.grad_u * n).sum(1) + 1], 1)

    def exact(self, x):
        return x.norm(dim=1) - 0.2
