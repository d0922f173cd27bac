"""Solution and plot accept any array-like, show every output and need neither MPI nor PETSc."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from mpi4py import MPI

import nedhpc
from nedhpc.errors import UsageError
from nedhpc.postprocess import fields


class Waves(nedhpc.Problem):
    """Two outputs in two dimensions, known in closed form."""

    domain = nedhpc.Box([0, 0], [1, 2])
    outputs = ("u", "v")
    coefficients = {"k": 0.5}

    @nedhpc.residual("interior")
    def fit(self, x, j, c):
        return torch.cat([j.values - self.exact(x), (c.k - 2 * torch.ones_like(j.u))[:, None]], 1)

    def exact(self, x):
        return torch.stack([x[:, 0] * x[:, 1], x[:, 0] - x[:, 1]], 1)


class Cooling(nedhpc.Problem):
    """Two space dimensions and time."""

    domain = nedhpc.SpaceTime([0, 0], [1, 1], 1.0)

    @nedhpc.residual("interior")
    def fit(self, t, j):
        return j.u - t


TABLE = {"network": {"hidden": [8]}, "sampling": {"interior": 60}, "run": {"max_steps": 30}}


@pytest.fixture(scope="module")
def solution(tmp_path_factory):
    folder = tmp_path_factory.mktemp("waves") / "run"
    nedhpc.run(TABLE, folder, MPI.COMM_SELF, problem=Waves)
    return nedhpc.load(folder, Waves)


def test_a_solution_accepts_any_array_of_points(solution):
    expected = solution(np.array([[0.5, 1.5]]))
    for x in ([[0.5, 1.5]], [0.5, 1.5], (0.5, 1.5), torch.tensor([[0.5, 1.5]])):
        np.testing.assert_allclose(solution(x), expected, rtol=1e-6)
    for wrong in ([0.5], [[0.5, 1.5, 2.5]], "text", [[1j, 0]], 0.5):
        with pytest.raises(UsageError, match="needed are points"):
            solution(wrong)


def test_jets_and_gradient_are_derivatives(solution):
    x, h = np.array([[0.3, 0.8], [0.7, 1.1]]), 1e-5
    step = np.eye(2) * h
    slopes = np.stack([(solution(x + s) - solution(x - s)) / (2 * h) for s in step], 2)
    np.testing.assert_allclose(solution.gradient(x), slopes, atol=1e-8)
    np.testing.assert_allclose(solution.jet("v_y", x), slopes[:, 1, 1], atol=1e-8)
    np.testing.assert_allclose(solution.jet("grad_u", x), slopes[:, 0], atol=1e-8)
    assert solution.jet("lap_u", x).shape == (2,)
    with pytest.raises(UsageError, match="jet 'w_x' is unknown"):
        solution.jet("w_x", x)


def test_a_solution_has_the_coefficients_and_series_of_its_run(solution):
    assert set(solution.coefficients) == {"k"} and abs(solution.coefficients["k"] - 2) < 1e-3
    assert list(solution.series["step"]) == [0, 10, 20, 30]


def titles(found):
    from matplotlib.figure import Figure

    figure, names = Figure(), []
    for draw in found:
        axis = figure.add_subplot()
        draw(figure, axis)
        names.append(axis.get_title())
    return names


def test_every_output_has_its_panels(solution):
    assert titles(fields.panels(solution)) == [
        *("u", "exact u", "u - exact"),
        *("v", "exact v", "v - exact"),
    ]


def test_two_dimensions_and_time_are_shown_in_slices(tmp_path):
    nedhpc.run(TABLE, tmp_path / "run", MPI.COMM_SELF, problem=Cooling)
    shown = titles(fields.panels(nedhpc.load(tmp_path / "run", Cooling)))
    assert shown == ["u at t = 0", "u at t = 0.5", "u at t = 1"]


def test_loading_starts_neither_mpi_nor_petsc(tmp_path):
    nedhpc.run(TABLE | {"problem": {"name": "poisson", "dim": 1}}, tmp_path / "run", MPI.COMM_SELF)
    code = f"""
import sys, torch, nedhpc
u = nedhpc.load({str(tmp_path / "run")!r})
assert u(0.5).shape == (1, 1) and torch.get_default_dtype() == torch.float32
print([m for m in ("petsc4py", "mpi4py.MPI") if m in sys.modules])
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0 and child.stdout.strip() == "[]", child.stderr + child.stdout


class Halving(nedhpc.StepRule):
    name = "halving"
    uses_solver = uses_metric = False

    class Settings(nedhpc.Section):
        factor: float = 0.5

    def step(self, theta_P, t, dt):
        return self.settings.factor * theta_P, dt, nedhpc.StepInfo(dt)


class Identity(nedhpc.Metric):
    name = "identity"

    def rows(self, theta_P, sample, A=None):
        return None


@pytest.mark.parametrize(
    "table", [{"stepper": {"type": "halving"}}, {"flow": {"metric": "identity"}}]
)
def test_a_solution_needs_neither_stepper_nor_metric_of_its_run(tmp_path, table):
    """A process that only evaluates the solution does not know these classes."""
    table = TABLE | {"problem": {"name": "poisson", "dim": 1}, "run": {"max_steps": 0}} | table
    nedhpc.run(table, tmp_path / "run", MPI.COMM_SELF)
    code = f"import nedhpc; print(nedhpc.load({str(tmp_path / 'run')!r})(0.5).shape)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.stdout == "(1, 1)\n", child.stderr


def test_a_run_keeps_no_settings_of_a_stepper_it_does_not_use(solution):
    settings = solution.config.stepper.model_extra
    assert "halving" not in settings
    assert "ptc" in settings
