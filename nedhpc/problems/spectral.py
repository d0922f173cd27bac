"""References of periodic problems in some dimensions: a Fourier method with ETDRK4 steps. Local.

It solves u_t = L u + N(u) for M outputs, where L is diagonal in Fourier space. Reference: Kassam
and Trefethen, SIAM J. Sci. Comput. 26, 2005. tests/test_marches.py shows that it has converged.
"""

from collections.abc import Callable, Sequence
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

    Arrays of a field have the shape (M, n, ..., n).

    Args:
        low: lower end of each of the D coordinates.
        high: their upper ends.
        start: u0 as a function of D arrays of coordinates; an array, or a tuple for M outputs.
        linear: symbol of L as a function of D arrays of wave numbers; returns as `start`.
        nonlinear: N as a function of (u, u_x, u_y, ...), each an array of a field.
        num_modes: number n of grid points along each coordinate, even; the highest third of the
            modes is left out.
        dt: time step.
    """

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        start: Callable,
        linear: Callable,
        nonlinear: Callable,
        num_modes: int = 128,
        dt: float = 2e-3,
    ):
        self.low, self.high, self.dt = np.asarray(low), np.asarray(high), dt
        self.start, self.linear, self.nonlinear = start, linear, nonlinear
        n, dim = num_modes, len(self.low)
        number = np.fft.fftfreq(n, 1 / n)
        self.axes = tuple(range(1, dim + 1))
        known = np.abs(number) < n / 2  # the derivative of the highest mode is not known
        lines = [2 * pi / (b - a) * known * number for a, b in zip(low, high, strict=True)]
        self.k = np.meshgrid(*lines, indexing="ij")
        self.L = _field(linear(*self.k), (n,) * dim)
        self._kept_n = np.abs(number) < n / 3
        self.kept = np.prod(np.meshgrid(*[self._kept_n] * dim, indexing="ij"), 0).astype(bool)
        grids = [a + (b - a) * np.arange(n) / n for a, b in zip(low, high, strict=True)]
        u0 = _field(start(*np.meshgrid(*grids, indexing="ij")), (n,) * dim)
        self._lines = [line[self._kept_n] for line in lines]
        self._states = [self.kept * np.fft.fftn(u0, axes=self.axes)]
        self._step = self._coefficients(dt)

    def __call__(self, x_ND: Tensor, t: Tensor) -> Tensor:
        """u at points (N, D) and at the one time of all t (N,): (N,), or (N, M) if M > 1."""
        num_outputs = len(self._states[0])
        if not len(x_ND):
            return x_ND.new_zeros((0, num_outputs)[: 1 + (num_outputs > 1)])
        v = self._at(float(t[0]))
        u = np.moveaxis(v[(slice(None), *np.ix_(*[self._kept_n] * len(self.low)))], 0, -1)
        points = x_ND.double().cpu().numpy() - self.low
        pairs = zip(points.T, self._lines, strict=True)
        first, *others = [np.exp(1j * np.outer(x, k)) for x, k in pairs]
        u = np.tensordot(first, u, (1, 0))
        for phase in others:
            u = np.einsum("nk,nk...->n...", phase, u)
        u = np.real(u) / self.kept.size
        return torch.as_tensor(u if num_outputs > 1 else u[:, 0]).to(x_ND)

    def over_time(self, x_ND: Tensor) -> Tensor:
        """u (N,) at points (N, 2) of x and t: a polynomial in time through eight states.

        It is for one coordinate and one output.
        """
        x, t = x_ND.detach().cpu().numpy().T
        if not len(x):
            return x_ND[:, 0]
        first = np.maximum(np.floor(t / self.dt).astype(int) - NODES // 2 + 1, 0)
        self._at((first.max() + NODES) * self.dt)
        states = np.stack(self._states)[:, 0, self.kept]
        place = t / self.dt - first
        u = np.zeros(len(x))
        phase = np.exp(1j * np.outer(x - self.low[0], self._lines[0]))
        for m in range(NODES):
            weight = np.prod([(place - n) / (m - n) for n in range(NODES) if n != m], 0)
            u += weight * np.real(phase * states[first + m]).sum(1)
        return torch.as_tensor(u / self.kept.size).to(x_ND)

    def _at(self, t: float) -> np.ndarray:
        """Fourier coefficients at a time; the same whatever times were asked for before."""
        whole = int(t / self.dt * (1 + 1e-12))
        while len(self._states) <= whole:
            self._states.append(self._advanced(self._states[-1], self._step))
        rest = t - whole * self.dt
        state = self._states[whole]
        return self._advanced(state, self._coefficients(rest)) if rest > 1e-12 else state

    def _coefficients(self, h: float) -> tuple:
        z = h * self.L[..., None] + np.exp(2j * pi * (np.arange(CONTOUR) + 0.5) / CONTOUR)
        e, h_mean = np.exp(z), lambda f: h * f.mean(-1)
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
        fields = [v, *(1j * k * v for k in self.k)]
        u = [np.real(np.fft.ifftn(w, axes=self.axes)) for w in fields]
        return self.kept * np.fft.fftn(_field(self.nonlinear(*u), u[0].shape[1:]), axes=self.axes)


def _field(values, shape: tuple[int, ...]) -> np.ndarray:
    """An array of a field, (M, n, ..., n), from an array for one output or a tuple for several."""
    if not isinstance(values, tuple):
        values = values if np.ndim(values) > len(shape) else (values,)
    return np.array([np.broadcast_to(row, shape) for row in values])
