"""Scaled variables: jets stay those of u(x), sizes are found, and units do not matter."""

import numpy as np
import pytest
import torch
from conftest import make_table
from mpi4py import MPI

import nedhpc
from nedhpc.ansatz import jets
from nedhpc.ansatz.mlp import MLP
from nedhpc.ansatz.scaling import Scaling
from nedhpc.files import checkpoint
from nedhpc.plan import Plan

COMM = MPI.COMM_SELF
SCALING = Scaling(
    np.array([3.0, -1.0]), np.array([10.0, 0.02]), np.array([300.0, 0.0]), np.array([700.0, 1e-4])
)
DEFAULTS = {
    "network": {"hidden": [12], "scaling": "auto"},
    "sampling": {"adapt": "auto", "rule": "sobol"},
    "weights": {"balance": "auto"},
    "run": {"start": "auto", "windows": 0},
}


def default_table(**tables):
    """A config table in which everything is scaled, balanced and adapted."""
    merged = {name: DEFAULTS.get(name, {}) | tables.get(name, {}) for name in DEFAULTS | tables}
    return make_table(**merged)


def network():
    net = MLP(2, [7, 5], 2)
    net.scaling = SCALING
    return net, torch.as_tensor(net.initial(0))


def x_N2(num=6):
    unit = np.random.default_rng(1).uniform(-1, 1, (num, 2))
    return torch.as_tensor(SCALING.centre_D + SCALING.half_D * unit)


def test_scaled_variables_are_of_size_one():
    net, theta = network()
    x = x_N2(200)
    u = net.jets(theta, x, jets.VALUES)[:, 0].numpy()
    v = (u - SCALING.offset_M) / SCALING.size_M
    assert np.abs(SCALING.unit(x.numpy())).max() <= 1 and 0.01 < np.abs(v).max() < 100


@pytest.mark.parametrize("name", ["u_x", "u_xy", "lap_v", "v_yyx", "grad_u"])
def test_jets_are_those_of_the_unscaled_function(name):
    """Every derivative equals that of nested automatic differentiation of u(x)."""
    net, theta = network()
    x = x_N2()
    layout = jets.parse((name,), ("u", "v"), ("x", "y"))
    found = getattr(layout.view(net.jets(theta, x, layout)), name)
    output = ("u", "v").index(name.split("_")[1] if name[:3] in ("lap", "gra") else name[0])

    def u(point):
        return net.jets(theta, point[None], jets.VALUES)[0, 0, output]

    grad, hessian = torch.func.grad(u), torch.func.hessian(u)
    expected = {
        "u_x": lambda p: grad(p)[0],
        "u_xy": lambda p: hessian(p)[0, 1],
        "lap_v": lambda p: hessian(p).trace(),
        "v_yyx": lambda p: torch.func.grad(lambda q: hessian(q)[1, 1])(p)[0],
        "grad_u": grad,
    }[name]
    torch.testing.assert_close(found, torch.stack([expected(p) for p in x]), rtol=1e-10, atol=1e-12)


def test_rows_are_those_of_automatic_differentiation():
    net, theta = network()
    x, layout = x_N2(), jets.parse(("u_xx", "v_y", "v"), ("u", "v"), ("x", "y"))
    lin = net.linearise(theta, x, layout)
    seed = torch.as_tensor(np.random.default_rng(2).standard_normal(lin.j_NCM.shape))
    named = sorted(layout.named_channels)
    mask = torch.zeros_like(seed)
    mask[:, named] = seed[:, named]
    rows = lin.rows(mask, torch.empty(len(x), len(theta)))
    jacobian = torch.func.jacrev(lambda t: (mask * net.jets(t, x, layout)).sum((1, 2)))(theta)
    torch.testing.assert_close(rows, jacobian, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(lin.vjp(mask), jacobian.sum(0), rtol=1e-10, atol=1e-9)


def test_other_sizes_of_the_outputs_keep_u():
    net, theta = network()
    x = x_N2()
    before = net.jets(theta, x, jets.VALUES)
    new = SCALING.outputs(np.array([250.0, 3.0]), np.array([1.0, 2.0]))
    theta = torch.as_tensor(net.resized(theta.numpy(), new))
    net.scaling = new
    torch.testing.assert_close(net.jets(theta, x, jets.VALUES), before, rtol=1e-12, atol=1e-12)


class Plate(nedhpc.Problem):
    """Heat in a plate of 4 x 2 cm in SI units; in units of L, T and t it is another problem."""

    outputs = ("T",)

    def __init__(self, length: float = 0.04, kelvin: float = 1.0, second: float = 1.0):
        self.length, self.kelvin, self.second = length, kelvin, second
        self.domain = nedhpc.SpaceTime([0.0], [length], 2.0 * second)

    @nedhpc.residual("interior")
    def pde(self, j):
        return 4e6 * j.T_t - 200 * (self.length / 0.04) ** 2 / self.second * j.T_xx

    @nedhpc.residual("boundary")
    def wall(self, j):
        return j.T - 300 * self.kelvin

    @nedhpc.residual("initial")
    def start(self, x, j):
        wave = torch.sin(torch.pi * x[:, 0] / self.length)
        return j.T - (300 + 700 * wave) * self.kelvin


def plate(**units):
    table = default_table(problem={"name": "x"}, sampling={"interior": 200, "boundary": 60})
    table["problem"] = {"name": "python:Plate"}
    return Plan.of_table(table, problem=Plate(**units))


def test_sizes_are_those_that_the_conditions_ask():
    arrays = plate().first_scales()
    np.testing.assert_allclose(arrays["half"], [0.02, 1.0])
    np.testing.assert_allclose(arrays["centre"], [0.02, 1.0])
    assert 300 < arrays["offset"][0] < 900 and 100 < arrays["size"][0] < 700


def test_a_change_of_units_changes_only_the_scales():
    one, other = (plate(**u).first_scales() for u in ({}, dict(length=4e4, kelvin=1e-3, second=60)))
    np.testing.assert_allclose(other["half"], one["half"] * [1e6, 60], rtol=1e-12)
    np.testing.assert_allclose(other["offset"], 1e-3 * one["offset"], rtol=1e-6)
    np.testing.assert_allclose(other["size"], 1e-3 * one["size"], rtol=1e-6)


def run(tmp_path, name, problem, **tables):
    table = default_table(**tables)
    table["problem"] = {"name": f"python:{type(problem).__name__}"}
    return nedhpc.run(table, tmp_path / name, COMM, problem=problem)


def test_a_run_in_other_units_takes_the_same_steps(tmp_path):
    """Scaled variables and balanced rows make the flow independent of the user's units."""
    energies = []
    for name, units in (("si", {}), ("other", dict(length=4e4, kelvin=1e-3, second=60.0))):
        sampling = {"interior": 200, "boundary": 60, "initial": 60}
        run(tmp_path, name, Plate(**units), sampling=sampling, run={"max_steps": 10})
        energies.append(nedhpc.load(tmp_path / name, Plate(**units)).series["balanced_energy"])
    np.testing.assert_allclose(energies[1], energies[0], rtol=1e-3)


class Rod(nedhpc.Problem):
    """y'' = 0 on (0, length), y(0) = 0, y(length) = 1."""

    def __init__(self, length: float):
        self.domain, self.length = nedhpc.Box([0.0], [length]), length

    @nedhpc.residual("interior")
    def ode(self, j):
        return j.u_xx

    @nedhpc.residual("boundary")
    def ends(self, x, j):
        return j.u - (x[:, 0] > self.length / 2).to(x.dtype)


@pytest.mark.parametrize("length", [1e-6, 1.0, 1e6])
def test_a_rod_of_any_length_is_solved(tmp_path, length):
    run(tmp_path, "run", Rod(length), sampling={"interior": 50}, run={"max_steps": 20})
    u = nedhpc.load(tmp_path / "run", Rod(length))
    x = np.linspace(0, length, 101)
    np.testing.assert_allclose(u(x)[:, 0], x / length, atol=1e-8)
    np.testing.assert_allclose(u.jet("u_x", x) * length, 1, atol=1e-6)


def test_the_scales_are_in_the_checkpoint(tmp_path):
    run(tmp_path, "run", Rod(100.0), sampling={"interior": 50}, run={"max_steps": 5})
    _, state, _, _ = checkpoint.newest(tmp_path / "run")
    np.testing.assert_allclose(state.scaling["half"], [50])
    assert state.reference_P is not None and len(state.reference_P) == len(state.theta_P)
