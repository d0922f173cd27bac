"""The heat equation u_t = nu u_xx with a given start."""

from math import pi

import torch

import nedhpc


class SpaceTime(nedhpc.Problem):
    """The arguments of the constructor are the keys of [problem] in the config."""

    domain = nedhpc.SpaceTime([0.0], [1.0], 1.0)  # 0 < x < 1 and 0 < t < 1

    def __init__(self, nu: float = 0.1):
        self.nu = nu

    # A method names what it needs: x (points (N, D), the time is the last column), j (u and its
    # derivatives). What it returns is zero for the solution.
    @nedhpc.residual("interior")
    def equation(self, j):
        return j.u_t - self.nu * j.u_xx

    @nedhpc.residual("boundary")
    def wall(self, j):
        return j.u

    @nedhpc.residual("initial")
    def begin(self, x, j):
        return j.u - torch.sin(pi * x[:, 0])

    def exact(self, x):
        """The solution, if you know it: the run then measures its error. Else delete this."""
        return torch.exp(-self.nu * pi**2 * x[:, 1]) * torch.sin(pi * x[:, 0])
