"""Eigenvalue problems: the smallest ones are found, several are orthonormal, doubts are said."""

from math import pi
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_table
from mpi4py import MPI

import nedhpc
from nedhpc import config
from nedhpc.config import validate
from nedhpc.errors import ConfigError, UsageError
from nedhpc.plan import Plan
from nedhpc.postprocess.info import info
from nedhpc.running import eigen
from nedhpc.running.case import Case

READY = Path(__file__).parents[1] / "configs/eigenvalue.toml"


def run(tmp_path, table, problem=None):
    nedhpc.run(table, problem=problem, out=tmp_path / "run")
    found = info(tmp_path / "run")
    return found, np.array(sorted(found["coefficients"].values()))


def ready(*overrides):
    return config.read(READY, ["run.max_steps=1", *overrides])


def test_the_smallest_eigenvalue_of_the_square(tmp_path):
    found, values = run(tmp_path, ready("network.hidden=[60]", "sampling.interior=400"))
    assert abs(values[0] / (2 * pi**2) - 1) < 1e-10 and not found["warnings"]


def test_several_eigenfunctions_are_orthonormal(tmp_path):
    """The second and third eigenvalue are equal: 5 pi^2."""
    settings = ("problem.count=3", "network.hidden=[40]", "sampling.interior=400")
    found, values = run(tmp_path, ready(*settings))
    assert (np.abs(values / (pi**2 * np.array([2, 5, 5])) - 1) < 1e-5).all()
    assert not found["warnings"]
    x = np.stack(np.meshgrid(*2 * [(np.arange(64) + 0.5) / 64]), -1).reshape(-1, 2)
    u = nedhpc.load(tmp_path / "run")(x)
    np.testing.assert_allclose(u.T @ u / len(u), np.eye(3), atol=2e-4)


class Oscillator(nedhpc.Problem):
    """-u'' + x^2 u = lam u on a line that is long enough: 1, 3, 5, ..."""

    domain = nedhpc.Box([-8.0], [8.0])
    outputs = ("u", "v")
    coefficients = {"first": 0.0, "second": 0.0}
    eigenvalues = {"first": "u", "second": "v"}

    @nedhpc.residual()
    def pde(self, x, j, c):
        potential = x[:, 0] ** 2
        u = -j.u_xx + (potential - c.first) * j.u
        return torch.stack([u, -j.v_xx + (potential - c.second) * j.v], 1)

    @nedhpc.residual("boundary")
    def ends(self, j):
        return j.values

    @nedhpc.integral(target=[1.0, 0.0, 1.0])
    def orthonormal(self, j):
        return torch.stack([j.u**2, j.u * j.v, j.v**2], 1)


def test_eigenvalues_with_default_scales_and_conditions_by_penalty(tmp_path):
    table = {"network": {"hidden": [80], "activation": "sin"}, "run": {"max_steps": 6}}
    found, values = run(tmp_path, table, Oscillator)
    assert (np.abs(values - [1, 3]) < 1e-9).all() and not found["warnings"]


class Mixed(nedhpc.Problem):
    """u' = p, -p' = lam u, u = 0 at the ends: an eigenfunction of two outputs."""

    domain = nedhpc.Box([0.0], [1.0])
    outputs = ("u", "p", "v", "q")
    coefficients = {"first": 0.0, "second": 0.0}
    eigenvalues = {"first": ("u", "p"), "second": ("v", "q")}

    @nedhpc.residual()
    def pde(self, j, c):
        first = [j.u_x - j.p, -j.p_x - c.first * j.u]
        return torch.stack([*first, j.v_x - j.q, -j.q_x - c.second * j.v], 1)

    @nedhpc.residual("boundary")
    def ends(self, j):
        return torch.stack([j.u, j.v], 1)

    @nedhpc.integral(target=[1.0, 0.0, 1.0])
    def orthonormal(self, j):
        return torch.stack([j.u**2, j.u * j.v, j.v**2], 1)


def test_an_eigenfunction_may_have_several_outputs(tmp_path):
    table = {"network": {"hidden": [40], "activation": "sin"}, "run": {"max_steps": 6}}
    found, values = run(tmp_path, table, Mixed)
    assert (np.abs(values / pi**2 - [1, 4]) < 1e-10).all() and not found["warnings"]


def test_a_second_solution_is_refused():
    table = make_table(problem={"name": "x"}, run={"estimate_error": True})
    with pytest.raises(ConfigError, match="known up to their sign only"):
        Plan(validate(table), Oscillator)


def make_case(comm, problem=Oscillator, scale=3.0):
    table = make_table(
        problem={"name": "x"},
        network={"hidden": [40], "activation": "sin"},
        sampling={"interior": 200, "rule": "sobol"},
    )
    case = Case(comm, Plan(validate(table), problem, comm.size))
    case.draw(0, None)
    ansatz, domain = case.plan.ansatz, case.plan.domain
    theta = ansatz.features(0, scale, domain.low, domain.high)
    return case, case.parameters.join(theta, dict(case.plan.problem.coefficients))


@pytest.mark.mpi
def test_eigenpairs_are_the_same_on_any_ranks(comm):
    # Smooth features nearly depend on each other; rounding then shows, but less than their error.
    for scale, rtol in ((3.0, 1e-6), (8.0, 1e-11)):
        alone, shared = (
            eigen.nearest(*make_case(each, scale=scale), 4).values_E
            for each in (MPI.COMM_SELF, comm)
        )
        np.testing.assert_allclose(shared, alone, rtol=rtol)
        if scale == 3.0:
            np.testing.assert_allclose(shared, [1, 3, 5, 7], rtol=1e-5)


def test_another_eigenvalue_than_the_nearest_is_said(tmp_path):
    case, theta = make_case(MPI.COMM_SELF)
    theta = eigen.solve(case, theta)[1]
    assert eigen.doubts(case, theta) == []
    theta[-2] = 5.0  # the third one
    (text,) = eigen.doubts(case, theta)
    assert "the run ends with 3, 5, and the last layer has about 1, 3;" in text
    # A run says so too, here after a random start.
    found, _ = run(tmp_path, ready("network.hidden=[20]", "run.start=random"))
    assert "may not be those nearest to 0: the run ends with" in " ".join(found["warnings"])


def test_an_initial_value_that_is_an_eigenvalue_is_refused():
    class Circle(nedhpc.Problem):
        domain = nedhpc.Periodic([0.0], [2 * pi])
        coefficients = {"lam": 0.0}
        eigenvalues = {"lam": "u"}

        @nedhpc.residual()
        def pde(self, j, c):
            return -j.u_xx - c.lam * j.u

        @nedhpc.integral(target=1.0)
        def size(self, j):
            return j.u**2

    with pytest.raises(UsageError, match="is itself an eigenvalue"):
        eigen.nearest(*make_case(MPI.COMM_SELF, Circle, 0.5), 1)
    Circle.coefficients = {"lam": -1.0}
    found = eigen.nearest(*make_case(MPI.COMM_SELF, Circle, 0.5), 3)
    np.testing.assert_allclose(found.values_E, [0, 1, 1], atol=1e-6)


@pytest.mark.parametrize(
    "eigenvalues, match",
    [
        ({"third": "u"}, "'third' is none of the coefficients first, second"),
        ({"first": "w"}, "'w' is none of the outputs u, v"),
        ({"first": "u", "second": "u"}, "all of its own"),
        ({"first": 3}, "needed is {coefficient: output or outputs}"),
    ],
)
def test_wrong_eigenvalues_are_refused(eigenvalues, match):
    bad = type("Bad", (Oscillator,), {"eigenvalues": eigenvalues})
    with pytest.raises(ConfigError, match=match):
        Plan(validate(make_table(problem={"name": "x"})), bad)


def test_eigenvalues_with_different_initial_values_are_refused():
    bad = type("Bad", (Oscillator,), {"coefficients": {"first": 0.0, "second": 1.0}})
    with pytest.raises(ConfigError, match="the same initial value"):
        Plan(validate(make_table(problem={"name": "x"})), bad)
