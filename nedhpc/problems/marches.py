"""Problems of the catalogue that march in time, each with a reference."""

from math import log, pi

import numpy as np
import torch

from nedhpc.domains.box import Box
from nedhpc.domains.periodic import Periodic
from nedhpc.problems.base import Problem, conserved, rate
from nedhpc.problems.spectral import Spectral


class HeatMarch(Problem):
    """u_t = nu u_xx on (0, 1), u = 0 at its ends exactly, u = sin(pi x) at t = 0; marches in time.

    The solution is exp(-nu pi^2 t) sin(pi x).
    """

    domain = Box([0.0], [1.0])
    hard = {"boundary": {"u": 0.0}}

    def __init__(self, *, nu: float = 0.4):
        self.nu = nu

    @rate()
    def heat(self, j):
        return self.nu * j.u_xx

    def start(self, x):
        return torch.sin(pi * x[:, 0])

    def exact(self, x, t):
        return torch.exp(-self.nu * pi**2 * t) * torch.sin(pi * x[:, 0])


class Advection(Problem):
    """u_t = -c u_x, periodic on (0, 2 pi), u = exp(sin x) at t = 0; marches in time.

    The solution is exp(sin(x - c t)).
    """

    domain = Periodic([0.0], [2 * pi])

    def __init__(self, *, c: float = 1.0):
        self.c = c

    @rate()
    def advection(self, j):
        return -self.c * j.u_x

    def start(self, x):
        return torch.exp(torch.sin(x[:, 0]))

    def exact(self, x, t):
        return torch.exp(torch.sin(x[:, 0] - self.c * t))


class Burgers(Problem):
    """u_t = -u u_x + nu u_xx, periodic on (0, 2 pi), u = 1/2 + sin x at t = 0; marches in time.

    The reference is a Fourier method.
    """

    domain = Periodic([0.0], [2 * pi])

    def __init__(self, *, nu: float = 0.1):
        self.nu = nu
        self.exact = Spectral(  # pyright: ignore
            [0.0],
            [2 * pi],
            lambda x: 0.5 + np.sin(x),
            lambda k: -nu * k**2,
            lambda u, u_x: -u * u_x,
            num_modes=256,
        )

    @rate()
    def burgers(self, j):
        return -j.u * j.u_x + self.nu * j.u_xx

    def start(self, x):
        return 0.5 + torch.sin(x[:, 0])


class AllenCahn(Problem):
    """u_t = nu u_xx + u - u^3, periodic on (0, 2 pi); marches in time.

    At t = 0, u = 0.1 + 0.5 sin x + 0.5 cos 2x. The reference is a Fourier method.
    """

    domain = Periodic([0.0], [2 * pi])

    def __init__(self, *, nu: float = 5e-3):
        self.nu = nu
        self.exact = Spectral(  # pyright: ignore
            [0.0],
            [2 * pi],
            lambda x: 0.1 + 0.5 * np.sin(x) + 0.5 * np.cos(2 * x),
            lambda k: 1 - nu * k**2,
            lambda u, u_x: -(u**3),
            num_modes=512,
        )

    @rate()
    def allen_cahn(self, j):
        return self.nu * j.u_xx + j.u - j.u**3

    def start(self, x):
        return 0.1 + 0.5 * torch.sin(x[:, 0]) + 0.5 * torch.cos(2 * x[:, 0])


class KdV(Problem):
    """u_t = -6 u u_x - u_xxx, a soliton of speed 1 on (-20, 20), periodic; marches in time.

    The solution is sech((x - t) / 2)^2 / 2, and its periodic images to 1e-8.
    """

    domain = Periodic([-20.0], [20.0])

    @rate()
    def kdv(self, j):
        return -6 * j.u * j.u_x - j.u_xxx

    @conserved()
    def mass(self, j):
        return j.u

    @conserved()
    def energy(self, j):
        return j.u**2 / 2

    def start(self, x):
        return self._soliton(x[:, 0])

    def exact(self, x, t):
        return self._soliton(x[:, 0] - t)

    def _soliton(self, z):
        return sum(0.5 / torch.cosh((z + shift) / 2) ** 2 for shift in (-40.0, 0.0, 40.0))


class KdVTwoSolitons(KdV):
    """u_t = -6 u u_x - u_xxx, two solitons that collide, periodic on (-20, 20); marches in time.

    With weights w = 1, e_1, e_2 and A e_1 e_2, where e_i = exp(k_i (x - x_i - k_i^2 t)) and
    A = (k_1 - k_2)^2 / (k_1 + k_2)^2, the solution is twice the variance of 0, k_1, k_2, k_1 + k_2
    (Hirota's 2 (log sum w)_xx); it is periodic to 1e-5. The fast one has overtaken at t = 5.
    """

    k = (1.5, 1.0)
    centre = (-8.0, -4.0)

    def start(self, x):
        return self.exact(x, 0 * x[:, 0])

    def exact(self, x, t):
        first, second = (
            k * (x[:, 0] - c - k**2 * t) for k, c in zip(self.k, self.centre, strict=True)
        )
        k, m = self.k
        both = first + second + 2 * log((k - m) / (k + m))
        weight = torch.softmax(torch.stack([0 * first, first, second, both], 1), 1)
        number = x.new_tensor([0.0, k, m, k + m])
        mean = weight @ number
        return 2 * (weight * (number - mean[:, None]) ** 2).sum(1)


class KuramotoSivashinsky(Problem):
    """u_t = -u u_x - u_xx - u_xxxx, periodic on (0, 22), before chaos sets in; marches in time.

    At t = 0, u = cos y (1 + sin y) with y = 2 pi x / 22. The reference is a Fourier method.
    """

    domain = Periodic([0.0], [22.0])

    def __init__(self):
        self.exact = Spectral(  # pyright: ignore
            [0.0],
            [22.0],
            lambda x: np.cos(2 * pi * x / 22) * (1 + np.sin(2 * pi * x / 22)),
            lambda k: k**2 - k**4,
            lambda u, u_x: -u * u_x,
        )

    @rate()
    def kuramoto_sivashinsky(self, j):
        return -j.u * j.u_x - j.u_xx - j.u_xxxx

    def start(self, x):
        y = 2 * pi * x[:, 0] / 22
        return torch.cos(y) * (1 + torch.sin(y))
