"""Poisson's equation on the unit cube. Its solution is known; Dirichlet values are a penalty."""

from math import pi
from typing import Literal

import torch

from nedhpc.domains.box import Box
from nedhpc.errors import UsageError
from nedhpc.problems.base import Problem
from nedhpc.problems.terms import Residual

Solution = Literal["auto", "sin_product", "cos_sum", "bilinear", "square", "peak", "layer"]


class Poisson(Problem):
    """-lap u = f in (0, 1)^dim, u = u* on the boundary.

    The option `solution` chooses u*:

        sin_product  prod sin(frequency pi x_i)
        cos_sum      sum cos(frequency pi x_i)
        bilinear     sum x_{2i-1} x_{2i}, which is harmonic
        square       |x|^2
        peak         exp(-|x - c|^2 / (2 width^2)), where c is the centre of the cube
        layer        tanh(sum (x_i - 1/2) / width)
        auto         sin_product in up to three dimensions, else cos_sum
    """

    def __init__(
        self,
        *,
        dim: int = 2,
        solution: Solution = "auto",
        frequency: int = 1,
        width: float = 0.05,
        boundary_weight: float = 1.0,
    ):
        self.domain = Box([0.0] * dim, [1.0] * dim)
        if solution == "auto":
            solution = "sin_product" if dim <= 3 else "cos_sum"
        if solution == "bilinear" and dim % 2:
            raise UsageError(
                f"problem.dim = {dim}: solution = 'bilinear' pairs the coordinates and needs an "
                "even number of them"
            )
        if not width > 0:
            raise UsageError(f"problem.width = {width}: must be positive")
        self.solution, self.dim, self.wave_number, self.width = solution, dim, frequency * pi, width
        self.terms = [
            Residual("pde", on="interior"),
            Residual("wall", on="boundary", weight=boundary_weight),
        ]

    def exact(self, x):
        match self.solution:
            case "sin_product":
                return torch.sin(self.wave_number * x).prod(1)
            case "cos_sum":
                return torch.cos(self.wave_number * x).sum(1)
            case "bilinear":
                return (x[:, 0::2] * x[:, 1::2]).sum(1)
            case "square":
                return (x * x).sum(1)
            case "peak":
                return torch.exp(-self._square_distance(x) / 2)
            case "layer":
                return torch.tanh((x - 0.5).sum(1) / self.width)

    def f(self, x):
        """-lap u*."""
        match self.solution:
            case "sin_product":
                return self.dim * self.wave_number**2 * self.exact(x)
            case "cos_sum":
                return self.wave_number**2 * self.exact(x)
            case "bilinear":
                return torch.zeros_like(x[:, 0])
            case "square":
                return torch.full_like(x[:, 0], -2.0 * self.dim)
            case "peak":
                return (self.dim - self._square_distance(x)) / self.width**2 * self.exact(x)
            case "layer":
                u = self.exact(x)
                return 2 * self.dim / self.width**2 * u * (1 - u * u)

    def _square_distance(self, x):
        """|x - c|^2 in units of the width."""
        return ((x - 0.5) / self.width).square().sum(1)

    def pde(self, x, j):
        return -j.lap_u - self.f(x)

    def wall(self, x, j):
        return j.u - self.exact(x)
