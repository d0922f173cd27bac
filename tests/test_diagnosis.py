"""NaN and infinity are reported with the term, the point and the jets, the same on every rank."""

import numpy as np
import pytest
import torch
from conftest import make_table
from mpi4py import MPI

import nedhpc
from nedhpc.errors import NonFiniteError
from nedhpc.flows.diagnosis import explain
from nedhpc.plan import Plan
from nedhpc.running.case import Case
from nedhpc.running.evolve import Run

pytestmark = pytest.mark.mpi


class Line(nedhpc.Problem):
    """The term under test stands beside one that is always finite."""

    domain = nedhpc.Box([0.0], [1.0])

    @nedhpc.residual("interior")
    def healthy(self, x, j):
        return j.lap_u + 1

    @nedhpc.residual("interior")
    def broken(self, x, j):
        return j.u


def make_line(method, kind=nedhpc.residual):
    return type("Broken", (Line,), {"broken": kind("interior")(method)})


def plan_of(comm, problem, stepper="ptc", **stepper_table):
    stepper_table = {"type": stepper, "dt": 1e-3} | stepper_table
    table = make_table(problem={}, stepper=stepper_table, run={"max_steps": 5})
    return Plan.of_table(table, None, problem, comm.size)


def zero_state(case):
    """u = 0 at all points, but du/dtheta is not 0."""
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    theta[case.plan.ansatz.linear_columns] = 0
    return theta


def same_text(comm, text):
    assert comm.allgather(text) == [text] * comm.size
    return text


BROKEN = {
    "a division by zero": (
        lambda self, x, j: j.u / (0 * x[:, 0]),
        r"term 'broken': its value is -?(inf|nan) at x = 0\.0125 with u = .*\(40 of 40 points\)",
    ),
    "a logarithm": (
        lambda self, x, j: torch.log(x[:, 0] - 0.9) + j.u,
        r"term 'broken': its value is nan at x = 0\.0125 with u = .*\(36 of 40 points\)",
    ),
    "a logarithm on the last rank": (
        lambda self, x, j: torch.log(0.9 - x[:, 0]) + j.u,
        r"term 'broken': its value is nan at x = 0\.9125 with u = .*\(4 of 40 points\)",
    ),
}


@pytest.mark.parametrize("stepper", ["ptc", "euler", "adam", "beuler"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_value_at_the_start_is_located(comm, folder, name, stepper):
    method, expected = BROKEN[name]
    plan = plan_of(comm, make_line(method), stepper)
    with pytest.raises(NonFiniteError, match=f"before the first step: .*{expected}") as caught:
        Run(comm, plan, folder / "run").evolve()
    text = same_text(comm, str(caught.value))
    assert "divides by zero or takes a root or log of a negative number" in text
    assert "time step" not in text and len(text.splitlines()) == 1


@pytest.mark.parametrize("stepper", ["ptc", "euler", "adam", "beuler"])
def test_a_root_at_zero_has_no_derivative(comm, folder, stepper):
    """The energy is finite there, and the gradient is not."""
    plan = plan_of(comm, make_line(lambda self, x, j: torch.sqrt(j.u - j.u.detach())), stepper)
    with pytest.raises(NonFiniteError, match="before the first step: ") as caught:
        Run(comm, plan, folder / "run").evolve()
    text = same_text(comm, str(caught.value))
    assert "term 'broken': its value is 0, but its derivative is not finite at x = 0.0125" in text
    assert "such as a root or a norm at 0" in text


@pytest.mark.parametrize("metric", ["euclidean", "energy"])
def test_every_derivative_of_the_flow_is_checked(comm, metric):
    """At u = 0 the slope of sqrt(u^2 + 1) is finite, that of sqrt(u) is not."""
    for method, is_finite in (
        (lambda self, x, j: torch.sqrt(j.u), False),
        (lambda self, x, j: torch.sqrt(j.u**2 + 1), True),
    ):
        table = make_table(problem={}, flow={"metric": metric}, solver={"type": "tsqr"})
        case = Case(comm, Plan.of_table(table, None, make_line(method), comm.size))
        case.draw(0, None)
        theta = zero_state(case)
        for function in (case.flow.velocity, case.flow.linearise):
            if is_finite:
                function(theta, 0.0)
                continue
            with pytest.raises(NonFiniteError, match="'broken': its value is 0, but its deriv"):
                function(theta, 0.0)


def test_the_second_derivative_of_a_density_is_checked(comm):
    """A density |u|^1.5 has a slope at 0, but no second derivative, which its rows need."""
    problem = make_line(lambda self, x, j: j.u.abs() ** 1.5, nedhpc.density)
    case = Case(comm, plan_of(comm, problem))
    case.draw(0, None)
    with pytest.raises(NonFiniteError, match="its derivative is not finite"):
        case.flow.linearise(zero_state(case), 0.0)


def test_parameters_and_overflow_are_told_from_bad_methods(comm):
    case = Case(comm, plan_of(comm, Line))
    case.draw(0, None)
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    arguments = (comm, case.flow.energy)
    assert explain(*arguments, theta, case.flow.sample) == ("", "")
    kind, text = explain(*arguments, 1e160 * theta, case.flow.sample)
    assert kind in ("energy", "jets") and "term 'healthy'" in same_text(comm, text)
    theta[2] = np.nan
    kind, text = explain(*arguments, theta, case.flow.sample)
    assert kind == "parameters" and "1 of the 25 parameters" in text


def test_a_later_failure_names_the_step(comm, folder):
    """Adam moves nu by 1e-3 in each step, until the third makes it negative."""

    class Moves(Line):
        coefficients = {"nu": 2.5e-3}

        @nedhpc.residual("interior")
        def broken(self, x, j, c):
            return torch.log(c.nu) + 10 + 0 * j.u

    plan = plan_of(comm, Moves, "adam")
    expected = r"after step \d: .* learning rate .*'broken': its value is nan at .* nu = -0\.0004"
    with pytest.raises(NonFiniteError, match=expected):
        Run(comm, plan, folder / "run").evolve()


def test_coordinates_and_coefficients_are_named(comm):
    class Plane(nedhpc.Problem):
        domain = nedhpc.Box([0, 0], [1, 1])
        coefficients = {"nu": 0.25}

        @nedhpc.residual("interior")
        def pde(self, x, j, c):
            return c.nu * j.lap_u + j.grad_u.sum(1) / (0 * x[:, 0])

    table = make_table(problem={}, sampling={"interior": 36})
    case = Case(comm, Plan.of_table(table, None, Plane, comm.size))
    case.draw(0, None)
    theta = case.parameters.join(case.plan.ansatz.initial(0), {"nu": 0.25})
    _, text = explain(comm, case.flow.energy, theta, case.flow.sample)
    assert "x = 0.08333, y = 0.08333 with lap_u = " in same_text(comm, text)
    assert "grad_u = (" in text and "nu = 0.25 (36 of 36 points)" in text


def test_a_share_without_points_is_no_finding():
    """Three ranks may share two points."""
    case = Case(MPI.COMM_SELF, plan_of(MPI.COMM_SELF, Line))
    case.draw(0, None)
    points = case.flow.sample["interior"]
    empty = type(points)(points.x_ND[:0], points.weight_N[:0])
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    assert explain(MPI.COMM_SELF, case.flow.energy, theta, {"interior": empty}) == ("", "")
