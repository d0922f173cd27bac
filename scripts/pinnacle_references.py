"""References for scripts/bench_pinnacle.py: values (N, M) at points (N, D) of a problem.

They come from the problem's `exact`, from the benchmark's data files, or from a method of our own:
spectral in space for the smooth problems, finite differences if a coefficient jumps.
"""

import lzma
from math import pi

import numpy as np
import torch
from scipy import fft
from scipy.linalg import expm
from scipy.sparse import diags, eye, kron
from scipy.sparse.linalg import spsolve

NUM_POINTS = 10_000
"""Number of random points at which `exact` is used."""


def of_exact(problem):
    """The problem's own solution at random points of the interior."""
    part = problem.domain.parts["interior"]
    unit_NK = np.random.default_rng(0).random((NUM_POINTS, part.unit_dim))
    x_ND = part.points(unit_NK)[0]
    return x_ND, problem.exact(torch.as_tensor(x_ND)).numpy().reshape(len(x_ND), -1)


def of_file(path, dim, end=None):
    """The values in a table of the benchmark, "x y u" or "x y u(t = 0) u(t = ...) ...".

    Args:
        path: the .dat file, or the same with .xz.
        dim: number of space coordinates.
        end: last time if the columns are times at equal distances; None for a stationary problem.
    """
    opened = lzma.open(path, "rt") if path.suffix == ".xz" else open(path)
    with opened as file:
        table = np.loadtxt(file, comments="%")
    x_ND, y_NM = table[:, :dim], table[:, dim:]
    return (x_ND, y_NM) if end is None else in_time(x_ND, np.linspace(0, end, y_NM.shape[1]), y_NM)


def in_time(x_ND, times_T, u_NT):
    """Points (x, t) and values (N T, 1) of a table with one column for each time."""
    t = np.tile(times_T, len(x_ND))[:, None]
    return np.hstack([np.repeat(x_ND, len(times_T), 0), t]), u_NT.reshape(-1, 1)


def plane(side_X, side_Y):
    """The points (N, 2) of a tensor grid; the second coordinate runs fastest."""
    return np.stack([a.ravel() for a in np.meshgrid(side_X, side_Y, indexing="ij")], 1)


def runge_kutta(rhs, state, end, num_steps, num_times):
    """The states of y' = rhs(t, y) at num_times times from 0 to end, by the classical method."""
    every = num_steps // (num_times - 1)
    dt, states = end / (every * (num_times - 1)), [state]
    for step in range(every * (num_times - 1)):
        t = step * dt
        a = rhs(t, state)
        b = rhs(t + dt / 2, state + dt / 2 * a)
        c = rhs(t + dt / 2, state + dt / 2 * b)
        d = rhs(t + dt, state + dt * c)
        state = state + dt / 6 * (a + 2 * b + 2 * c + d)
        if (step + 1) % every == 0:
            states.append(state)
    return np.linspace(0, end, num_times), states


def long_time(problem, side=96, dt=0.01):
    """Heat2DLongTime by sines, at the 16 x 12 midpoints and the times of the benchmark's file."""
    k = pi * np.arange(1, side)
    symbol = -0.001 * (k[:, None] ** 2 + k**2)
    grid = np.arange(1, side) / side
    wave = 5 * np.outer(np.sin(4 * pi * grid), np.sin(2 * pi * grid))

    def rhs(t, u):
        diffusion = fft.idstn(symbol * fft.dstn(u, 1), 1)
        return diffusion + (1 + 2 * np.sin(pi / 4 * t)) * wave * np.sin(u * u)

    first = np.outer(np.sin(4 * pi * grid), np.sin(3 * pi * grid))
    num_times = round(problem.end / 0.2) + 1
    times, states = runge_kutta(rhs, first, problem.end, round(problem.end / dt), num_times)
    x, y = ((np.arange(n) + 0.5) / n for n in (16, 12))
    # The series of sines, evaluated at the points.
    to_x, to_y = np.sin(np.outer(x, k)), np.sin(np.outer(y, k))
    found = [to_x @ fft.dstn(u, 1) @ to_y.T / side**2 for u in states]
    return in_time(plane(x, y), times, np.stack([u.ravel() for u in found], 1))


def gray_scott(problem, side=256, dt=0.25, num_times=21, num_points=64):
    """GrayScott by Fourier modes, periodic: the pattern does not reach the walls."""
    k = pi * fft.fftfreq(side, 1 / side)
    square = k[:, None] ** 2 + k[: side // 2 + 1] ** 2
    symbols = [-rate * square for rate in problem.rates]
    grid = -1 + 2 * np.arange(side) / side
    x_ND = plane(grid, grid)
    first = np.stack([a.numpy().reshape(side, side) for a in problem.first(torch.as_tensor(x_ND))])

    def rhs(t, state):
        diffusion = [fft.irfft2(s * fft.rfft2(u), u.shape) for s, u in zip(symbols, state)]
        return np.stack(diffusion) + np.stack(problem.reaction(*state))

    num_steps = round(problem.end / dt)
    times, states = runge_kutta(rhs, first, problem.end, num_steps, num_times)
    every = side // num_points
    coarse = plane(grid[::every], grid[::every])
    u_MNT = np.stack([s[:, ::every, ::every].reshape(2, -1) for s in states], 2)
    x_ND, u = in_time(coarse, times, u_MNT[0])
    return x_ND, np.hstack([u, u_MNT[1].reshape(-1, 1)])


def kuramoto_sivashinsky(problem, side=256, dt=1e-4, num_times=101, num_points=64):
    """KuramotoSivashinsky by Fourier modes and ETDRK4 (Kassam and Trefethen 2005, section 2)."""
    x = 2 * pi * np.arange(side) / side
    k = np.arange(side // 2 + 1)
    num_steps = round(problem.end / dt)
    every = max(1, num_steps // (num_times - 1))
    linear = dt * (problem.beta * k**2 - problem.gamma * k**4)
    # The coefficients are means over a circle around each eigenvalue, which avoids cancellation.
    z = linear[:, None] + np.exp(1j * pi * (np.arange(32) + 0.5) / 32)
    e, half = np.exp(linear), np.exp(linear / 2)
    q = dt * ((np.exp(z / 2) - 1) / z).real.mean(1)
    f1 = dt * ((-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3).real.mean(1)
    f2 = dt * ((2 + z + np.exp(z) * (z - 2)) / z**3).real.mean(1)
    f3 = dt * ((-4 - 3 * z - z**2 + np.exp(z) * (4 - z)) / z**3).real.mean(1)

    def nonlinear(v):
        w = np.where(k <= side // 3, v, 0)
        return -0.5j * problem.alpha * k * fft.rfft(fft.irfft(w, side) ** 2)

    v = fft.rfft(np.cos(x) * (1 + np.sin(x)))
    states = [fft.irfft(v, side)]
    for step in range(num_steps):
        n = nonlinear(v)
        a = half * v + q * n
        na = nonlinear(a)
        b = half * v + q * na
        nb = nonlinear(b)
        c = half * a + q * (2 * nb - n)
        v = e * v + n * f1 + 2 * (na + nb) * f2 + nonlinear(c) * f3
        if (step + 1) % every == 0:
            states.append(fft.irfft(v, side))
    times = np.arange(len(states)) * every * dt
    some = slice(None, None, side // num_points)
    return in_time(x[some, None], times, np.stack(states, 1)[some])


def wave_heterogeneous(problem, side=144, dt=1e-3, num_times=26, num_points=16):
    """Wave2DHeterogeneous by cosines."""
    k = pi / 2 * np.arange(side)
    symbol = -(k[:, None] ** 2 + k**2)
    grid = -1 + 2 * (np.arange(side) + 0.5) / side
    x_ND = torch.as_tensor(plane(grid, grid))
    a = problem.coefficient(x_ND).numpy().reshape(side, side)
    u = problem.first(x_ND).numpy().reshape(side, side)

    def rhs(t, state):
        return np.stack([state[1], a * fft.idctn(symbol * fft.dctn(state[0]))])

    first = np.stack([u, np.zeros_like(u)])
    times, states = runge_kutta(rhs, first, 5.0, round(5.0 / dt), num_times)
    some = middles(side, num_points)
    coarse = plane(grid[some], grid[some])
    return in_time(coarse, times, np.stack([s[0, some, some].ravel() for s in states], 1))


def heat_varying(problem, side=40, num_times=51, num_points=24):
    """Heat2DVaryingCoef by Chebyshev collocation, exact in time.

    With the matrix A of a lap and the source f(x) sin(pi t), u is Im (p exp(i pi t)) minus what
    exp(A t) makes of its start, where (i pi - A) p = f.
    """
    nodes, second = chebyshev_second(side)
    inner = slice(1, -1)
    x_ND = torch.as_tensor(plane(nodes[inner], nodes[inner]))
    one = np.eye(side - 1)
    D = second[inner, inner]
    A = problem.diffusivity(x_ND).numpy()[:, None] * (np.kron(D, one) + np.kron(one, D))
    p = np.linalg.solve(1j * pi * np.eye(len(A)) - A, problem.source(x_ND).numpy())
    times = np.linspace(0, 5.0, num_times)
    transition, rest, states = expm(A * times[1]), p.imag, []
    for t in times:
        states.append((p * np.exp(1j * pi * t)).imag - rest)
        rest = transition @ rest
    points = (np.arange(num_points) + 0.5) / num_points
    P = interpolation(nodes, points)[:, inner]
    found = [(P @ u.reshape(side - 1, -1) @ P.T).ravel() for u in states]
    return in_time(plane(points, points), times, np.stack(found, 1))


def chebyshev_second(degree):
    """Chebyshev points of [0, 1] and the matrix of the second derivative there."""
    j = np.arange(degree + 1)
    x = (1 - np.cos(pi * j / degree)) / 2
    c = np.where((j == 0) | (j == degree), 2.0, 1.0) * (-1.0) ** j
    D = np.outer(c, 1 / c) / (x[:, None] - x + np.eye(degree + 1))
    D -= np.diag(D.sum(1))
    return x, D @ D


def interpolation(nodes, points):
    """The matrix of barycentric interpolation from Chebyshev points to other points."""
    j = np.arange(len(nodes))
    weights = np.where((j == 0) | (j == len(nodes) - 1), 0.5, 1.0) * (-1.0) ** j
    P = weights / (points[:, None] - nodes)
    return P / P.sum(1, keepdims=True)


def many_area(problem, side=400):
    """Poisson2DManyArea by finite differences, second order; walls of blocks are walls of cells."""
    h = 20 / side
    grid = -10 + h * (np.arange(side) + 0.5)
    x_ND = plane(grid, grid)
    a, f = problem.coefficients_at(torch.as_tensor(x_ND))
    main = np.full(side, -2.0)
    # The Robin condition gives the value in the cell beyond the wall.
    main[[0, -1]] += (1 - h / 2) / (1 + h / 2)
    one = np.ones(side - 1)
    line = diags([one, main, one], [-1, 0, 1]) / h**2
    laplacian = kron(line, eye(side)) + kron(eye(side), line)
    u = spsolve(laplacian.tocsc(), -(f / a).numpy()).reshape(side, side)
    some = middles(side, 80)
    return plane(grid[some], grid[some]), u[some, some].reshape(-1, 1)


def middles(side, count):
    """The slice of a grid of `side` cells that is a grid of `count` cells at the same midpoints."""
    every, rest = divmod(side, count)
    if rest or every % 2 == 0:
        raise ValueError(f"{side} cells are not an odd multiple of {count}")
    return slice(every // 2, None, every)
