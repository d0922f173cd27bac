"""The heat equation over space-time. Its solution is known; all conditions are penalty terms."""

from math import pi

import torch

from nedhpc.domains.box import SpaceTime
from nedhpc.problems.base import Problem
from nedhpc.problems.terms import Residual


class Heat(Problem):
    """u_t = nu lap u in (0, 1)^dim x (0, end), u = 0 on the walls, u = prod sin(pi x_i) at t = 0.

    The solution is u* = exp(-nu dim pi^2 t) prod sin(pi x_i). The literature has nu = 1/4 (Dangel
    et al., arXiv:2405.15603); DeepXDE's example has nu = 0.4.
    """

    def __init__(
        self,
        *,
        dim: int = 1,
        nu: float = 0.25,
        end: float = 1.0,
        boundary_weight: float = 1.0,
        initial_weight: float = 1.0,
    ):
        self.domain = SpaceTime([0.0] * dim, [1.0] * dim, end)
        self.dim, self.nu = dim, nu
        self.terms = [
            Residual("pde", on="interior"),
            Residual("wall", on="boundary", weight=boundary_weight),
            Residual("start", on="initial", weight=initial_weight),
        ]

    def exact(self, x):
        decay = torch.exp(-self.nu * self.dim * pi**2 * x[:, -1])
        return decay * torch.sin(pi * x[:, :-1]).prod(1)

    def pde(self, j):
        return j.u_t - self.nu * j.lap_u

    def wall(self, j):
        return j.u

    def start(self, x, j):
        return j.u - self.exact(x)
