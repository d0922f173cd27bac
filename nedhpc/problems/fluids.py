"""Steady flows of a viscous fluid: velocities u, v and the pressure p."""

from math import pi, sqrt
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from nedhpc.domains.rectangle import Rectangle
from nedhpc.problems.base import Problem, residual
from nedhpc.problems.table import Table

Positive = Annotated[float, Field(gt=0)]
CAVITY = Path(__file__).with_name("cavity_re_100.csv")
"""A reference by scripts/cavity_reference.py."""


class Flow(Problem):
    """The steady Navier-Stokes equations in two dimensions with the viscosity `nu`."""

    outputs = ("u", "v", "p")
    nu: float

    @residual("interior")
    def momentum(self, j):
        along = j.u * j.u_x + j.v * j.u_y + j.p_x - self.nu * j.lap_u
        across = j.u * j.v_x + j.v * j.v_y + j.p_y - self.nu * j.lap_v
        return torch.stack([along, across], 1)

    @residual("interior")
    def mass(self, j):
        return j.u_x + j.v_y


class Kovasznay(Flow):
    """Navier-Stokes behind a row of cylinders (Kovasznay 1948); the velocity is given all around.

    The solution is u = 1 - e^(a x) cos(2 pi y), v = a / (2 pi) e^(a x) sin(2 pi y) and
    p = (1 - e^(2 a x)) / 2, where a = re / 2 - sqrt(re^2 / 4 + 4 pi^2). The pressure is given at
    one point.
    """

    domain = Rectangle([-0.5, -0.5], [1, 1.5]).with_points("gauge", [[0, 0]])

    def __init__(self, *, re: Positive = 40.0):
        self.nu, self.a = 1 / re, re / 2 - sqrt(re**2 / 4 + 4 * pi**2)

    @residual("boundary")
    def wall(self, x, j):
        return torch.stack([j.u, j.v], 1) - self.exact(x)[:, :2]

    @residual("gauge")
    def pressure(self, j):
        return j.p

    def exact(self, x):
        decay, y = torch.exp(self.a * x[:, 0]), 2 * pi * x[:, 1]
        u, v = 1 - decay * torch.cos(y), self.a / (2 * pi) * decay * torch.sin(y)
        return torch.stack([u, v, (1 - decay**2) / 2], 1)


class Cavity(Flow):
    """A fluid in a square whose lid moves, Re = 100; p = 0 in the middle.

    The lid has the velocity u = 16 x^2 (1 - x)^2, which is smooth at the corners; all velocities on
    the walls are exact. The reference has the velocities.
    """

    domain = Rectangle([0, 0], [1, 1]).with_points("gauge", [[0.5, 0.5]])
    nu = 0.01
    # On the other walls the function is zero.
    hard = {"boundary": {"u": lambda x: 16 * (x[:, 0] * (1 - x[:, 0]) * x[:, 1]) ** 2, "v": 0.0}}

    def __init__(self):
        self.reference = Table(CAVITY, targets=["u", "v"], order="linear")

    @residual("gauge")
    def pressure(self, j):
        return j.p


class Stokes(Problem):
    """A slow flow, lap u = p_x, lap v = p_y, u_x + v_y = 0; the velocity is given all around.

    The solution is u = 20 x y^3, v = 5 x^4 - 5 y^4, p = 60 x^2 y - 20 y^3: two jets that collide.
    """

    domain = Rectangle([-1, -1], [1, 1]).with_points("gauge", [[0, 0]])
    outputs = ("u", "v", "p")

    @residual("interior")
    def pde(self, j):
        return torch.stack([j.lap_u - j.p_x, j.lap_v - j.p_y, j.u_x + j.v_y], 1)

    @residual("boundary")
    def wall(self, x, j):
        return torch.stack([j.u, j.v], 1) - self.exact(x)[:, :2]

    @residual("gauge")
    def pressure(self, j):
        return j.p

    def exact(self, x):
        x, y = x.unbind(1)
        return torch.stack([20 * x * y**3, 5 * x**4 - 5 * y**4, 60 * x**2 * y - 20 * y**3], 1)


class BackwardStep(Flow):
    """Flow over a step down in a channel, from a parabola at the inlet to a free outlet.

    The inlet is half as high as the channel; there the velocity is one in the middle. Neither an
    exact solution nor a reference is known.
    """

    domain = Rectangle(
        [-1, 0], [5, 1], sides=dict(left="inlet", right="outlet", bottom="walls", top="walls")
    ) - Rectangle([-1, 0], [0, 0.5], sides=dict(top="walls", right="walls"))

    def __init__(self, *, nu: Positive = 0.01):
        self.nu = nu

    @residual("inlet")
    def inflow(self, x, j):
        y = x[:, 1]
        return torch.stack([j.u - 16 * (y - 0.5) * (1 - y), j.v], 1)

    @residual("walls")
    def wall(self, j):
        return torch.stack([j.u, j.v], 1)

    @residual("outlet")
    def stress(self, j):
        return torch.stack([self.nu * j.u_x - j.p, self.nu * j.v_x], 1)
