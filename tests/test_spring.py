"""SPRING follows its formula in dual and primal form, and checkpoints keep its memory."""

import tomllib

import numpy as np
import pytest
import torch
from conftest import evolve, make_case, make_config

from nedhpc.config import Stepper, override, validate
from nedhpc.files.resume import load_resume
from nedhpc.postprocess.info import info
from nedhpc.steppers.spring import Spring
from nedhpc.steppers.ts import TimeStepper

pytestmark = pytest.mark.mpi
SMALL = {
    "sampling": {"interior": 10, "rule": "uniform", "resample_every": 1},
    "network": {"hidden": [12]},
}


def march(case, theta, steps, dt, **settings):
    found = []
    with TimeStepper(
        case.comm,
        case.flow,
        Stepper(type="spring", dt=dt, spring=settings),
        case.parameters,
        steps,
        None,
    ) as ts:
        ts.solve(
            theta,
            0,
            0.0,
            dt,
            {},
            case.draw,
            lambda theta, step, time, dt, info: found.append(theta),
        )
    return found


def all_rows(case, theta):
    rows = case.plan.energy.linearise(theta, case.flow.sample)
    parts = case.comm.allgather((rows.A.A_NP, rows.r_N))
    return torch.cat([A for A, _ in parts]).numpy(), torch.cat([r for _, r in parts]).numpy()


@pytest.mark.parametrize("solver", ["dual", "tsqr", "gram"])
@pytest.mark.parametrize("max_norm", [1e6, 0.3])
def test_steps_follow_the_formula(comm, solver, max_norm):
    mu, damping, dt = 0.8, 1e-2, 0.5
    case = make_case(comm, solver={"type": solver}, **SMALL)
    found = march(
        case,
        torch.as_tensor(case.plan.ansatz.initial(0)),
        4,
        dt,
        momentum=mu,
        damping=damping,
        max_norm=max_norm,
        search=False,
    )
    theta, phi = case.plan.ansatz.initial(0), 0
    for step in range(4):
        case.draw(step, None)
        A, r = all_rows(case, torch.as_tensor(theta))
        N, P = A.shape
        assert N < P
        phi = mu * phi + A.T @ np.linalg.solve(
            A @ A.T + damping * np.eye(N), -r - mu * (A @ (phi + np.zeros(P)))
        )
        theta = theta + dt * min(1, max_norm / np.linalg.norm(phi)) * phi
        np.testing.assert_allclose(found[step].numpy(), theta, rtol=1e-7, atol=1e-8)


def test_steps_in_a_metric_minimise_their_objective(comm):
    """phi minimises |A phi + r|^2 + lambda |phi - mu phi_prev|_M^2 with M = B^T B + eps."""
    mu, damping, eps = 0.8, 1e-2, 1e-2
    case = make_case(comm, flow={"metric": "l2", "metric_eps": eps}, **SMALL)
    found = march(
        case,
        torch.as_tensor(case.plan.ansatz.initial(0)),
        3,
        1.0,
        momentum=mu,
        damping=damping,
        max_norm=1e6,
        search=False,
    )
    theta, phi = case.plan.ansatz.initial(0), np.zeros(37)
    for step in range(3):
        case.draw(step, None)
        A, r = all_rows(case, torch.as_tensor(theta))
        B = case.plan.energy.metric_rows(
            torch.as_tensor(theta), case.flow.sample, case.flow.metric.layouts
        ).A_NP
        B = torch.cat(comm.allgather(B)).numpy()
        M = B.T @ B + eps * np.eye(37)
        phi = np.linalg.solve(A.T @ A + damping * M, -A.T @ r + damping * mu * M @ phi)
        theta = theta + phi
        assert np.linalg.norm(found[step].numpy() - theta) < 1e-6 * np.linalg.norm(theta)


def test_the_search_chooses_the_damping_of_least_energy(comm):
    case = make_case(comm, **SMALL)
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    rule = Spring(case.flow, Spring.Settings(damping=1.0))
    first = case.flow.energies(theta, 0.0).sum()
    after, _, facts = rule.step(theta, 0.0, 1.0)
    A, r = all_rows(case, theta)
    energies = {}
    for k in (-1, 0, 1):
        damping = rule.damping * 4.0**k
        energies[k] = case.flow.energies(
            theta - torch.as_tensor(np.linalg.solve(A.T @ A + damping * np.eye(37), A.T @ r)),
            0.0,
        ).sum()
    assert energies[0] <= min(energies[-1], energies[1]) and energies[0] < first
    np.testing.assert_allclose(facts.E_K.sum(), energies[0], rtol=1e-8)
    np.testing.assert_allclose(case.flow.energies(after, 0.0).sum(), energies[0], rtol=1e-8)


def test_a_direction_uphill_is_dropped(comm):
    case = make_case(comm, **SMALL)
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    rule = Spring(case.flow, Spring.Settings(damping=1e-2))
    theta, _, _ = rule.step(theta, 0.0, 1.0)
    g, _ = case.flow.gradient(theta, 0.0)
    rule.phi_P = 1e9 * g
    rule.damping = 1e9
    stayed, _, facts = rule.step(theta, 0.0, 1.0)
    assert torch.equal(stayed, theta) and facts.dt == 0 and rule.phi_P is None


@pytest.mark.parametrize("search", [True, False])
def test_resume_equals_no_interruption(comm, folder, search):
    def settings(steps):
        return make_config(
            stepper={"type": "spring", "spring": {"search": search}},
            run={"max_steps": steps},
            solver={"type": "dual"},
            **SMALL,
        )

    _, whole = evolve(settings(20), folder / "whole", comm)
    evolve(settings(9), folder / "parts", comm)
    state, about = load_resume(comm, folder / "parts")
    _, resumed = evolve(
        validate(override(tomllib.loads(about.config), ["run.max_steps=20"])),
        folder / "parts",
        comm,
        (state, about),
    )
    assert resumed.step == 20 and np.array_equal(whole.theta_P, resumed.theta_P)


def test_momentum_solves_poisson_on_small_fresh_samples(comm, folder):
    evolve(
        make_config(
            stepper={"type": "spring"}, run={"max_steps": 150}, solver={"type": "dual"}, **SMALL
        ),
        folder / "run",
        comm,
    )
    if comm.rank == 0:
        assert info(folder / "run")["relative_l2"] < 1e-2
