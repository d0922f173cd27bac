"""The catalogue's marches: their references solve the equations, and the runs reach them."""

import numpy as np
import pytest
import torch

import nedhpc
from nedhpc.ansatz.algebra import function_jets
from nedhpc.ansatz.jets import parse
from nedhpc.files import march
from nedhpc.problems.build import CATALOGUE
from nedhpc.problems.spectral import Spectral
from tests.conftest import evolve, make_config

NAMES = ["heat_march", "advection", "burgers", "allen_cahn", "kdv", "kuramoto_sivashinsky"]


@pytest.mark.parametrize(
    ("name", "time"), [("burgers", 1.0), ("allen_cahn", 4.0), ("kuramoto_sivashinsky", 5.0)]
)
def test_fourier_reference_has_converged(name, time):
    """Half the time step, and 3/2 of the modes, change it by less than 1e-9."""
    problem = CATALOGUE[name]()
    reference = problem.exact
    period = float(problem.domain.high[0] - problem.domain.low[0])

    def u0(x):
        return problem.start(torch.as_tensor(x)[:, None]).numpy()

    modes = 3 * len(reference.k) // 2
    finer = Spectral(
        0.0,
        period,
        u0,
        reference.linear,
        reference.nonlinear,
        num_modes=modes,
        dt=reference.dt / 2,
    )
    x, t = torch.linspace(0, period, 50)[:, None], torch.full((50,), time)
    assert (reference(x, t) - finer(x, t)).abs().max() < 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_reference_solves_the_equation(name):
    """The time derivative of the reference is the rate, by central differences."""
    problem, h, t = CATALOGUE[name](), 1e-3, 0.1
    low, high = float(problem.domain.low[0]), float(problem.domain.high[0])
    num = 128
    x = low + (high - low) * torch.arange(num)[:, None] / num

    def u(t):
        return problem.exact(x, torch.full((num,), t))

    u_t = (8 * (u(t + h) - u(t - h)) - u(t + 2 * h) + u(t - 2 * h)) / (12 * h)
    names = ("u", "u_x", "u_xx", "u_xxx", "u_xxxx")
    layout = parse(names, ("u",), problem.coordinates)
    if name in ("heat_march", "advection", "kdv"):
        channels = function_jets(lambda x: problem.exact(x, t + 0 * x[:, 0])[:, None], x, layout)
    else:
        k = 2j * np.pi / (high - low) * np.fft.fftfreq(num, 1 / num)
        v = np.fft.fft(u(t).numpy())
        channels = [torch.as_tensor(np.real(np.fft.ifft(k**n * v)))[:, None] for n in range(5)]
    method = next(vars(type(problem))[m] for m in vars(type(problem)) if _is_rate(problem, m))
    rate = method(problem, layout.view(torch.stack(channels, 1)))
    assert (u_t - rate).abs().max() < 1e-6 * max(1, float(rate.abs().max()))


def _is_rate(problem, name):
    return hasattr(vars(type(problem))[name], "__nedhpc_term__")


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
