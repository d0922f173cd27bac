"""The first-order baselines are plain torch.optim loops at any number of ranks.

They can be resumed to the bit.
"""

import tomllib

import numpy as np
import pytest
import torch
from conftest import evolve, make_case, make_config
from mpi4py import MPI

from nedhpc import steppers
from nedhpc.config import Stepper, override, validate
from nedhpc.errors import ConfigError, NonFiniteError
from nedhpc.files.resume import load_resume
from nedhpc.postprocess.info import info
from nedhpc.steppers.first_order import SCHEDULES, Adam
from nedhpc.steppers.ts import TimeStepper

pytestmark = pytest.mark.mpi
SAMPLING = {"rule": "uniform", "resample_every": 1}
OPTIMISERS = {
    "sgd": (
        lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9, nesterov=True),
        {"lr": 1e-4, "momentum": 0.9, "nesterov": True},
    ),
    "adam": (lambda p: torch.optim.Adam(p, lr=1e-2), {"lr": 1e-2}),
    "lbfgs": (
        lambda p: torch.optim.LBFGS(
            p,
            lr=1.0,
            max_iter=5,
            history_size=4,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        ),
        {"lr": 1.0, "iterations": 5, "history": 4},
    ),
}


def march(case, theta, steps, stepper):
    """[(theta, time)] after each step."""
    found = []
    with TimeStepper(case.comm, case.flow, stepper, case.parameters, steps, None) as ts:
        ts.solve(
            theta,
            0,
            0.0,
            1.0,
            {},
            lambda step: case.draw(step, None),
            lambda theta, step, time, dt, info: found.append((theta, time)),
        )
    return found


def plain_loop(theta, make, steps, schedule=None):
    """(theta, learning rates) of the same loop on one rank, written with torch.optim only."""
    case = make_case(MPI.COMM_SELF, sampling=SAMPLING)
    parameter = torch.nn.Parameter(theta.clone())
    theirs, rates = make([parameter]), []
    scheduler = schedule(theirs) if schedule else None
    for step in range(steps):
        case.draw(step, None)

        def closure():
            theirs.zero_grad()
            E = 0.5 * case.plan.energy.evaluate(parameter, case.flow.sample)[1].square().sum()
            E.backward()
            return E

        rates.append(theirs.param_groups[0]["lr"])
        theirs.step(closure)
        if scheduler:
            scheduler.step()
    return parameter.detach(), rates


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_a_baseline_is_a_plain_torch_loop(comm, kind):
    make, settings = OPTIMISERS[kind]
    case = make_case(comm, sampling=SAMPLING)
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    expected, rates = plain_loop(theta, make, 6)
    found, time = march(case, theta, 6, Stepper(type=kind, **{kind: settings}))[-1]
    assert (found - theta).norm() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(time, sum(rates), rtol=1e-12)


@pytest.mark.parametrize(
    "name, end", [("exponential", 0.1), ("cosine", 0.1), ("one_cycle", 0.1), ("constant", 1.0)]
)
def test_schedules_are_those_of_torch(comm, name, end):
    """The time advances by the learning rate: that of torch's schedule, and then its last one."""
    settings = {"lr": 1e-3, "schedule": name, "schedule_steps": 8, "schedule_end": 0.1}
    case = make_case(comm, sampling=SAMPLING)
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    stepper = Stepper(type="adam", adam=settings)
    times = [0.0, *(time for _, time in march(case, theta, 12, stepper))]
    _, rates = plain_loop(
        theta,
        lambda p: torch.optim.Adam(p, lr=1e-3),
        8,
        lambda o: SCHEDULES[name](o, Adam.Settings(**settings)),
    )
    np.testing.assert_allclose(np.diff(times)[:8], rates, rtol=1e-9)
    np.testing.assert_allclose(np.diff(times)[8:], end * 1e-3, rtol=1e-9)


@pytest.mark.parametrize("kind", OPTIMISERS)
@pytest.mark.parametrize("resample", [0, 3])
def test_resume_equals_no_interruption(comm, folder, kind, resample):
    def settings(steps):
        return make_config(
            stepper={
                "type": kind,
                kind: OPTIMISERS[kind][1] | {"schedule": "cosine", "schedule_steps": 14},
            },
            sampling={"rule": "uniform", "resample_every": resample},
            run={"max_steps": steps},
        )

    _, whole = evolve(settings(20), folder / "whole", comm)
    evolve(settings(9), folder / "parts", comm)
    state, about = load_resume(comm, folder / "parts")
    table = override(tomllib.loads(about.config), ["run.max_steps=20"])
    _, resumed = evolve(validate(table), folder / "parts", comm, (state, about))
    assert resumed.step == 20
    assert np.array_equal(whole.theta_P, resumed.theta_P) and whole.time == resumed.time


def test_a_baseline_needs_no_solver(comm, folder, monkeypatch):
    """A baseline also runs if no solver fits, or if the metric would need P^2 numbers."""

    def refuse(*args):
        raise AssertionError("a solver is chosen")

    monkeypatch.setattr("nedhpc.plan.choose", refuse)
    evolve(
        make_config(stepper={"type": "adam"}, flow={"metric": "energy"}, run={"max_steps": 1}),
        folder / "run",
        comm,
    )
    if comm.rank == 0:
        assert info(folder / "run")["method"] == "euclidean/adam/none"


def test_too_large_a_learning_rate_is_reported_by_all_ranks(comm):
    case = make_case(comm, sampling=SAMPLING)
    with pytest.raises(NonFiniteError, match="learning rate"):
        march(
            case,
            torch.as_tensor(case.plan.ansatz.initial(0)),
            100,
            Stepper(type="sgd", sgd={"lr": 1e3}),
        )


def test_nesterov_needs_momentum():
    with pytest.raises(ConfigError, match="momentum"):
        steppers.settings(Stepper(type="sgd", sgd={"nesterov": True}))
