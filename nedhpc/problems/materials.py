"""Two materials: a jump of the coefficient at an interface."""

import torch

from nedhpc.domains.ball import Disk
from nedhpc.domains.rectangle import Rectangle
from nedhpc.problems.base import Problem, residual


class Materials(Problem):
    """div(k grad u) = 0 in a square with a disk of another material, k = 1 outside and 10 inside.

    The gradient of the temperature jumps at the interface, so that each material has an output:
    `a` outside and `b` inside. The jump conditions are conditions between both on the part
    "interface": temperature and flux are continuous. What an output is in the other material means
    nothing. The solution is that of a uniform field, a = x (1 - s R^2 / |x|^2) and b = (1 - s) x,
    with s = (k_b - k_a) / (k_b + k_a).
    """

    outputs = ("a", "b")
    radius, k_a, k_b = 0.5, 1.0, 10.0

    def __init__(self):
        square, disk = Rectangle([-1, -1], [1, 1]), Disk([0, 0], self.radius)
        self.domain = square.with_part("outer", square - disk, on="interior")
        self.domain = self.domain.with_part("inner", disk, on="interior")
        self.domain.parts["interface"] = disk.parts["boundary"]  # with normals out of the disk

    @residual("outer")
    def outside(self, j):
        return j.lap_a

    @residual("inner")
    def inside(self, j):
        return j.lap_b

    @residual("interface")
    def temperature(self, j):
        return j.a - j.b

    @residual("interface")
    def flux(self, j, n):
        return ((self.k_a * j.grad_a - self.k_b * j.grad_b) * n).sum(1)

    @residual("boundary")
    def wall(self, x, j):
        return j.a - self.both(x)[:, 0]

    def both(self, x):
        """The solution in both materials, continued, (N, 2)."""
        s = (self.k_b - self.k_a) / (self.k_b + self.k_a)
        outer = x[:, 0] * (1 - s * self.radius**2 / x.square().sum(1))
        return torch.stack([outer, (1 - s) * x[:, 0]], 1)
