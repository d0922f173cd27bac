"""Laplace's equation where the shape matters: corners, holes, a disk, a ball."""

from math import pi

import torch

from nedhpc.domains.ball import Ball, Disk
from nedhpc.domains.rectangle import WORDS, Rectangle
from nedhpc.problems.base import Problem, residual


class LShape(Problem):
    """-lap u = f in an L, whose corner makes the slope of u infinite.

    The solution is u = r^(2/3) sin(2 phi / 3) + sin(pi x) sin(pi y), with the angle phi around the
    corner from the one edge at phi = 0 to the other at 3 pi / 2. The equation is multiplied by r,
    because f - lap u of a smooth function near u grows as r^(-4/3); in a config,
    weights.balance = "none" keeps this factor.
    """

    domain = Rectangle([-1, -1], [1, 1]) - Rectangle([0, -1], [1, 0])

    @residual("interior")
    def pde(self, x, j):
        return x.norm(dim=1) * (j.lap_u + 2 * pi**2 * torch.sin(pi * x).prod(1))

    @residual("boundary")
    def wall(self, x, j):
        return j.u - self.exact(x)

    def corner(self, x):
        """r^(2/3) sin(2 phi / 3), (N,); it is harmonic, and zero on the edges of the corner."""
        phi = torch.atan2(x[:, 1], x[:, 0]) % (2 * pi)
        return x.norm(dim=1) ** (2 / 3) * torch.sin(2 * phi / 3)

    def exact(self, x):
        return self.corner(x) + torch.sin(pi * x).prod(1)


class LShapeFeature(LShape):
    """As l_shape; the singular function is given, and its coefficient is found.

    What is left is smooth.
    """

    def singular(self, x):
        return self.corner(x).unsqueeze(1)


class SquareWithHoles(Problem):
    """lap u = 0 in a square with three holes: u is given on their rims, the flux on the walls.

    The solution is a sum of c log |x - a| over the centres a of the holes.
    """

    holes = ((-0.5, -0.5, 0.2, 1.0), (0.5, -0.2, 0.3, -1.0), (-0.2, 0.5, 0.25, 0.5))
    """x, y and radius of each hole, and c."""

    def __init__(self):
        self.domain = Rectangle([-1, -1], [1, 1], sides=dict.fromkeys(WORDS, "walls"))
        for x, y, radius, _ in self.holes:
            self.domain = self.domain - Disk([x, y], radius, name="rims")

    @residual("interior")
    def pde(self, j):
        return j.lap_u

    @residual("rims")
    def rim(self, x, j):
        return j.u - self.exact(x)

    @residual("walls")
    def flux(self, x, j, n):
        given = sum(c * d / d.square().sum(1, keepdim=True) for d, c in self.around(x))
        return ((j.grad_u - given) * n).sum(1)

    def around(self, x):
        """(x - a (N, 2), c) for each hole."""
        return [(x - x.new_tensor([a, b]), c) for a, b, _, c in self.holes]

    def exact(self, x):
        return sum(c * torch.log(d.norm(dim=1)) for d, c in self.around(x))


class OutsideDisk(Problem):
    """lap u = 0 outside a disk in a square: the potential of a flow past a cylinder.

    No flow crosses the cylinder. The solution is u = x (1 + R^2 / |x|^2).
    """

    radius = 0.4
    domain = Rectangle([-1, -1], [1, 1], sides=dict.fromkeys(WORDS, "walls"))
    domain = domain - Disk([0, 0], radius, name="cylinder")

    @residual("interior")
    def pde(self, j):
        return j.lap_u

    @residual("walls")
    def wall(self, x, j):
        return j.u - self.exact(x)

    @residual("cylinder")
    def closed(self, j, n):
        return (j.grad_u * n).sum(1)

    def exact(self, x):
        return x[:, 0] * (1 + self.radius**2 / x.square().sum(1))


class InBall(Problem):
    """lap u = 0 in the unit ball: the potential of a charge at (0, 0, 2), outside of it."""

    domain = Ball([0, 0, 0], 1)
    charge = (0.0, 0.0, 2.0)

    @residual("interior")
    def pde(self, j):
        return j.lap_u

    @residual("boundary")
    def surface(self, x, j):
        return j.u - self.exact(x)

    def exact(self, x):
        return 1 / (x - x.new_tensor(self.charge)).norm(dim=1)
