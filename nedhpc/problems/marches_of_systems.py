"""Marches of the catalogue with two outputs, periodic in one dimension, each with a reference."""

from math import pi

import numpy as np
import torch

from nedhpc.domains.periodic import Periodic
from nedhpc.problems.base import Problem, conserved, rate
from nedhpc.problems.spectral import Spectral


class Wave(Problem):
    """u_t = v, v_t = c^2 u_xx, periodic on (0, 2 pi); marches in time.

    The solution is u = (f(x - c t) + f(x + c t)) / 2 with f = exp(sin x).
    """

    domain = Periodic([0.0], [2 * pi])
    outputs = ("u", "v")

    def __init__(self, *, c: float = 1.0):
        self.c = c

    @rate()
    def wave(self, j):
        return torch.stack([j.v, self.c**2 * j.u_xx], 1)

    @conserved()
    def momentum(self, j):
        return j.v

    @conserved()
    def energy(self, j):
        return (j.v**2 + self.c**2 * j.u_x**2) / 2

    def start(self, x):
        return self.exact(x, 0 * x[:, 0])

    def exact(self, x, t):
        z = [x[:, 0] - self.c * t, x[:, 0] + self.c * t]
        f = [torch.exp(torch.sin(y)) for y in z]
        slope = [torch.cos(y) * g for y, g in zip(z, f, strict=True)]
        return torch.stack([(f[0] + f[1]) / 2, self.c * (slope[1] - slope[0]) / 2], 1)


class Schroedinger(Problem):
    """i psi_t = -psi_xx - 2 |psi|^2 psi with psi = u + i v, periodic on (-15, 15); marches in time.

    The solution is a soliton, sech(x - 2 k t) exp(i (k x + (1 - k^2) t)) with k = 4 pi / 30, and
    its periodic images to 1e-6.
    """

    domain = Periodic([-15.0], [15.0])
    outputs = ("u", "v")
    k = 4 * pi / 30

    @rate()
    def schroedinger(self, j):
        square = 2 * (j.u**2 + j.v**2)
        return torch.stack([-j.v_xx - square * j.v, j.u_xx + square * j.u], 1)

    @conserved()
    def mass(self, j):
        return j.u**2 + j.v**2

    @conserved()
    def momentum(self, j):
        return j.u * j.v_x - j.v * j.u_x

    @conserved()
    def energy(self, j):
        square = j.u**2 + j.v**2
        return j.u_x**2 + j.v_x**2 - square**2

    def start(self, x):
        return self.exact(x, 0 * x[:, 0])

    def exact(self, x, t):
        z = x[:, 0] - 2 * self.k * t
        envelope = sum(1 / torch.cosh(z + shift) for shift in (-30.0, 0.0, 30.0))
        phase = self.k * x[:, 0] + (1 - self.k**2) * t
        return torch.stack([envelope * torch.cos(phase), envelope * torch.sin(phase)], 1)


class GrayScott(Problem):
    """Two species: u_t = 1e-2 u_xx - u v^2 + F (1 - u), v_t = 5e-3 v_xx + u v^2 - (F + k) v.

    Periodic on (0, 2 pi), with F = 0.04 and k = 0.06; marches in time. At t = 0,
    u = 1 - exp(cos x - 1) / 2 and v = exp(2 (cos x - 1)) / 4. The reference is a Fourier method.
    """

    domain = Periodic([0.0], [2 * pi])
    outputs = ("u", "v")

    def __init__(self, *, feed: float = 0.04, kill: float = 0.06):
        self.feed, self.kill = feed, kill
        self.exact = Spectral(  # pyright: ignore
            [0.0],
            [2 * pi],
            lambda x: (1 - np.exp(np.cos(x) - 1) / 2, np.exp(2 * (np.cos(x) - 1)) / 4),
            lambda k: (-1e-2 * k**2 - feed, -5e-3 * k**2 - feed - kill),
            lambda u, u_x: (feed - u[0] * u[1] ** 2, u[0] * u[1] ** 2),
            dt=1e-2,
        )

    @rate()
    def gray_scott(self, j):
        reaction = j.u * j.v**2
        u_t = 1e-2 * j.u_xx - reaction + self.feed * (1 - j.u)
        return torch.stack([u_t, 5e-3 * j.v_xx + reaction - (self.feed + self.kill) * j.v], 1)

    def start(self, x):
        c = torch.cos(x[:, 0]) - 1
        return torch.stack([1 - torch.exp(c) / 2, torch.exp(2 * c) / 4], 1)
