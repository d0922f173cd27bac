"""Explicit steps of a march: orders, error control, eps, conditions, random columns, ranks."""

from math import log2, pi

import pytest
import torch

import nedhpc
from nedhpc.errors import FailedStepError
from nedhpc.files import checkpoint
from nedhpc.postprocess.info import info
from tests.test_march import Heat, Mixed, march


class Wave(nedhpc.Problem):
    """u_t = -u_x, periodic."""

    domain = nedhpc.Periodic([0.0], [2 * pi])

    @nedhpc.rate()
    def advection(self, j):
        return -j.u_x

    def start(self, x):
        return torch.exp(torch.sin(x[:, 0]))

    def exact(self, x, t):
        return torch.exp(torch.sin(x[:, 0] - t))


def explicit(**settings):
    return {"type": "explicit", "explicit": settings}


@pytest.fixture(scope="module")
def initial(tmp_path_factory):
    """A function that gives a network fitted to the start of Wave, by its width."""
    found = {}

    def fit(hidden):
        if hidden not in found:
            folder = tmp_path_factory.mktemp("start")
            run = {"max_steps": 0, "max_start_error": 0.1}
            march(Wave(), folder, hidden=hidden, run=run)
            found[hidden] = {"initial": str(checkpoint.newest(folder)[0]), "max_start_error": 0.1}
        return found[hidden]

    return fit


def fixed_steps(initial, folder, method, num_steps):
    """u at points after steps of the ODE of theta, at a fixed eps."""
    settings = {"method": method, "adapt": "none", "eps": 1e-6, "max_projection_error": 1.0}
    stepper = explicit(**settings) | {"dt": 0.4 / num_steps}
    out = folder / f"{method}-{num_steps}"
    state, run = march(Wave(), out, hidden=8, end=0.4, stepper=stepper, run=initial)[1:]
    assert state.step == num_steps
    x = torch.linspace(0, 6, 50)[:, None]
    return run.case.evaluation.u(run.case.take_up(state), x)


@pytest.mark.parametrize(
    ("method", "order"),
    [("euler", 1), ("rk2a", 2), ("ssprks2", 2), ("rk3bs", 3), ("rk4", 4)],
)
def test_order(method, order, initial, folder):
    fine = fixed_steps(initial(8), folder, "rk8vr", 8)
    n = 16 if order < 3 else 4
    errors = [(fixed_steps(initial(8), folder, method, m) - fine).norm() for m in (n, 2 * n)]
    assert log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("method", ["rk3bs", "rk4"])
def test_error_is_controlled(method, initial, folder):
    stepper = explicit(method=method, tolerance=1e-5) | {"dt": 0.4}
    state, run = march(Wave(), folder, hidden=20, end=0.4, stepper=stepper, run=initial(20))[1:]
    assert run.last.measured().relative_l2 < 3e-5
    assert state.step > 1 and state.stepper["spent"] <= 1e-5  # the first dt was rejected


def test_eps_and_dt_of_a_stiff_equation(folder):
    """With a given tolerance, both are chosen so that heat neither explodes nor stands still."""
    stepper = explicit(method="rk3bs", tolerance=1e-3)
    state, run = march(Heat(), folder, hidden=20, end=0.1, stepper=stepper)[1:]
    assert run.last.measured().relative_l2 < 1e-3 and state.step < 60


def test_eps_that_is_too_small_ends_the_march(folder):
    stepper = explicit(method="rk4", adapt="none", eps=1e-18) | {"dt": 0.02}
    with pytest.raises(FailedStepError, match="'sdirk4' takes longer steps"):
        march(Heat(), folder, hidden=20, end=0.5, stepper=stepper)
    found = info(folder)
    assert found["status"] == "failed" and found["time"] < 0.5


def test_conditions_that_depend_on_time(folder):
    stepper = explicit(method="rk3bs", tolerance=1e-3)
    run = march(Mixed(), folder, hidden=16, end=0.05, stepper=stepper)[2]
    measured = run.last.measured()
    assert measured.relative_l2 < 1e-3 and measured.energy_terms["ends"] < 1e-5


def test_random_columns(initial, folder):
    """Half of the parameters move in a step, others in the next; a resumed run draws the same."""
    stepper = explicit(method="rk2a", tolerance=1e-3, columns=0.5)
    first = march(Wave(), folder / "start", hidden=20, run=initial(20) | {"max_steps": 0})[1]
    one = march(
        Wave(), folder / "a", hidden=20, stepper=stepper, run=initial(20) | {"max_steps": 1}
    )
    whole = march(Wave(), folder / "b", hidden=20, stepper=stepper, run=initial(20))
    moved = first.theta_P != one[1].theta_P
    assert moved.sum() == round(len(moved) / 2) and whole[2].last.measured().relative_l2 < 2e-3
    assert (whole[1].theta_P != first.theta_P).sum() > moved.sum()
    resumed = checkpoint.newest(folder / "a")[1:3]
    again = march(
        Wave(), folder / "a", hidden=20, stepper=stepper, run=initial(20), resumed=resumed
    )[1]
    assert (again.theta_P == whole[1].theta_P).all()


@pytest.mark.mpi
def test_ranks_agree(comm, initial, folder):
    stepper = explicit(method="rk3bs", tolerance=1e-4)
    given = {"hidden": 8, "end": 0.1, "stepper": stepper, "run": initial(8)}
    alone = march(Wave(), folder / f"own{comm.rank}", **given)[2]
    every = march(Wave(), folder / "all", comm, **given)[2]
    x = torch.linspace(0, 6, 50)[:, None]
    u = [r.case.evaluation.u(r.case.take_up(r.last.state), x) for r in (alone, every)]
    assert (u[0] - u[1]).abs().max() < 1e-8
