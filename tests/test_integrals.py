"""Integrals over a part of the domain: in terms, as conditions, and the same on any ranks."""

from math import pi

import numpy as np
import pytest
import torch
from conftest import make_table
from mpi4py import MPI

import nedhpc
from nedhpc.config import validate
from nedhpc.errors import ConfigError, NonFiniteError
from nedhpc.plan import Plan
from nedhpc.postprocess.info import info
from nedhpc.running.case import Case
from nedhpc.sampling import quadrature
from nedhpc.sampling.counts import grown


class Nonlocal(nedhpc.Problem):
    """Integrals in an equation, on a wall and with a target, beside a coefficient."""

    domain = nedhpc.Box([0.0, 0.0], [1.0, 2.0])
    outputs = ("u", "v")
    coefficients = {"k": 0.7}

    @nedhpc.integral()
    def mass(self, x, j, c):
        return torch.stack([j.u * j.v + c.k * x[:, 0], j.u_x**2], 1)

    @nedhpc.integral("boundary", target=0.3, weight=2.0)
    def flux(self, j, n):
        return (j.grad_u * n).sum(1)

    @nedhpc.residual(weight=3.0)
    def pde(self, x, j, c, i):
        first = j.lap_u - c.k * i.mass[:, 0] * j.u + i.mass[:, 1] ** 2
        return torch.stack([first, j.v - i.flux * x[:, 1]], 1)


class WithDensity(Nonlocal):
    """The same with an energy density, which has no row residual."""

    @nedhpc.density()
    def extra(self, j, i):
        return j.u**2 * torch.exp(0.1 * i.flux)


def make_case(comm, problem=Nonlocal, **tables):
    tables = {"sampling": {"interior": 25, "boundary": 20, "rule": "sobol"}} | tables
    table = make_table(problem={"name": "x"}, **tables)
    case = Case(comm, Plan(validate(table), problem, comm.size))
    case.draw(0, None)
    return case


def parameters(case):
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    return torch.cat([theta, torch.as_tensor(list(case.plan.problem.coefficients.values()))])


def gathered(comm, rows):
    """Rows and residual of all ranks, in the order of their norms."""
    pairs = comm.allgather((rows.A.A_NP, rows.r_N))
    A, r = (torch.cat([pair[k] for pair in pairs]) for k in (0, 1))
    order = A.norm(dim=1).argsort()
    return A[order], r[order]


@pytest.mark.mpi
@pytest.mark.parametrize("balance", ["none", "auto"])
def test_rows_and_gradient_are_the_same_on_any_ranks(comm, balance):
    found = []
    for each in (MPI.COMM_SELF, comm):
        case = make_case(each, weights={"balance": balance})
        if balance == "auto":
            case = balanced(case)
        theta = parameters(case)
        g, E = case.flow.gradient(theta, 0.0)
        A, r = gathered(each, case.flow.rows(theta))
        found.append((g, torch.as_tensor(E), A, r, case.held_out_energy(theta)))
    for alone, shared in zip(*found, strict=True):
        torch.testing.assert_close(shared, alone, rtol=1e-12, atol=1e-12)
    g, E, A, r, _ = found[1]
    torch.testing.assert_close(A.T @ r, g, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(0.5 * r @ r, E.sum(), rtol=1e-12, atol=0)
    # One row for the target: interior 25 points of two components, and this one.
    assert len(r) == 2 * 25 + 1


def balanced(case):
    from nedhpc.running.start import first_state

    state = first_state(case)
    case.take_up(state)
    return case


@pytest.mark.mpi
@pytest.mark.parametrize("problem", [Nonlocal, WithDensity])
def test_the_gradient_is_that_of_finite_differences(comm, problem):
    case = make_case(comm, problem)
    theta = parameters(case)
    g, _ = case.flow.gradient(theta, 0.0)
    rng = np.random.default_rng(1)
    for direction in torch.as_tensor(rng.standard_normal((3, len(theta)))):
        h, E = 1e-4, []
        for s in (-2, -1, 1, 2):
            E.append(float(case.flow.energies(theta + s * h * direction, 0.0).sum()))
        slope = (E[0] - 8 * E[1] + 8 * E[2] - E[3]) / (12 * h)
        assert abs(slope - float(g @ direction)) < 1e-8 * (1 + abs(slope))


def test_rows_are_the_jacobian_in_every_storage(monkeypatch):
    case = make_case(MPI.COMM_SELF, network={"hidden": [64]}, solver={"type": "dual"})
    assert not case.leg.is_factored  # dI / dtheta is no outer product
    theta = parameters(case)
    held = case.flow.rows(theta)
    h, v = 1e-6, torch.as_tensor(np.random.default_rng(2).standard_normal(len(theta)))
    r = [case.flow.evaluate(theta + s * h * v, 0.0)[1] for s in (-1, 1)]
    torch.testing.assert_close(held.A.matvec(v), (r[1] - r[0]) / (2 * h), rtol=1e-7, atol=1e-7)
    monkeypatch.setattr("nedhpc.rows.gather.HOLD_BYTES", 0)
    streamed = case.flow.rows(theta).A
    w = torch.as_tensor(np.random.default_rng(3).standard_normal(len(held.r_N)))
    torch.testing.assert_close(streamed.matvec(v), held.A.A_NP @ v, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(streamed.rmatvec(w), held.A.A_NP.T @ w, rtol=1e-12, atol=1e-12)
    assert torch.allclose(torch.cat([A for _, A in streamed.blocks()]), held.A.A_NP, rtol=1e-12)


STEPPERS = [
    ("euclidean", {"type": "ptc"}),
    ("euclidean", {"type": "spring", "dt": 1.0}),
    ("euclidean", {"type": "adam", "adam": {"lr": 1e-3}}),
    ("euclidean", {"type": "lbfgs"}),
    ("euclidean", {"type": "rk", "dt": 1e-5}),
    ("energy", {"type": "euler", "dt": 1e-2}),
    ("l2", {"type": "beuler", "dt": 1e-3}),
]


@pytest.mark.parametrize("metric, stepper", STEPPERS)
def test_each_stepper_lowers_an_energy_with_integrals(metric, stepper):
    case = make_case(MPI.COMM_SELF, stepper=stepper, flow={"metric": metric, "metric_eps": 1e-2})
    theta = parameters(case)
    before, after = float(case.flow.energies(theta, 0.0).sum()), []

    def after_step(parameters, step, time, dt, info):
        after.append(float(case.flow.energies(parameters, 0.0).sum()))
        return step >= 3

    with case.time_stepper() as stepper:
        stepper.solve(theta, 0, 0.0, case.config.stepper.dt, {}, lambda step: False, after_step)
    assert after[-1] < before


@pytest.mark.parametrize("part", ["interior", "boundary"])
def test_gauss_nodes_integrate_polynomials_exactly(part):
    domain = nedhpc.Box([0.0, 1.0], [2.0, 4.0])
    x, w = quadrature.nodes(domain.parts[part], quadrature.default_count(domain.parts[part]))
    value = (w * x[:, 0] ** 6 * x[:, 1] ** 3).sum()
    X, Y = 2.0**7 / 7, (4.0**4 - 1) / 4
    exact = X * Y if part == "interior" else X * (1 + 4.0**3) + 2.0**6 * Y
    assert abs(value / exact - 1) < 1e-13
    assert abs(w.sum() / domain.parts[part].measure - 1) < 1e-14


def refused(match, **attributes):
    base = {"domain": nedhpc.Box([0.0], [1.0])}
    base["pde"] = nedhpc.residual()(lambda self, j: j.u_x - 1)
    cls = type("Bad", (nedhpc.Problem,), base | attributes)
    with pytest.raises(ConfigError, match=match):
        Plan(validate(make_table(problem={"name": "x"})), cls)


def test_wrong_integrals_are_refused():
    mean = nedhpc.integral()(lambda self, j: j.u)
    uses = nedhpc.residual()(lambda self, j, i: j.u - i.mean)
    refused("no term uses the integrals 'mean'", mean=mean)
    refused("declare them by methods with @nedhpc.integral", both=uses)
    nested = nedhpc.integral()(lambda self, j, i: j.u * i.mean)
    refused("cannot use integrals themselves", mean=mean, nested=nested)
    refused("target = 'a'", mean=nedhpc.integral(target="a")(lambda self, j: j.u))
    refused("target = nan", mean=nedhpc.integral(target=float("nan"))(lambda self, j: j.u))
    refused("one for each of its 1", mean=nedhpc.integral(target=[1, 2])(lambda self, j: j.u))
    seen = {"data": nedhpc.DataSet(np.zeros((9, 1)), np.zeros((9, 1)))}
    refused("no quadrature nodes", mean=nedhpc.integral("data")(lambda self, j: j.u), **seen)
    refused("other points", mean=nedhpc.integral(target=0)(lambda self, j: j.u - j.u.mean()))
    refused("other points", both=nedhpc.residual()(lambda self, j, x: j.u - torch.cumsum(j.u, 0)))
    refused("has no gradient", mean=nedhpc.integral(target=0)(lambda self, x: x[:, 0]))


def test_time_windows_are_refused():
    class Decay(nedhpc.Problem):
        domain = nedhpc.SpaceTime([], [], 1.0)

        @nedhpc.integral()
        def area(self, j):
            return j.u

        @nedhpc.residual()
        def ode(self, j, i):
            return j.u_t + i.area

        @nedhpc.residual("initial")
        def start(self, j):
            return j.u - 1

    with pytest.raises(ConfigError, match="its integrals are over all times"):
        Plan(validate(make_table(problem={"name": "x"}, run={"windows": 2})), Decay)


class Neumann(nedhpc.Problem):
    """-lap u = f with a given flux on the walls, and mean zero; u* = e^x cos y - mean."""

    domain = nedhpc.Box([0.0, 0.0], [1.0, 1.0])
    mean = float((np.e - 1) * np.sin(1))

    def exact(self, x):
        return torch.exp(x[:, 0]) * torch.cos(x[:, 1]) + x[:, 0] ** 2 - self.mean - 1 / 3

    @nedhpc.residual()
    def pde(self, j):
        return -j.lap_u + 2

    @nedhpc.residual("boundary")
    def flux(self, x, j, n):
        e, y = torch.exp(x[:, 0]), x[:, 1]
        slope = torch.stack([e * torch.cos(y) + 2 * x[:, 0], -e * torch.sin(y)], 1)
        return ((j.grad_u - slope) * n).sum(1)

    @nedhpc.integral(target=0.0)
    def zero_mean(self, j):
        return j.u


class Fredholm(nedhpc.Problem):
    """u'' + int_0^1 (1 + s x) u(s) ds = f, u(0) = 1, u(1) = e; u* = e^x. A separable kernel."""

    domain = nedhpc.Box([0.0], [1.0])

    def exact(self, x):
        return torch.exp(x[:, 0])

    @nedhpc.integral()
    def moments(self, x, j):
        return torch.stack([j.u, x[:, 0] * j.u], 1)

    @nedhpc.residual()
    def equation(self, x, j, i):
        x = x[:, 0]
        f = torch.exp(x) + np.e - 1 + x
        return j.u_xx + i.moments[:, 0] + x * i.moments[:, 1] - f

    @nedhpc.residual("boundary")
    def ends(self, x, j):
        return j.u - self.exact(x)


@pytest.mark.parametrize("problem, reached", [(Neumann, 1e-11), (Fredholm, 1e-11)])
def test_a_problem_with_integrals_is_solved_with_default_settings(problem, reached, tmp_path):
    nedhpc.run({"run": {"max_steps": 20}}, problem=problem, out=tmp_path / "run")
    found = info(tmp_path / "run")
    assert found["relative_l2"] < reached and not found["warnings"]


def test_an_integrand_that_is_not_finite_is_named():
    class Root(nedhpc.Problem):
        domain = nedhpc.Box([0.0], [1.0])

        @nedhpc.integral()
        def root(self, j):
            return torch.sqrt(j.u - 100)

        @nedhpc.residual()
        def pde(self, j, i):
            return j.u_x - i.root

    case = make_case(MPI.COMM_SELF, Root, sampling={"interior": 25})
    with pytest.raises(NonFiniteError, match="integral 'root': its value is nan at x = "):
        case.flow.linearise(parameters(case), 0.0)


def test_more_nodes_are_used_if_the_held_out_ones_say_so():
    """Four nodes cannot integrate this; the held-out nodes show it, and a grown sample has more."""

    class Wave(nedhpc.Problem):
        domain = nedhpc.Box([0.0], [1.0])

        @nedhpc.integral(target=0.0)
        def area(self, x, j):
            return j.u * torch.cos(12 * pi * x[:, 0])

    table = make_table(problem={"name": "x"}, sampling={"interior_nodes": 4})
    plan = Plan(validate(table), Wave)
    case = Case(MPI.COMM_SELF, plan)
    case.draw(0, None)
    theta = parameters(case)
    on_sample, held_out = case.flow.energies(theta, 0.0).sum(), case.held_out_energy(theta)
    assert abs(held_out / on_sample - 1) > 0.1
    assert grown(plan.counts, "sobol", plan.domain, 4)["interior_nodes"] == 64
    assert grown(plan.counts, "sobol", plan.domain, -4)["interior_nodes"] == 4


def test_the_target_of_an_integral_is_no_point_of_a_metric():
    """A metric of u is over the interior, not over the point that holds the target's row."""
    tables = {"flow": {"metric": "l2"}, "sampling": {"rule": "sobol"}}
    plan = Plan(validate(make_table(problem={"name": "x"}, **tables)), Neumann)
    assert list(plan.metric.layouts) == ["interior"]


def test_a_shape_with_jumps_in_its_map_has_no_gauss_rule():
    """Gauss nodes of the unit square would miss the area of a part by up to a tenth of it."""
    corners = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
    hole = nedhpc.Rectangle([0, 0], [2, 1]) - nedhpc.Disk([1, 0.5], 0.2)
    parts = [*nedhpc.Polygon(corners).parts.values(), *hole.parts.values()]
    assert not any(quadrature.has_rule(part) for part in parts)
    box = nedhpc.Rectangle([0, 0], [2, 1])
    assert all(quadrature.has_rule(part) for part in box.parts.values())
