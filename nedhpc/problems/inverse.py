"""Inverse problems: a viscosity and a conductivity field are sought from measured values of u."""

from math import pi
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from nedhpc.domains.box import Box, SpaceTime
from nedhpc.problems.base import Problem
from nedhpc.problems.data import DataSet
from nedhpc.problems.terms import Residual

Count = Annotated[int, Field(ge=1)]
NUM_NODES = 200
"""Nodes of the Gauss-Hermite rule of Cole and Hopf's formula."""


class Viscosity(Problem):
    """u_t + u u_x = nu u_xx on (-1, 1) x (0, 1), u = -sin pi x at t = 0; nu is sought.

    Given are `num_points` values of u at random points, with normal noise of standard deviation
    `noise`; max |u| = 1. The walls have u = 0. `nu` is the truth, `guess` is where the search
    starts. The equation is known and the data are noisy, so that data have the small weight
    `data_weight`.
    """

    def __init__(
        self,
        *,
        nu: Annotated[float, Field(gt=0)] = 0.05,
        guess: float = 0.2,
        num_points: Count = 2000,
        noise: Annotated[float, Field(ge=0)] = 0.01,
        noise_seed: Annotated[int, Field(ge=0)] = 0,
        data_weight: Annotated[float, Field(gt=0)] = 0.01,
    ):
        self.domain, self.nu, self.coefficients = SpaceTime([-1.0], [1.0], 1.0), nu, {"nu": guess}
        self.terms = [
            Residual("pde", on="interior"),
            Residual("wall", on="boundary"),
            Residual("start", on="initial"),
            Residual("sensors", on="data", weight=data_weight),
        ]
        self.data = measured(self, num_points, noise, noise_seed)

    def exact(self, x):
        return cole_hopf(x, self.nu)

    def pde(self, j, c):
        return j.u_t + j.u * j.u_x - c.nu * j.u_xx

    def wall(self, j):
        return j.u

    def start(self, x, j):
        return j.u + torch.sin(pi * x[:, 0])

    def sensors(self, j, y):
        return j.u - y[:, 0]


class Conductivity(Problem):
    """div(a grad u) = -f in the unit square; the field a is sought, which is known on the walls.

    Given are `num_points` values of u at random points, with normal noise of standard deviation
    `noise`, and u = 0 on the walls. The solution is u = sin(pi x) sin(pi y) and
    a = 1 / (1 + |x|^2 + |x - (1, 1)|^2), as in PINNacle (Hao et al., arXiv:2306.08827).
    """

    outputs = ("u", "a")

    def __init__(
        self,
        *,
        num_points: Count = 2500,
        noise: Annotated[float, Field(ge=0)] = 0.0,
        noise_seed: Annotated[int, Field(ge=0)] = 0,
        data_weight: Annotated[float, Field(gt=0)] = 1.0,
    ):
        self.domain = Box([0.0, 0.0], [1.0, 1.0])
        self.terms = [
            Residual("pde", on="interior"),
            Residual("wall", on="boundary"),
            Residual("sensors", on="data", weight=data_weight),
        ]
        self.data = measured(self, num_points, noise, noise_seed)

    def exact(self, x):
        a = 1 / (1 + (x**2 + (x - 1) ** 2).sum(1))
        return torch.stack([torch.sin(pi * x).prod(1), a], 1)

    def f(self, x):
        """-div(a grad u) of the solution."""
        u, a = self.exact(x).unbind(1)
        sines, cosines = torch.sin(pi * x), torch.cos(pi * x)
        slope = (2 * x - 1) * cosines * sines.flip(1)
        return 2 * pi**2 * a * u + 2 * pi * a**2 * slope.sum(1)

    def pde(self, x, j):
        return (j.grad_a * j.grad_u).sum(1) + j.a * j.lap_u + self.f(x)

    def wall(self, x, j):
        return torch.stack([j.u, j.a - self.exact(x)[:, 1]], 1)

    def sensors(self, j, y):
        return j.u - y[:, 0]


def cole_hopf(x, nu: float):
    """Cole and Hopf's solution (N,) of Burgers' equation that is -sin pi x at t = 0.

    Args:
        x: points (N, 2) of space and time.
        nu: viscosity.
    """
    z, w = (torch.as_tensor(a).to(x) for a in np.polynomial.hermite.hermgauss(NUM_NODES))
    y = x[:, :1] - 2 * torch.sqrt(nu * x[:, 1:]) * z
    power = (1 - torch.cos(pi * y)) / (2 * pi * nu)
    weight = w * torch.exp(power - power.amax(1, keepdim=True))
    return -(weight * torch.sin(pi * y)).sum(1) / weight.sum(1)


def measured(problem: Problem, num_points: int, noise: float, seed: int) -> DataSet:
    """Values of the first output of `exact` with normal noise, at uniform points of the interior.

    Args:
        problem: it has `exact` and a domain that accepts all candidates.
        num_points: N.
        noise: standard deviation.
        seed: of the points and of the noise.
    """
    rng = np.random.default_rng(seed)
    part = problem.domain.parts["interior"]
    x_ND, _ = part.points(rng.random((num_points, part.unit_dim)))
    u_N1 = problem.exact(torch.as_tensor(x_ND)).numpy().reshape(num_points, -1)[:, :1]
    return DataSet(x_ND, u_N1 + noise * rng.standard_normal(u_N1.shape))
