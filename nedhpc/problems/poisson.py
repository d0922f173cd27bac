"""Poisson's equation -lap u = f on the unit cube with Dirichlet values by penalty and a known solution."""

from math import pi
from typing import Literal

import torch

from nedhpc.problems.base import Box, Problem, Residual


class Poisson(Problem):
    """-lap u = f in (0, 1)^dim, u = u* on the boundary.

    solution: `sin_product` u* = prod sin(frequency pi x_i), or `cos_sum` u* = sum cos(frequency pi x_i).
    """

    def __init__(self, *, dim: int = 2, solution: Literal["auto", "sin_product", "cos_sum"] = "auto",
                 frequency: int = 1, boundary_weight: float = 1.0):
        self.domain = Box([0.0] * dim, [1.0] * dim)
        self.solution = solution if solution != "auto" else "sin_product" if dim <= 3 else "cos_sum"
        self.wave_number = frequency * pi
        self.terms = [Residual("pde", on="interior", jets=("lap_u",)),
                      Residual("wall", on="boundary", jets=("u",), weight=boundary_weight)]

    def exact(self, x):
        if self.solution == "sin_product":
            return torch.sin(self.wave_number * x).prod(1)
        return torch.cos(self.wave_number * x).sum(1)

    def f(self, x):
        """-lap u*."""
        factor = x.shape[1] if self.solution == "sin_product" else 1
        return factor * self.wave_number**2 * self.exact(x)

    def pde(self, x, j, c):
        return -j.lap_u - self.f(x)

    def wall(self, x, j, c):
        return j.u - self.exact(x)
