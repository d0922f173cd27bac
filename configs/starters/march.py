"""Burgers' equation u_t = -u u_x + nu u_xx on a circle."""

from math import pi

import torch

import nedhpc


class March(nedhpc.Problem):
    """The arguments of the constructor are the keys of [problem] in the config."""

    domain = nedhpc.Periodic([0.0], [2 * pi])  # space only

    def __init__(self, nu: float = 0.1):
        self.nu = nu

    # A rate returns u_t. Its methods name what they need: x (points), j (u and its derivatives),
    # t (the present time).
    @nedhpc.rate()
    def equation(self, j):
        return -j.u * j.u_x + self.nu * j.u_xx

    def start(self, x):
        """u at t = 0."""
        return 0.5 + torch.sin(x[:, 0])
