"""Marches in time: orders of the steps, boundary conditions, systems, and what is refused."""

from math import log2, pi

import pytest
import torch
from mpi4py import MPI

import nedhpc
from nedhpc.errors import ConfigError, FailedStepError, UsageError
from nedhpc.files import checkpoint
from nedhpc.plan import Plan
from nedhpc.postprocess.info import info
from nedhpc.running.evolve import Run
from tests.conftest import make_config

NU = 0.4


class Heat(nedhpc.Problem):
    """u_t = NU u_xx on (0, 1), u = 0 at its ends exactly."""

    domain = nedhpc.Box([0.0], [1.0])
    hard = {"boundary": {"u": 0.0}}

    @nedhpc.rate()
    def heat(self, j):
        return NU * j.u_xx

    def start(self, x):
        return torch.sin(pi * x[:, 0])

    def exact(self, x, t):
        return torch.exp(-NU * pi**2 * t) * torch.sin(pi * x[:, 0])


def march(problem, folder, comm=MPI.COMM_SELF, resumed=None, hidden=32, end=0.2, **tables):
    """(status, State, Run) of a march."""
    base = {
        "problem": {"name": "python:X"},
        "network": {"hidden": [hidden]},
        "sampling": {"interior": 100, "rule": "grid"},
        "run": {"max_time": end, "start": "auto"},
    }
    for name, table in tables.items():
        base[name] = base.get(name, {}) | table
    plan = Plan(make_config(**base), problem, comm.size)
    run = Run(comm, plan, folder, resumed)
    return *run.evolve(), run


def fixed(name, dt):
    return {"type": name, "dt": dt, name: {"adapt": "none"}}


@pytest.mark.parametrize(
    ("name", "order", "end", "num_steps"),
    [("midpoint", 2, 0.2, 4), ("sdirk3", 3, 0.2, 5), ("sdirk4", 4, 0.4, 2)],
)
def test_order(name, order, end, num_steps, folder):
    errors = []
    for n in (num_steps, 2 * num_steps):
        stepper = fixed(name, end / n)
        status, state, run = march(Heat(), folder / str(n), end=end, stepper=stepper)
        assert status == "max_time" and state.step == n and state.time == pytest.approx(end)
        errors.append(run.last.measured().relative_l2)
    assert log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


class Mixed(nedhpc.Problem):
    """Two outputs with Neumann, Robin and time-dependent Dirichlet conditions and a source."""

    domain = nedhpc.Box([0.0], [1.0])
    outputs = ("u", "v")

    @nedhpc.rate()
    def system(self, x, j, t):
        # u* = cos(t) (1 + x^2), v* = t e^x
        source = -torch.sin(t) * (1 + x[:, 0] ** 2) - 2 * torch.cos(t) + t * torch.exp(x[:, 0])
        return torch.stack([j.u_xx - j.v + source, j.v_xx - j.v + torch.exp(x[:, 0])], 1)

    @nedhpc.residual("boundary", weight=10.0)
    def ends(self, x, j, n, t):
        neumann = j.u_x * n[:, 0] - 2 * x[:, 0] * torch.cos(t)
        robin = j.v + j.v_x * n[:, 0] - t * torch.exp(x[:, 0]) * (1 + n[:, 0])
        return torch.stack([neumann, robin], 1)

    def start(self, x):
        return torch.stack([1 + x[:, 0] ** 2, 0 * x[:, 0]], 1)

    def exact(self, x, t):
        return torch.stack([torch.cos(t) * (1 + x[:, 0] ** 2), t * torch.exp(x[:, 0])], 1)


@pytest.mark.parametrize("name", ["midpoint", "sdirk4"])
def test_conditions_system_and_source(name, folder):
    stepper = fixed(name, 0.05)
    _, _, run = march(Mixed(), folder, end=0.3, stepper=stepper)
    assert run.last.measured().relative_l2 < (5e-4 if name == "midpoint" else 1e-5)


def test_start_is_fitted_and_reported(folder):
    march(Heat(), folder, run={"max_steps": 0})
    found = info(folder)
    assert found["start_error"] < 1e-8 and found["relative_l2"] < 1e-8


def test_poor_start_is_refused(folder):
    class Jump(Heat):
        def start(self, x):
            return torch.tanh(200 * (x[:, 0] - 0.3)) * x[:, 0] * (1 - x[:, 0])

    with pytest.raises(UsageError, match=r"fits u0 .* above\s+run.max_start_error"):
        march(Jump(), folder, hidden=4)


def test_checkpoint_as_start(folder):
    """A march goes on from a checkpoint at its time; a fit of another u0 is refused."""
    stepper, first = fixed("sdirk4", 0.05), folder / "first"
    end = march(Heat(), first, end=0.1, stepper=stepper)[1]
    last, start = (str(file) for file in (checkpoint.newest(first)[0], checkpoint.paths(first)[0]))
    state, run = march(Heat(), folder / "b", stepper=stepper, run={"initial": last})[1:]
    assert run.first_step == 0 and state.step == 2 and state.time == pytest.approx(0.2)
    assert run.last.measured().relative_l2 < 1e-5
    begun = march(Heat(), folder / "c", stepper=stepper, run={"initial": start, "max_steps": 0})[1]
    assert begun.time == 0 and info(folder / "c")["start_error"] < 1e-8 and end.time > 0

    class Other(Heat):
        def start(self, x):
            return torch.sin(2 * pi * x[:, 0])

    with pytest.raises(UsageError, match="solves another problem"):
        march(Other(), folder / "d", run={"initial": start})
    with pytest.raises(UsageError, match="would end at run.max_time"):
        march(Heat(), folder / "e", end=0.1, run={"initial": last})


class NoStart(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])

    @nedhpc.rate()
    def heat(self, j):
        return j.u_xx


class WithTime(Heat):
    domain = nedhpc.SpaceTime([0.0], [1.0], 1.0)


class TwoRates(Heat):
    @nedhpc.rate()
    def other(self, j):
        return j.u


class WrongColumns(Heat):
    @nedhpc.rate()
    def heat(self, j):
        return torch.stack([j.u_xx, j.u], 1)


class WrongStart(Heat):
    def start(self, x):
        return x.sum()


class Steady(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])

    @nedhpc.residual()
    def pde(self, j):
        return j.u_xx


@pytest.mark.parametrize(
    ("problem", "tables", "message"),
    [
        (NoStart, {}, "def start"),
        (WithTime, {}, "has the time t as a coordinate"),
        (TwoRates, {}, "one method that returns"),
        (WrongColumns, {}, "one for each output"),
        (WrongStart, {}, "`start` returns"),
        (Heat, {"stepper": {"type": "ptc"}}, "the run marches in time"),
        (Heat, {"stepper": {"type": "bdf"}}, "allowed: .*sdirk4"),
        (Steady, {"stepper": {"type": "sdirk4"}}, "the problem has no rate"),
        (Heat, {"run": {}}, "run.max_time: missing"),
        (Heat, {"sampling": {"rule": "residual", "resample_every": 5}}, "has no such rule"),
    ],
)
def test_bad_input(problem, tables, message):
    tables = {"run": {"max_time": 1.0}} | tables
    with pytest.raises((ConfigError, UsageError), match=message):
        Plan(make_config(**tables, problem={"name": "python:X"}), problem())


@pytest.mark.parametrize(
    "stepper", [fixed("sdirk3", 0.1), {"type": "sdirk3", "sdirk3": {"max_projection_error": 1e-7}}]
)
def test_march_that_the_network_cannot_follow(stepper, folder):
    class Front(nedhpc.Problem):
        domain = nedhpc.Periodic([0.0], [2 * pi])

        @nedhpc.rate()
        def burgers(self, j):
            return -j.u * j.u_x + 1e-3 * j.u_xx

        def start(self, x):
            return torch.sin(x[:, 0])

    with pytest.raises(FailedStepError, match="network.hidden"):
        march(Front(), folder, hidden=6, end=3.0, stepper=stepper)
    found = info(folder)
    assert found["status"] == "failed" and 0 < found["time"] < 2


@pytest.mark.mpi
def test_ranks_agree(comm, folder):
    stepper = fixed("sdirk3", 0.05)
    alone = march(Heat(), folder / f"own{comm.rank}", end=0.1, stepper=stepper)[2]
    every = march(Heat(), folder / "all", comm, end=0.1, stepper=stepper)[2]
    x = torch.linspace(0, 1, 50)[:, None]
    u = [r.case.evaluation.u(r.case.take_up(r.last.state), x) for r in (alone, every)]
    assert (u[0] - u[1]).abs().max() < 1e-8


def test_tolerance_is_kept(folder):
    settings = {"type": "sdirk4", "sdirk4": {"tolerance": 1e-5}}
    _, state, run = march(Heat(), folder, end=0.5, stepper=settings)
    assert run.last.measured().relative_l2 < 1e-4
    assert state.step < 60 and state.stepper["spent"] <= 1e-5


def test_resume_is_bitwise(folder):
    """A march that is stopped in the middle and resumed ends with the same bits."""
    settings = {"type": "sdirk3", "sdirk3": {"tolerance": 1e-4}}
    whole = march(Heat(), folder / "whole", stepper=settings)[1]
    part = march(Heat(), folder / "part", stepper=settings, run={"max_steps": whole.step // 2})[1]
    assert 0 < part.step < whole.step
    resumed = checkpoint.newest(folder / "part")[1:3]
    state = march(Heat(), folder / "part", resumed=resumed, stepper=settings)[1]
    assert state.step == whole.step and state.time == whole.time
    assert (state.theta_P == whole.theta_P).all()


def test_last_layer_is_a_method_of_lines(folder):
    flow = {"parameters": "last_layer"}
    first = march(Heat(), folder / "a", run={"max_steps": 0})[1]
    state, run = march(Heat(), folder / "b", flow=flow, stepper=fixed("sdirk4", 0.05))[1:]
    last = run.plan.ansatz.linear_columns.start
    assert (state.theta_P[:last] == first.theta_P[:last]).all()
    assert run.last.measured().relative_l2 < 2e-6


def test_network_is_fitted_again(folder):
    """If the network cannot follow a front, other features can, on a state that is the same."""

    class Front(nedhpc.Problem):
        domain = nedhpc.Periodic([0.0], [2 * pi])

        @nedhpc.rate()
        def burgers(self, j):
            return -j.u * j.u_x + 0.05 * j.u_xx

        def start(self, x):
            return torch.sin(x[:, 0])

    def until_failure(out, refits):
        settings = {"adapt": "none", "max_projection_error": 2e-5, "refits": refits}
        stepper = {"type": "sdirk3", "dt": 0.1, "sdirk3": settings}
        try:
            march(Front(), out, hidden=12, end=2.0, stepper=stepper)
        except FailedStepError as error:
            print(error)
        return info(out)["time"], checkpoint.newest(out)[1].stepper.get("refits", 0)

    once, again = until_failure(folder / "a", 0), until_failure(folder / "b", 2)
    assert once[1] == 0 and again[1] > 0 and again[0] > once[0]
