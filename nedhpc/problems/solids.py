"""Elastic plates, beams and blocks."""

from math import pi

import torch

from nedhpc.domains.rectangle import Interval, Rectangle
from nedhpc.problems.base import Problem, residual


class Biharmonic(Problem):
    """bilap u = f: a square plate on simple supports, u = 0 and lap u = 0 on its edges.

    The solution is u = sin(pi x) sin(pi y), of Navier's series.
    """

    domain = Rectangle([0, 0], [1, 1])

    @residual("interior")
    def pde(self, x, j):
        return j.bilap_u - 4 * pi**4 * self.exact(x)

    @residual("boundary")
    def supports(self, j):
        return torch.stack([j.u, j.lap_u], 1)

    def exact(self, x):
        return torch.sin(pi * x[:, 0]) * torch.sin(pi * x[:, 1])


class Beam(Problem):
    """u'''' = 1: a beam that is clamped at both ends, under its own weight."""

    domain = Interval(0, 1)

    @residual("interior")
    def pde(self, j):
        return j.u_xxxx - 1

    @residual("boundary")
    def clamps(self, j):
        return torch.stack([j.u, j.u_x], 1)

    def exact(self, x):
        return (x * (1 - x)).square()[:, 0] / 24


class Elasticity(Problem):
    """div sigma + f = 0 in a square block: displacements (u, v) of a linear elastic body.

    The stress is sigma = lam (div u) I + mu (grad u + grad u^T). The block is held at the bottom,
    loaded at the top, and slides at both ends. The solution is u = cos(2 pi x) sin(pi y),
    v = sin(pi x) y^4; problem and numbers are those of Haghighat et al. 2021 (arXiv:2003.02751).
    """

    domain = Rectangle(
        [0, 0], [1, 1], sides=dict(left="ends", right="ends", bottom="bottom", top="top")
    )
    outputs = ("u", "v")
    lam, mu, load = 1.0, 0.5, 4.0

    @residual("interior")
    def balance(self, x, j):
        stiff, mixed = self.lam + 2 * self.mu, self.lam + self.mu
        along = stiff * j.u_xx + self.mu * j.u_yy + mixed * j.v_xy
        across = self.mu * j.v_xx + stiff * j.v_yy + mixed * j.u_xy
        return torch.stack([along, across], 1) + self.force(x)

    @residual("bottom")
    def hold(self, j):
        return torch.stack([j.u, j.v], 1)

    @residual("ends")
    def slide(self, j):
        stress_xx = (self.lam + 2 * self.mu) * j.u_x + self.lam * j.v_y
        return torch.stack([stress_xx, j.v], 1)

    @residual("top")
    def press(self, x, j):
        stress_yy = (self.lam + 2 * self.mu) * j.v_y + self.lam * j.u_x
        given = (self.lam + 2 * self.mu) * self.load * torch.sin(pi * x[:, 0])
        return torch.stack([j.u, stress_yy - given], 1)

    def force(self, x):
        """The force f on the body, (N, 2)."""
        X, Y, y = pi * x[:, 0], pi * x[:, 1], x[:, 1]
        wave = pi**2 * torch.cos(2 * X) * torch.sin(Y)
        along = (4 * self.lam + 9 * self.mu) * wave
        along = along - (self.lam + self.mu) * pi * self.load * torch.cos(X) * y**3
        bend = self.mu * pi**2 * y**4 / 4 - 3 * (self.lam + 2 * self.mu) * y**2
        across = self.load * bend * torch.sin(X)
        twist = 2 * pi**2 * torch.sin(2 * X) * torch.cos(Y)
        return torch.stack([along, across + (self.lam + self.mu) * twist], 1)

    def exact(self, x):
        X, Y = pi * x[:, 0], pi * x[:, 1]
        u = torch.cos(2 * X) * torch.sin(Y)
        return torch.stack([u, self.load / 4 * torch.sin(X) * x[:, 1] ** 4], 1)
