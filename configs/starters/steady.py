"""-nu lap u + u^3 = f on a plate with a round hole."""

import torch

import nedhpc


class Steady(nedhpc.Problem):
    """The arguments of the constructor are the keys of [problem] in the config."""

    domain = nedhpc.Rectangle([0, 0], [2, 1]) - nedhpc.Disk([0.5, 0.5], 0.2, name="hole")

    def __init__(self, nu: float = 1.0):
        self.nu = nu

    # A method names what it needs: x (points, (N, D)), j (u and its derivatives, (N,) each),
    # n (outward normals), c (coefficients). What it returns is zero for the solution.
    @nedhpc.residual("interior")
    def equation(self, x, j):
        return -self.nu * j.lap_u + j.u**3 - self.source(x)

    @nedhpc.residual("boundary")  # the whole boundary; "hole" is a part of it
    def wall(self, x, j):
        return j.u - self.exact(x)

    def source(self, x):
        """f, made for the exact solution below. Put your own here."""
        u = self.exact(x)
        return 2 * self.nu * u + u**3

    def exact(self, x):
        """The solution, if you know it: the run then measures its error. Else delete this."""
        return torch.sin(x[:, 0]) * torch.cos(x[:, 1])
