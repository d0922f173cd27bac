"""A run that ends by itself says why: the gradient vanished, or the likely cause of the stall."""

import numpy as np
import pytest
import torch
from conftest import make_table
from mpi4py import MPI

import nedhpc
from nedhpc.flows.causes import Facts, contradiction, ending, gather_facts, likely_cause
from nedhpc.plan import Plan
from nedhpc.running.case import Case
from nedhpc.running.evolve import Run

pytestmark = pytest.mark.mpi
EPS = np.finfo(float).eps


class Contrary(nedhpc.Problem):
    """No u is 1 and -1."""

    domain = nedhpc.Box([0.0], [1.0])
    high = nedhpc.residual("interior")(lambda self, j: j.u - 1)
    low = nedhpc.residual("interior")(lambda self, j: j.u + 1)


class Mixed(nedhpc.Problem):
    """A term of each kind, and a coefficient."""

    domain = nedhpc.Box([0.0], [1.0])
    coefficients = {"nu": 0.5}
    data = nedhpc.DataSet(np.linspace(0, 1, 7)[:, None], np.ones((7, 1)))
    pde = nedhpc.residual("interior", weight=2.0)(lambda self, j, c: c.nu * j.lap_u + j.u_x)
    ritz = nedhpc.density("interior")(lambda self, j: j.u_x**2 / 2 - j.u)
    label = nedhpc.cross_entropy()(lambda self, j: torch.stack([j.u, -j.u], 1)[:, :1])


class Square(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])
    square = nedhpc.residual("interior")(lambda self, j: j.u**2)


def make_case(comm, problem, **tables):
    case = Case(comm, Plan.of_table(make_table(problem={}, **tables), None, problem, comm.size))
    case.draw(0, None)
    theta = case.plan.ansatz.initial(0)
    return case, case.parameters.join(theta, dict(case.plan.problem.coefficients))


def end(comm, case, theta, rank=0):
    """The Ending, which is the same on every rank."""
    found = ending(comm, case.flow.energy, theta, case.flow.sample, rank)
    assert comm.allgather(found) == [found] * comm.size
    return found


def finish(comm, folder, given=None, **tables):
    """(status, message) of a whole run; `given` replaces the problem."""
    table = make_table(run={"max_steps": 200}, **tables)
    run = Run(comm, Plan.of_table(table, None, given, comm.size), folder / "run")
    status, _ = run.evolve()
    return status, run.note


def test_an_exact_fit_has_converged(comm, folder):
    """Five points are fitted to rounding; the residual and its gradient are rounding errors."""
    fit = {"name": "regression", "function": "sinc", "num_points": 5}
    status, message = finish(comm, folder, problem=fit, network={"hidden": [20]})
    assert (status, message) == ("converged", "the gradient vanished to rounding")


def test_contradictory_conditions_are_named(comm, folder):
    status, message = finish(comm, folder, Contrary, problem={})
    assert status == "stalled" and message.startswith("no step lowers the energy further; ")
    assert "the terms 'high' and 'low' contradict each other" in message


@pytest.mark.one_rank
def test_saturated_units_are_the_cause(comm, folder):
    network = {"init": "uniform", "init_scale": 1e4}
    status, message = finish(comm, folder, network=network)
    assert status == "stalled"
    assert "saturation: 100% of the hidden units are constant at all points" in message


def test_a_zero_gradient_is_the_cause(comm):
    """u^2 has no gradient at u = 0, where its energy is least. It is not called converged."""
    case, theta = make_case(comm, Square)
    theta[case.plan.ansatz.linear_columns] = 0
    found = end(comm, case, theta)
    assert not found.vanished and "a zero gradient" in found.cause


def test_the_effective_rank_tells_an_ill_conditioned_start(comm):
    case, theta = make_case(comm, Square)
    assert "effective rank 2 of at most 25; use run.start" in end(comm, case, theta, 2).cause
    for rank in (0, 20):
        assert "a network that is too small" in end(comm, case, theta, rank).cause


def test_facts_do_not_depend_on_the_number_of_ranks(comm):
    case, theta = make_case(comm, Mixed)
    single, _ = make_case(MPI.COMM_SELF, Mixed)
    facts = gather_facts(comm, case.flow.energy, theta, case.flow.sample)
    alone = gather_facts(MPI.COMM_SELF, single.flow.energy, theta, single.flow.sample)
    for name in ("g_KP", "size_P", "residual_K", "own_K", "num_rows"):
        np.testing.assert_allclose(getattr(facts, name), getattr(alone, name), rtol=1e-12)
    g_P, _ = case.flow.gradient(theta, 0.0)
    np.testing.assert_allclose(facts.g_KP.sum(0), g_P.numpy(), rtol=1e-9, atol=1e-12)
    assert (facts.size_P >= np.abs(facts.g_KP).sum(0) * (1 - 1e-12)).all()
    assert facts.residual_K[0] > 0 and not facts.residual_K[1:].any()


def facts(g_KP, residual_K, own_K, size=1.0, num_rows=100):
    g_KP = np.array(g_KP, dtype=float)
    size_P = np.full(g_KP.shape[1], size)
    return Facts(g_KP, size_P, np.array(residual_K), np.array(own_K), num_rows)


def test_two_large_terms_with_opposite_gradients_contradict():
    opposed, large = [[1.0, 0.0], [-0.9, 0.1]], ([1.0, 1.0], [2.0, 2.0])
    assert contradiction(facts(opposed, *large)) == (0, 1)
    assert contradiction(facts([[1.0, 0.0], [0.9, 0.1]], *large)) is None
    assert contradiction(facts([[1.0, 0.0], [-0.1, 0.0]], *large)) is None
    # A network that is too small satisfies one condition nearly.
    assert contradiction(facts(opposed, [1e-4, 1.0], [2.0, 2.0])) is None
    assert contradiction(facts(opposed[:1], [1.0], [2.0])) is None
    # The third term is small, and is not one of the two.
    three = facts([[0.0, 1.0], *opposed], [1e-9, 1.0, 1.0], [1.0, 2.0, 2.0])
    assert contradiction(three) == (1, 2)


def test_a_minimum_to_the_accuracy_of_the_energy_is_told():
    case, _ = make_case(MPI.COMM_SELF, Square)
    flat = facts([[1e-9, 0.0]], [1e-4], [1.0])
    assert "minimum to the accuracy" in likely_cause(case.flow.energy, flat, 0.0, 1, EPS)
    poor = facts([[1e-9, 0.0]], [0.5], [1.0])
    assert "network that is too small" in likely_cause(case.flow.energy, poor, 0.0, 0, EPS)


def test_a_poor_minimum_has_not_converged(comm):
    """At u = 0.5 the energy of u = 0 and u = 1 is least, and large."""

    class Half(nedhpc.Problem):
        domain = nedhpc.Box([0.0], [1.0])
        ends = nedhpc.residual("interior")(lambda self, j: torch.stack([j.u, j.u - 1], 1))

    case, theta = make_case(comm, Half)
    theta[case.plan.ansatz.linear_columns] = 0
    theta[-1] = 0.5
    found = end(comm, case, theta, 20)
    facts = gather_facts(comm, case.flow.energy, theta, case.flow.sample)
    assert facts.relative_gradient < 10 * EPS
    assert not found.vanished and "network that is too small" in found.cause
