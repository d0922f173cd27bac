"""Marches of the catalogue in any number of dimensions, each with a reference."""

from math import pi

import numpy as np
import torch

from nedhpc.domains.periodic import Periodic
from nedhpc.problems.base import Problem, conserved, rate
from nedhpc.problems.spectral import Spectral

NUM_MODES = 48
"""Grid points of the reference."""


class Transport(Problem):
    """u_t = -c . grad u with c_i = 1 / i, periodic on (0, 2 pi)^dim; marches in time.

    The solution is exp(mean_i sin(x_i - c_i t)).
    """

    def __init__(self, *, dim: int = 5):
        self.domain = Periodic([0.0] * dim, [2 * pi] * dim)
        self.c = 1 / torch.arange(1, dim + 1, dtype=torch.float64)

    @rate()
    def transport(self, j):
        return -j.grad_u @ self.c.to(j.grad_u)

    def start(self, x):
        return self.exact(x, 0 * x[:, 0])

    def exact(self, x, t):
        return torch.exp(torch.sin(x - t[:, None] * self.c.to(x)).mean(1))


class FokkerPlanck(Problem):
    """p_t = div(p grad V) + D lap p, V = -a sum_i cos x_i, periodic on (0, 2 pi)^dim.

    The density of particles that diffuse in a periodic potential; marches in time. p is
    relative to the uniform density. At t = 0 it is the product of 1 + sin(x_i + i) / 2. The
    reference is a product of solutions in one dimension, each by a Fourier method.
    """

    def __init__(self, *, dim: int = 5, a: float = 0.2, diffusion: float = 0.2):
        self.domain = Periodic([0.0] * dim, [2 * pi] * dim)
        self.a, self.diffusion = a, diffusion
        self.factors = [self._factor(i) for i in range(dim)]

    def _factor(self, i: int) -> Spectral:
        """The density of coordinate i: p_t = V' p_x + V'' p + D p_xx."""
        grid = 2 * pi * np.arange(NUM_MODES) / NUM_MODES
        slope, curvature = self.a * np.sin(grid), self.a * np.cos(grid)
        return Spectral(
            [0.0],
            [2 * pi],
            lambda x: 1 + np.sin(x + i) / 2,
            lambda k: -self.diffusion * k**2,
            lambda p, p_x: slope * p_x + curvature * p,
            num_modes=NUM_MODES,
            dt=1e-2,
        )

    @rate()
    def fokker_planck(self, x, j):
        slope, curvature = self.a * torch.sin(x), self.a * torch.cos(x)
        drift = (slope * j.grad_u).sum(1) + curvature.sum(1) * j.u
        return drift + self.diffusion * j.lap_u

    @conserved()
    def probability(self, j):
        return j.u

    def start(self, x):
        number = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        return (1 + torch.sin(x + number) / 2).prod(1)

    def exact(self, x, t):
        columns = x.split(1, 1)
        return torch.stack([f(c, t) for f, c in zip(self.factors, columns, strict=True)], 1).prod(1)
