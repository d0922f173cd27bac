"""Balanced rows: every residual component counts by its own sensitivity to the solution."""

import numpy as np
import pytest
import torch
from mpi4py import MPI
from test_scaling import default_table

import nedhpc
from nedhpc.flows.balance import CONDITION, Balance
from nedhpc.plan import Plan
from nedhpc.problems.sizes import output_sizes
from nedhpc.running.case import Case
from nedhpc.running.start import fresh

COMM = MPI.COMM_SELF


class Wall(nedhpc.Problem):
    """c'' = 0; at one end c = 1, at the other D c' = flux: sizes 1 and 1e-9, in one method."""

    domain = nedhpc.Box([0.0], [1e-3])
    outputs = ("c",)

    def __init__(self, factor: float = 1.0, diffusivity: float = 1e-9):
        self.factor, self.diffusivity = factor, diffusivity

    @nedhpc.residual("interior")
    def ode(self, j):
        return self.factor * j.c_xx

    @nedhpc.residual("boundary")
    def ends(self, x, j):
        flux = self.diffusivity * (j.c_x - 500.0)
        return torch.where(x[:, 0] > 5e-4, flux, j.c - 1)


class Square(nedhpc.Problem):
    """A term that has no sensitivity at u = 0."""

    domain = nedhpc.Box([0.0], [1.0])

    @nedhpc.residual("interior")
    def square(self, x, j):
        return j.u**2 - torch.exp(x[:, 0])


def plan_of(problem, **tables):
    table = default_table(**tables)
    table["problem"] = {"name": f"python:{type(problem).__name__}"}
    return Plan.of_table(table, problem=problem)


def case_of(problem, **tables):
    """A case at the start of its run, with its state."""
    plan = plan_of(problem, **tables)
    case = Case(COMM, plan)
    state = fresh(case, _blank(plan))
    case.take_up(state)
    return case, state


def _blank(plan):
    from nedhpc.files.checkpoint import State

    return State(np.empty(0), dict(plan.problem.coefficients), 0, 0.0, 1.0)


def test_each_point_is_divided_by_its_own_sensitivity():
    """Unit jets change every balanced component by the same amount, at both ends."""
    case, _ = case_of(Wall(), run={"start": "random"})
    term = next(term for term in case.leg.terms if term.name == "ends")
    x = torch.tensor([[0.0], [1e-3]])
    b = case.leg.energy.balance.factors(term, x, None, None)[:, 0]
    size = float(case.plan.ansatz.scaling.size_M[0])
    sensitivity = torch.tensor([size, 1e-9 * size / 5e-4])
    torch.testing.assert_close(b * sensitivity, torch.full((2,), (CONDITION / 2) ** 0.5))


@pytest.mark.parametrize("start", ["random", "last_layer"])
def test_a_factor_of_a_term_changes_nothing(tmp_path, start):
    theta = []
    for name, factor in (("one", 1.0), ("other", 1e9)):
        table = default_table(sampling={"interior": 40}, run={"max_steps": 4, "start": start})
        table["problem"] = {"name": "python:Wall"}
        nedhpc.run(table, tmp_path / name, COMM, problem=Wall(factor))
        theta.append(nedhpc.load(tmp_path / name, Wall(factor))(np.linspace(0, 1e-3, 20)))
    np.testing.assert_allclose(theta[1], theta[0], atol=1e-6)


@pytest.mark.parametrize("diffusivity", [1e-24, 1e-9, 1e12])
def test_conditions_of_very_different_sizes_are_both_met(tmp_path, diffusivity):
    table = default_table(sampling={"interior": 40}, run={"max_steps": 10})
    table["problem"] = {"name": "python:Wall"}
    problem = Wall(diffusivity=diffusivity)
    nedhpc.run(table, tmp_path / "run", COMM, problem=problem)
    x = np.linspace(0, 1e-3, 20)
    np.testing.assert_allclose(
        nedhpc.load(tmp_path / "run", problem)(x)[:, 0], 1 + 500 * x, rtol=1e-8
    )


def test_weights_multiply_the_balanced_terms():
    def energies(**weights):
        case, _ = case_of(Wall(), run={"start": "random"}, weights=weights)
        theta = torch.as_tensor(case.plan.ansatz.initial(0))
        return case.flow.energies(theta, 0.0)

    plain, heavy = energies(), energies(ends=100.0)
    np.testing.assert_allclose(heavy[1] / heavy[0], 100 * plain[1] / plain[0], rtol=1e-6)


def test_none_leaves_the_energy_as_written():
    case, state = case_of(Wall(), weights={"balance": "none"}, run={"start": "random"})
    theta = torch.as_tensor(state.theta_P)
    assert state.reference_P is None
    written = case.leg.energy.as_written(theta, case.flow.sample)
    np.testing.assert_allclose(case.flow.energies(theta, 0.0), written.numpy(), rtol=1e-12)


def test_the_energy_as_written_does_not_depend_on_the_balance():
    balanced, state = case_of(Wall(), run={"start": "random"})
    theta = torch.as_tensor(state.theta_P)
    found = balanced.leg.energy.as_written(theta, balanced.flow.sample)
    points = balanced.flow.sample["interior"]
    j = balanced.plan.ansatz.jets(theta, points.x_ND, balanced.leg.terms[0].layout)
    c_xx = balanced.leg.terms[0].layout.view(j).c_xx
    torch.testing.assert_close(found[0], 0.5 * (points.weight_N * c_xx**2).sum())


def test_a_term_without_sensitivity_at_the_start_has_finite_factors():
    plan = plan_of(Square())
    theta_P = np.zeros(plan.energy.num_parameters)
    balance = Balance(plan.ansatz, plan.terms, theta_P, plan.domain, None)
    b = balance.factors(plan.terms[0], torch.rand(5, 1), None, None)
    assert b.isfinite().all() and (b > 0).all()


def test_data_columns_of_any_size_count_alike():
    x = np.linspace(-1, 1, 50)[:, None]
    y = np.concatenate([1e5 * np.sin(3 * x), 1e-7 * np.cos(3 * x) + 3], 1)

    class Columns(nedhpc.Problem):
        domain, outputs = nedhpc.Box([-1.0], [1.0]), ("a", "b")
        data = nedhpc.DataSet(x, y)

        @nedhpc.residual("data")
        def fit(self, j, y):
            return j.values - y

    plan = plan_of(Columns(), sampling={"interior": 5})
    offset, size = output_sizes(plan.terms, plan.domain, plan.given, [], 2)
    np.testing.assert_allclose(offset, y.mean(0), rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(size, y.std(0), rtol=1e-4)


def test_a_source_gives_the_size_if_the_conditions_are_zero():
    class Source(nedhpc.Problem):
        domain = nedhpc.Box([0.0, 0.0], [2.0, 2.0])

        @nedhpc.residual("interior")
        def pde(self, j):
            return j.lap_u + 5e4

        @nedhpc.residual("boundary")
        def wall(self, j):
            return j.u

    plan = plan_of(Source(), sampling={"interior": 50, "boundary": 20})
    offset, size = output_sizes(plan.terms, plan.domain, None, [], 1)
    assert offset[0] == 0 and 5e3 < size[0] < 5e5
