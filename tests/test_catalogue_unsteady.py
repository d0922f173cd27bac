"""Problems of the catalogue with time: their solutions satisfy equations and conditions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from exact_jets import relative_residuals

from nedhpc.problems import build

EXACT = {
    "burgers_spacetime": {},
    "kdv_spacetime": {},
    "gray_scott_spacetime": {},
    "wave_spacetime": {"dim": 2, "modes": [1, 3]},
    "heat_ball": {},
    "heat_varying": {},
    "heat_multiscale": {},
    "heat_holes": {},
    "heat_long": {},
}


@pytest.mark.parametrize("name", EXACT)
def test_a_solution_satisfies_its_problem(name):
    problem = build({"name": name, **EXACT[name]})

    def u(x):
        return problem.exact(x).reshape(len(x), -1)

    found = relative_residuals(problem, u, low=None)
    assert max(found.values()) < 1e-8, found


@pytest.mark.parametrize("name", ["allen_cahn_spacetime", "kuramoto_sivashinsky_spacetime"])
def test_a_fourier_reference_satisfies_its_equation(name):
    problem = build({"name": name})
    low, high = problem.domain.low[0], problem.domain.high[0]
    num, time = 128, problem.domain.high[1] / 2
    x = low + (high - low) * np.arange(num) / num

    def at(t):
        return problem.exact(torch.tensor(np.stack([x, np.full(num, t)], 1))).numpy()

    k = 2j * np.pi / (high - low) * np.fft.fftfreq(num, 1 / num)
    jets = {f"u_{'x' * n}": np.fft.ifft(k**n * np.fft.fft(at(time))).real for n in range(1, 5)} | {
        "u": at(time),
        "u_t": slope(at, time),
    }
    jets = {name: torch.tensor(value) for name, value in jets.items()}
    assert problem.pde(SimpleNamespace(**jets)).abs().max() < 1e-7 * jets["u_t"].abs().max()
    points = torch.tensor(np.stack([x, 0 * x], 1))
    first = problem.start(points, SimpleNamespace(u=problem.exact(points)))
    assert first.abs().max() < 1e-12


def test_a_fourier_reference_over_time_is_that_at_each_time():
    reference = build({"name": "burgers"}).exact
    x = torch.linspace(0, 6, 40)[:, None]
    for t in (0.0, 0.0013, 0.31, 0.7777):
        times = torch.full_like(x, t)
        found = reference.over_time(torch.cat([x, times], 1))
        assert (found - reference(x, times[:, 0])).abs().max() < 1e-11


@pytest.mark.parametrize("name", ["lotka_volterra", "robertson"])
def test_a_reference_satisfies_its_ordinary_equations(name):
    problem = build({"name": name})
    low, high = problem.domain.low[0], problem.domain.high[0]
    x = torch.linspace(low + 0.1, high - 0.1, 50)[:, None]
    y = problem.exact(x)
    y_x = slope(lambda shift: problem.exact(x + shift), 0.0)
    jets = dict(zip(problem.outputs, y.T, strict=True))
    jets |= {f"{u}_x": s for u, s in zip(problem.outputs, y_x.T, strict=True)}
    given = (x, SimpleNamespace(**jets)) if name == "robertson" else (SimpleNamespace(**jets),)
    assert problem.ode(*given).abs().max() < 1e-6 * y_x.abs().max()
    first = dict(zip(problem.outputs, problem.exact(torch.full((1, 1), low)).T, strict=True))
    assert problem.start(SimpleNamespace(**first)).abs().max() < 1e-12


def test_the_integro_differential_equation_has_its_solution():
    problem = build({"name": "integro_differential"})
    nodes, weights = np.polynomial.legendre.leggauss(20)
    x = torch.tensor((nodes + 1) / 2)[:, None]
    u = problem.exact(x)
    moment = (torch.tensor(weights / 2) * problem.moment(x, SimpleNamespace(u=u))).sum()
    value = problem.equation(x, SimpleNamespace(u=u, u_x=u), SimpleNamespace(moment=moment))
    assert value.abs().max() < 1e-14
    wrong = problem.equation(x, SimpleNamespace(u=u, u_x=u), SimpleNamespace(moment=0.9 * moment))
    assert wrong.abs().max() > 0.05


def slope(f, at, h=2e-3):
    """f'(at) by central differences of order eight."""
    weights = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
    return sum(w * (f(at + (k + 1) * h) - f(at - (k + 1) * h)) for k, w in enumerate(weights)) / h
