"""References of periodic problems in one dimension: a Fourier method with ETDRK4 steps. Local.

It solves u_t = L u + N(u), where L is diagonal in Fourier space. Reference: Kassam and Trefethen,
SIAM J. Sci. Comput. 26, 2005. tests/test_marches.py shows that it has converged.
"""

from collections.abc import Callable
from math import pi

import numpy as np
import torch
from torch import Tensor

CONTOUR = 32
"""Points on the circle over which the coefficients are averaged."""
NODES = 8
"""States through which a polynomial in time goes, if times differ."""


class Spectral:
    """The solution of a periodic problem at any time.

    Args:
        period: length of the domain [low, low + period].
        low: its lower end.
        start: u0 as a function of x (N,).
        linear: symbol of L as a function of the wave numbers, (K,).
        nonlinear: N as a function of (u, u_x), (K,) each, at the grid's points.
        num_modes: number of grid points, even; the highest third of the modes is left out.
        dt: time step.
    """

    def __init__(
        self,
        low: float,
        period: float,
        start: Callable,
        linear: Callable,
        nonlinear: Callable,
        num_modes: int = 128,
        dt: float = 2e-3,
    ):
        self.low, self.dt, self.linear, self.nonlinear = low, dt, linear, nonlinear
        self.k = 2 * pi / period * np.fft.fftfreq(num_modes, 1 / num_modes)
        self.k[num_modes // 2] = 0  # the derivative of the highest mode is not known
        self.L = linear(self.k)
        self.kept = np.abs(np.fft.fftfreq(num_modes, 1 / num_modes)) < num_modes / 3
        x = low + period * np.arange(num_modes) / num_modes
        self._states = [self.kept * np.fft.fft(start(x))]
        self._step = self._coefficients(dt)

    def __call__(self, x_ND: Tensor, t: Tensor) -> Tensor:
        """u (N,) at points (N, 1) and at the one time that all of t (N,) have."""
        if not len(x_ND):
            return x_ND[:, 0]
        v_K = self._at(float(t[0]))
        some = self.kept & (self.k > 0)  # u is real: the other half of the modes are conjugates
        phase = np.exp(1j * np.outer(x_ND[:, 0].cpu().numpy() - self.low, self.k[some]))
        u = (np.real(v_K[0]) + 2 * np.real(phase @ v_K[some])) / len(v_K)
        return torch.as_tensor(u).to(x_ND)

    def over_time(self, x_ND: Tensor) -> Tensor:
        """u (N,) at points (N, 2) of space and time: a polynomial in time through eight states."""
        x, t = x_ND.detach().cpu().numpy().T
        if not len(x):
            return x_ND[:, 0]
        first = np.maximum(np.floor(t / self.dt).astype(int) - NODES // 2 + 1, 0)
        self._at((first.max() + NODES) * self.dt)
        some = self.kept & (self.k >= 0)
        states = np.stack(self._states)[:, some] * np.where(self.k[some] > 0, 2, 1)
        place = t / self.dt - first
        u = np.zeros(len(x))
        phase = np.exp(1j * np.outer(x - self.low, self.k[some]))
        for m in range(NODES):
            weight = np.prod([(place - n) / (m - n) for n in range(NODES) if n != m], 0)
            u += weight * np.real(phase * states[first + m]).sum(1)
        return torch.as_tensor(u / len(self.k)).to(x_ND)

    def _at(self, t: float) -> np.ndarray:
        """Fourier coefficients at a time; the same whatever times were asked for before."""
        whole = int(t / self.dt * (1 + 1e-12))
        while len(self._states) <= whole:
            self._states.append(self._advanced(self._states[-1], self._step))
        rest = t - whole * self.dt
        state = self._states[whole]
        return self._advanced(state, self._coefficients(rest)) if rest > 1e-12 else state

    def _coefficients(self, h: float) -> tuple:
        z = h * self.L[:, None] + np.exp(2j * pi * (np.arange(CONTOUR) + 0.5) / CONTOUR)
        e, h_mean = np.exp(z), lambda f: h * f.mean(1)
        return (
            np.exp(h * self.L),
            np.exp(h * self.L / 2),
            h_mean((np.exp(z / 2) - 1) / z),
            h_mean((-4 - z + e * (4 - 3 * z + z**2)) / z**3),
            h_mean((2 + z + e * (-2 + z)) / z**3),
            h_mean((-4 - 3 * z - z**2 + e * (4 - z)) / z**3),
        )

    def _advanced(self, v, step):
        E, E2, Q, f1, f2, f3 = step
        N0 = self._rate(v)
        a = E2 * v + Q * N0
        Na = self._rate(a)
        b = E2 * v + Q * Na
        Nb = self._rate(b)
        c = E2 * a + Q * (2 * Nb - N0)
        return E * v + N0 * f1 + 2 * (Na + Nb) * f2 + self._rate(c) * f3

    def _rate(self, v):
        u, u_x = (np.real(np.fft.ifft(w)) for w in (v, 1j * self.k * v))
        return self.kept * np.fft.fft(self.nonlinear(u, u_x))
