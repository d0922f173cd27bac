"""Marches of the catalogue in two dimensions, periodic on (0, 2 pi)^2, each with a reference."""

from math import pi

import numpy as np
import torch

from nedhpc.domains.periodic import Periodic
from nedhpc.problems.base import Problem, conserved, rate
from nedhpc.problems.spectral import Spectral

LOW, HIGH = [0.0, 0.0], [2 * pi, 2 * pi]


class HeatPlane(Problem):
    """u_t = nu lap u, periodic in the plane; marches in time.

    The solution is exp(-2 nu t) sin x cos y + exp(-5 nu t) cos(2 x + y) / 2 + 1 / 5.
    """

    domain = Periodic(LOW, HIGH)

    def __init__(self, *, nu: float = 0.1):
        self.nu = nu

    @rate()
    def heat(self, j):
        return self.nu * j.lap_u

    @conserved()
    def heat_content(self, j):
        return j.u

    def start(self, x):
        return self.exact(x, 0 * x[:, 0])

    def exact(self, x, t):
        slow = torch.sin(x[:, 0]) * torch.cos(x[:, 1])
        fast = torch.cos(2 * x[:, 0] + x[:, 1]) / 2
        return torch.exp(-2 * self.nu * t) * slow + torch.exp(-5 * self.nu * t) * fast + 0.2


class AllenCahnPlane(Problem):
    """u_t = nu lap u + u - u^3, periodic in the plane; marches in time.

    At t = 0, u = 0.1 + 0.4 sin x cos y + 0.3 cos(x + y). The reference is a Fourier method.
    """

    domain = Periodic(LOW, HIGH)

    def __init__(self, *, nu: float = 0.05):
        self.nu = nu
        self.exact = Spectral(  # pyright: ignore
            LOW,
            HIGH,
            lambda x, y: 0.1 + 0.4 * np.sin(x) * np.cos(y) + 0.3 * np.cos(x + y),
            lambda k, m: 1 - nu * (k**2 + m**2),
            lambda u, u_x, u_y: -(u**3),
            num_modes=64,
            dt=5e-3,
        )

    @rate()
    def allen_cahn(self, j):
        return self.nu * j.lap_u + j.u - j.u**3

    def start(self, x):
        waves = 0.4 * torch.sin(x[:, 0]) * torch.cos(x[:, 1])
        return 0.1 + waves + 0.3 * torch.cos(x[:, 0] + x[:, 1])


class BurgersPlane(Problem):
    """u_t = -u (u_x + u_y) + nu lap u, periodic in the plane; marches in time.

    At t = 0, u = 0.3 + 0.4 sin x cos y + 0.2 sin(x + y). The reference is a Fourier method.
    """

    domain = Periodic(LOW, HIGH)

    def __init__(self, *, nu: float = 0.1):
        self.nu = nu
        self.exact = Spectral(  # pyright: ignore
            LOW,
            HIGH,
            lambda x, y: 0.3 + 0.4 * np.sin(x) * np.cos(y) + 0.2 * np.sin(x + y),
            lambda k, m: -nu * (k**2 + m**2),
            lambda u, u_x, u_y: -u * (u_x + u_y),
            num_modes=96,
            dt=5e-3,
        )

    @rate()
    def burgers(self, j):
        return -j.u * (j.u_x + j.u_y) + self.nu * j.lap_u

    @conserved()
    def mass(self, j):
        return j.u

    def start(self, x):
        waves = 0.4 * torch.sin(x[:, 0]) * torch.cos(x[:, 1])
        return 0.3 + waves + 0.2 * torch.sin(x[:, 0] + x[:, 1])


class TaylorGreen(Problem):
    """The vorticity equation in terms of the stream function psi, periodic; marches in time.

    The velocity is (psi_y, -psi_x): lap psi_t = -psi_y lap psi_x + psi_x lap psi_y + nu bilap psi.
    The solution is the vortex of Taylor and Green, psi = exp(-2 nu t) cos x cos y.
    """

    domain = Periodic(LOW, HIGH)
    outputs = ("psi",)

    def __init__(self, *, nu: float = 0.01):
        self.nu = nu

    @rate(of=("lap_psi",))
    def vorticity(self, j):
        along_x, along_y = j.psi_xxx + j.psi_xyy, j.psi_xxy + j.psi_yyy
        return -j.psi_y * along_x + j.psi_x * along_y + self.nu * j.bilap_psi

    @conserved()
    def mean(self, j):
        return j.psi  # the equation says nothing about it; keep it to fix psi

    def start(self, x):
        return torch.cos(x[:, 0]) * torch.cos(x[:, 1])

    def exact(self, x, t):
        return torch.exp(-2 * self.nu * t) * torch.cos(x[:, 0]) * torch.cos(x[:, 1])
