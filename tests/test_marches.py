"""The catalogue's marches: their references solve the equations, and the runs reach them."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

import nedhpc
from nedhpc.ansatz.algebra import function_jets
from nedhpc.ansatz.jets import parse
from nedhpc.files import march
from nedhpc.problems.bound import Clock
from nedhpc.problems.build import CATALOGUE, bind_terms
from nedhpc.problems.spectral import Spectral
from nedhpc.problems.terms import Rate
from tests.conftest import evolve, make_config

CLOSED = {
    "heat_march": {},
    "advection": {},
    "kdv": {},
    "kdv_two_solitons": {},
    "heat_plane": {},
    "taylor_green": {},
    "wave": {},
    "schroedinger": {},
    "transport": {"dim": 3},
}
"""Problems whose solution is known in closed form, with arguments."""
FOURIER = {
    "burgers": {},
    "allen_cahn": {},
    "kuramoto_sivashinsky": {},
    "allen_cahn_plane": {},
    "burgers_plane": {},
    "gray_scott": {},
    "fokker_planck": {"dim": 1},
}
"""Problems whose reference is a Fourier method."""
TIMES = {
    "burgers": 1.0,
    "allen_cahn": 4.0,
    "kuramoto_sivashinsky": 5.0,
    "allen_cahn_plane": 1.0,
    "burgers_plane": 1.0,
    "gray_scott": 10.0,
}


@pytest.mark.parametrize(("name", "time"), TIMES.items())
def test_fourier_reference_has_converged(name, time):
    """Half the time step, and 3/2 of the modes, change it by less than 1e-9."""
    problem = CATALOGUE[name]()
    coarse = problem.exact
    modes, dt = 3 * len(coarse.k[0]) // 2, coarse.dt / 2
    given = (coarse.low, coarse.high, coarse.start, coarse.linear, coarse.nonlinear)
    finer = Spectral(*given, num_modes=modes, dt=dt)
    x = torch.as_tensor(
        np.random.default_rng(0).uniform(coarse.low, coarse.high, (50, len(coarse.k)))
    )
    t = torch.full((50,), time)
    assert (coarse(x, t) - finer(x, t)).abs().max() < 1e-9
    start = problem.start(x)
    assert (coarse(x, 0 * t) - start).abs().max() < 1e-12


def points(problem, num):
    """A grid over the domain, as an array (N, D), and its shape."""
    domain = problem.domain
    lines = [a + (b - a) * torch.arange(num) / num for a, b in zip(domain.low, domain.high)]
    x_ND = torch.cartesian_prod(*lines).reshape(-1, domain.dim)
    return x_ND, (num,) * domain.dim


def fourier_jets(problem, u_NM, shape, layout):
    """Jets of periodic functions on a grid."""
    dim = len(shape)
    lengths = problem.domain.high - problem.domain.low
    k = [2j * np.pi / L * np.fft.fftfreq(n, 1 / n) for L, n in zip(lengths, shape, strict=True)]
    k = np.meshgrid(*k, indexing="ij")
    v = np.fft.fftn(u_NM.numpy().reshape(*shape, -1), axes=range(dim))

    def derivative(alpha):
        factor = np.prod([k[i] for i in alpha], 0) if alpha else np.ones(shape)
        w = np.fft.ifftn(factor[..., None] * v, axes=range(dim))
        return torch.as_tensor(np.real(w).reshape(u_NM.shape))

    single = [derivative(alpha) for alpha in layout.derivatives]
    return [*single, *(sum(map(derivative, alphas)) for alphas in layout.sums)]


@pytest.mark.parametrize("name", [*CLOSED, *FOURIER])
def test_reference_solves_the_equation(name):
    """The time derivative of the reference is the rate, by central differences."""
    problem, h, t = CATALOGUE[name](**CLOSED.get(name, FOURIER.get(name, {}))), 1e-3, 0.1
    dim, num_outputs = problem.domain.dim, len(problem.outputs)
    x, shape = points(problem, {1: 128, 2: 48, 3: 6}[dim])

    def u(t):
        return problem.exact(x, torch.full((len(x),), t)).reshape(-1, num_outputs)

    (term,) = (term for term in bind_terms(problem, {}) if isinstance(term.kind, Rate))
    names = (*problem.outputs, *(term.kind.of or ()), *term.layout.names)
    layout = parse(dict.fromkeys(names), tuple(problem.outputs), problem.coordinates)
    if name in CLOSED:
        exact = functools.partial(_at, problem, t)
        channels = function_jets(exact, x, layout)
    else:
        channels = fourier_jets(problem, u(t), shape, layout)
    j_NCM = torch.stack(channels, 1)
    times = (t - 2 * h, t - h, t + h, t + 2 * h)
    if term.kind.of:  # L(u) of the closed form at these times
        values = [
            torch.stack(function_jets(functools.partial(_at, problem, s), x, layout), 1)
            for s in times
        ]
        a, b, c, d = (getattr(layout.view(v), term.kind.of[0])[:, None] for v in values)
    else:
        a, b, c, d = map(u, times)
    carried_t = (8 * (c - b) - d + a) / (12 * h)
    rate = dataclasses.replace(term, layout=layout, clock=Clock(t))
    value = rate.value(x, j_NCM, x.new_zeros(len(x), 0), None, None)
    tolerance = {"kdv_two_solitons": 1e-4, "schroedinger": 1e-5}.get(name, 1e-6)
    assert (carried_t - value).abs().max() < tolerance * max(1, float(value.abs().max()))


def _at(problem, t, x):
    return problem.exact(x, t + 0 * x[:, 0]).reshape(len(x), -1)


def test_states_at_chosen_times(folder, comm):
    config = make_config(
        problem={"name": "advection"},
        network={"hidden": [32], "scaling": "auto"},
        stepper={"type": "sdirk4", "dt": 0.1, "sdirk4": {"adapt": "none"}},
        run={"max_time": 0.4, "start": "auto"},
        output={"times": [0.15, 0.3]},
    )
    evolve(config, folder, comm)
    times, theta_KP = march.read(folder / march.NAME)
    assert times.tolist() == pytest.approx([0.15, 0.3]) and theta_KP.shape[1] == 193
    solution, x = nedhpc.load(folder), np.linspace(0, 6, 7)
    assert solution.times.tolist() == times.tolist()
    for time in (0.15, 0.3, 0.4):
        at = solution.at(time)
        assert np.abs(at(x)[:, 0] - np.exp(np.sin(x - time))).max() < 1e-4
        assert np.abs(at.exact(x)[:, 0] - np.exp(np.sin(x - time))).max() < 1e-12
    with pytest.raises(nedhpc.errors.UsageError, match="there are states at the times 0.15, 0.3"):
        solution.at(0.2)
