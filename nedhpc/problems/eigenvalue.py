"""The smallest eigenvalues of the Laplacian on the unit cube."""

import torch

from nedhpc.domains.box import Box
from nedhpc.errors import UsageError
from nedhpc.problems.base import Problem
from nedhpc.problems.terms import Integral, Residual


class Eigenvalue(Problem):
    """-lap u = lam u in (0, 1)^dim, u = 0 on the boundary: the `count` smallest eigenvalues.

    They are pi^2 (n_1^2 + ... + n_dim^2) for n_i = 1, 2, ... The coefficients lam1, lam2, ...
    belong to the outputs u1, u2, ..., which are orthonormal. The boundary values hold exactly.
    """

    def __init__(self, *, dim: int = 2, count: int = 1):
        if count < 1:
            raise UsageError(f"problem.count = {count}: must be at least 1")
        self.domain = Box([0.0] * dim, [1.0] * dim)
        numbers = range(1, count + 1)
        self.outputs = tuple(f"u{k}" for k in numbers)
        self.coefficients = {f"lam{k}": 0.0 for k in numbers}
        self.eigenvalues = {f"lam{k}": f"u{k}" for k in numbers}
        self.hard = {"boundary": dict.fromkeys(self.outputs, 0.0)}
        self.pairs = [(k, m) for k in range(count) for m in range(k, count)]
        self.terms = [
            Residual("pde", on="interior"),
            Integral("orthonormal", target=[float(k == m) for k, m in self.pairs]),
        ]

    def pde(self, j, c):
        return torch.stack(
            [
                -getattr(j, f"lap_{u}") - getattr(c, lam) * getattr(j, u)
                for lam, u in self.eigenvalues.items()
            ],
            1,
        )

    def orthonormal(self, j):
        u_NM = j.values
        return torch.stack([u_NM[:, k] * u_NM[:, m] for k, m in self.pairs], 1)
