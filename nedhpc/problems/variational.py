"""Problems that are stated by an energy instead of an equation (Ritz)."""

from math import pi
from typing import Annotated

import torch
from pydantic import Field

from nedhpc.domains.ball import Disk
from nedhpc.domains.rectangle import Rectangle
from nedhpc.problems.base import Problem, density


class PoissonRitz(Problem):
    """The minimum of |grad u|^2 / 2 - f u over the unit square, with u = 0 on its walls.

    The solution of -lap u = f is u = sin(pi x) sin(pi y).
    """

    domain = Rectangle([0, 0], [1, 1])
    hard = {"boundary": {"u": 0.0}}

    @density("interior")
    def energy(self, x, j):
        return j.grad_u.square().sum(1) / 2 - 2 * pi**2 * self.exact(x) * j.u

    def exact(self, x):
        return torch.sin(pi * x).prod(1)


class PLaplacian(Problem):
    """The minimum of |grad u|^p / p - u over the unit disk, with u = 0 on its rim.

    The solution of -div(|grad u|^(p - 2) grad u) = 1 is u = (1 - |x|^q) / (q 2^(q - 1)), with
    q = p / (p - 1).
    """

    domain = Disk([0, 0], 1)
    hard = {"boundary": {"u": 0.0}}

    def __init__(self, *, p: Annotated[float, Field(ge=2)] = 3.0):
        self.p, self.q = p, p / (p - 1)

    @density("interior")
    def energy(self, j):
        return j.grad_u.square().sum(1) ** (self.p / 2) / self.p - j.u

    def exact(self, x):
        return (1 - x.norm(dim=1) ** self.q) / (self.q * 2 ** (self.q - 1))
