"""The right values of the problems in tests/cases: closed forms, and ODEs solved by scipy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, pi

import numpy as np
import torch
from cases import more
from numpy.polynomial import chebyshev
from scipy.integrate import solve_ivp
from scipy.special import lambertw


@dataclass(frozen=True)
class Reference:
    """Right values y at points x, and a function u that solves the problem's terms."""

    x_ND: np.ndarray
    y_NM: np.ndarray
    """It may have fewer columns than u: only these outputs are compared."""
    u: Callable[[torch.Tensor], torch.Tensor]
    """(N, D) -> (N, M), differentiable."""
    offset: float = 0.0
    """The error is relative to y - offset."""
    low: float | None = None
    """u is only accurate if the last coordinate is larger."""

    def errors(self, v) -> np.ndarray:
        """Relative L2 error of each compared output of v, (N, D) -> (N, M) in numpy."""
        v_NM = np.asarray(v(self.x_ND))[:, : self.y_NM.shape[1]]
        difference = np.linalg.norm(v_NM - self.y_NM, axis=0)
        return difference / np.linalg.norm(self.y_NM - self.offset, axis=0)


def closed(u, x, compared: int | None = None, offset: float = 0.0) -> Reference:
    """A Reference of a closed form at points (N, D) or (N,)."""
    x_ND = np.reshape(x, (len(x), -1))
    y_NM = u(torch.as_tensor(x_ND)).detach().numpy()
    return Reference(x_ND, y_NM[:, :compared], u, offset)


def series(values, low: float, high: float, degree: int):
    """The torch function of the Chebyshev series through values(t), (N,) -> (N, M)."""
    nodes = chebyshev.chebpts1(degree + 1)
    middle, half = (high + low) / 2, (high - low) / 2
    c_KM = torch.as_tensor(chebyshev.chebfit(nodes, values(middle + half * nodes), degree))

    def u(x):
        s = (x[:, :1] - middle) / half
        after = later = torch.zeros_like(s) * c_KM[0]
        for c_M in c_KM[1:].flip(0):  # Clenshaw's recurrence
            after, later = c_M + 2 * s * after - later, after
        return c_KM[0] + s * after - later

    return u


def ode(rhs, start: Sequence[float], t, degree=400, low=0.0, method="DOP853", **tolerances):
    """A Reference of y' = rhs(t, y), y(0) = start, at times t from 0 on."""
    options = {"rtol": 1e-12, "atol": 1e-12} | tolerances
    end = float(t[-1])

    def values(times):
        order = np.argsort(times)
        solution = solve_ivp(
            rhs, (0, end), list(start), method=method, t_eval=times[order], **options
        )
        y = np.empty((len(times), len(start)))
        y[order] = solution.y.T
        return y

    u = series(values, low, end, degree)
    return Reference(np.reshape(t, (-1, 1)), values(np.asarray(t)), u, low=low or None)


def columns(*functions):
    """The torch function (N, 1) -> (N, M) of functions of the first coordinate."""
    return lambda x: torch.stack([f(x[:, 0]) for f in functions], 1)


def rod(length):
    return closed(columns(lambda x: x / length), np.linspace(0, length, 1001))


def lotka_volterra():
    def rhs(t, y):
        return [2 * y[0] - 0.04 * y[0] * y[1], 0.02 * y[0] * y[1] - 1.06 * y[1]]

    return ode(rhs, [100, 15], np.linspace(0, 10, 2001))


def nonlocal_term():
    def u(t):
        return torch.exp(-t) * torch.sin(2 * t) / 2

    def integral(t):  # of u from 0 to t
        return (1 - torch.exp(-t) * (torch.cos(2 * t) + torch.sin(2 * t) / 2)) / 5

    return closed(columns(u, integral), np.linspace(0, 2, 1001), compared=1)


def robertson():
    def rhs(t, y):
        first, second, third = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return [-first + second, first - second - third, third]

    t = np.concatenate([[0], np.geomspace(1e-3, 40, 400)])
    return ode(rhs, [1, 0, 0], t, low=1.0, method="Radau", rtol=1e-10, atol=1e-14)


def two_scales():
    u = columns(lambda x: 100 * torch.sin(x), lambda x: 0.01 * torch.cos(x))
    return closed(u, np.linspace(-1, 1, 1001))


def convection():
    x, t = np.meshgrid(np.linspace(0, 2 * pi, 101), np.linspace(0, 1, 101))
    points = np.stack([x.ravel(), t.ravel()], 1)
    return closed(lambda x: torch.sin(x[:, :1] - 30 * x[:, 1:]), points)


def identity():
    return closed(lambda x: x, np.arange(-3000, 3001.0))


def oscillator(half):
    return closed(columns(lambda x: torch.cos(2**0.5 * x)), np.linspace(-half, half, 6001))


def plate():
    rate = 200 / (8000 * 500) * pi**2 * (1 / 0.04**2 + 1 / 0.02**2)

    def u(x):
        shape = torch.sin(pi * x[:, 0] / 0.04) * torch.sin(pi * x[:, 1] / 0.02)
        return (300 + 700 * shape * torch.exp(-rate * x[:, 2]))[:, None]

    points = np.random.default_rng(0).random((20_000, 3)) * [0.04, 0.02, 2.0]
    return closed(u, points, offset=300.0)


def beam():
    length, load = more.Beam.length, more.Beam.load

    def deflection(x):
        quartic = x * (length**3 - 2 * length * x**2 + x**3)
        return load * quartic / (24 * more.Beam.stiffness)

    u = columns(deflection, lambda x: load * x * (length - x) / 2)
    return closed(u, np.linspace(0, length, 1001))


def logistic():
    case = more.Logistic
    ratio = case.capacity / case.first - 1
    u = columns(lambda t: case.capacity / (1 + ratio * torch.exp(-case.rate * t)))
    return closed(u, np.linspace(0, case.end, 1001))


def michaelis_menten():
    case = more.MichaelisMenten
    start = case.first / case.half

    def values(t):
        argument = start * np.exp(start - case.fastest * t / case.half)
        return case.half * np.real(lambertw(argument))[:, None]

    t = np.linspace(0, case.end, 1001)
    return Reference(t[:, None], values(t), series(values, 0, case.end, 60))


def pendulum():
    case = more.Pendulum

    def rhs(t, y):
        return [y[1], -case.gravity / case.length * np.sin(y[0])]

    both = ode(rhs, [case.first, 0], np.linspace(0, case.end, 2001))
    return Reference(both.x_ND, both.y_NM[:, :1], lambda t: both.u(t)[:, :1])


def channel():
    case = more.Channel
    peclet = case.speed * case.length / case.diffusivity

    def u(x):
        return case.last * torch.expm1(peclet * x / case.length) / (exp(peclet) - 1)

    return closed(columns(u), np.linspace(0, case.length, 1001))


def small_and_large():
    u = columns(lambda x: 1e5 * (1 + 0.3 * torch.sin(x / 2e4)), lambda x: 1e-7 * torch.cos(x / 3e4))
    return closed(u, np.linspace(0, 1e5, 1001))


def wall():
    case = more.Wall
    rate = case.conductivity / case.capacity * (case.mu / case.half) ** 2

    def u(x):
        decay = torch.exp(-rate * x[:, 1])
        return (case.outside + case.above * torch.cos(case.mu * x[:, 0] / case.half) * decay)[
            :, None
        ]

    points = np.random.default_rng(0).random((5000, 2))
    points = points * [2 * case.half, case.end] - [case.half, 0]
    return closed(u, points, offset=case.outside)


def brusselator():
    def rhs(t, y):
        cubic = y[0] ** 2 * y[1]
        return [1 + cubic - 4 * y[0], 3 * y[0] - cubic]

    return ode(rhs, [1.5, 3], np.linspace(0, more.Brusselator.end, 2001), degree=600)
