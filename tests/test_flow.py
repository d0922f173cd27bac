"""The flow and its steppers give the known answer of cases that have one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_case, parse_jets
from mpi4py import MPI

from nedhpc import config
from nedhpc.config import Stepper
from nedhpc.errors import NedError, NonFiniteError, UsageError
from nedhpc.steppers.options import parse_options
from nedhpc.steppers.ptc import Ptc
from nedhpc.steppers.ts import TimeStepper

pytestmark = pytest.mark.mpi
POISSON = Path(__file__).parents[1] / "configs/poisson_1d.toml"
REGRESSION = {"name": "regression", "function": "sinc", "num_points": 60}
SSP = "-ts_ssp_type rks2"
RK = {"1fe": 1, "2a": 2, "2b": 2, "3": 3, "3bs": 3, "4": 4, "5f": 5, "5dp": 5, "5bs": 5}


def parameters(case, seed=0):
    return torch.as_tensor(case.plan.ansatz.initial(seed))


def well_conditioned(case):
    """Random features with large weights, so that the tangent rows are far from dependent."""
    theta = torch.as_tensor(case.plan.ansatz.features(0, 6.0, [-1.0], [1.0]))
    theta[case.plan.ansatz.linear_columns] = 0.1
    return theta


def march(case, theta, dt, steps, kind="euler", options="", each=None, fresh=False):
    """Parameters after `steps` steps of a TS."""
    last = [theta]

    def after(theta, step, time, dt, info):
        last[0] = theta
        if each:
            each(theta, time, info)
        return info.stalled

    with TimeStepper(
        case.comm,
        case.flow,
        Stepper(type=kind, dt=dt, petsc_options=options),
        case.parameters,
        steps,
        None,
    ) as stepper:
        stepper.solve(theta, 0, 0.0, dt, {}, case.draw if fresh else lambda step: False, after)
    return last[0]


def all_rows(case, theta):
    rows = case.plan.energy.linearise(theta, case.flow.sample)
    parts = case.comm.allgather((rows.A.A_NP, rows.r_N))
    return torch.cat([A for A, _ in parts]).numpy(), torch.cat([r for _, r in parts]).numpy()


def test_gradient_is_the_derivative_of_the_energy(comm):
    for problem in (REGRESSION, {"name": "poisson", "dim": 1}):
        case = make_case(comm, problem=problem)
        theta = parameters(case) + 0.1
        g, E_K = case.flow.gradient(theta, 0.0)
        A, r = all_rows(case, theta)
        np.testing.assert_allclose(g.numpy(), A.T @ r, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(E_K.sum(), 0.5 * r @ r, rtol=1e-12)
        v, h = torch.as_tensor(np.random.default_rng(0).standard_normal(len(theta))), 1e-5
        slope = (
            case.flow.energies(theta + h * v, 0.0).sum()
            - case.flow.energies(theta - h * v, 0.0).sum()
        ) / (2 * h)
        np.testing.assert_allclose(float(g @ v), slope, rtol=1e-6)


@pytest.mark.parametrize("metric", ["l2", "energy"])
def test_euler_with_unit_step_is_gauss_newton(comm, metric):
    case = make_case(
        comm,
        problem=REGRESSION,
        flow={"metric": metric, "metric_eps": 1e-20},
        solver={"rtol": 1e-6},
    )
    theta = parameters(case)
    A, r = all_rows(case, theta)
    gauss_newton = theta.numpy() - np.linalg.pinv(A, rcond=1e-6) @ r
    np.testing.assert_allclose(
        march(case, theta, 1.0, 1).numpy(), gauss_newton, rtol=1e-6, atol=1e-6
    )


def test_euclidean_euler_on_fresh_samples_is_sgd(comm):
    case = make_case(
        comm, problem=REGRESSION, sampling={"data": 16, "resample_every": 1, "rule": "uniform"}
    )
    theta, lr = parameters(case), 0.05
    found = march(case, theta, lr, 5, fresh=True)
    parameter = torch.nn.Parameter(theta.clone())
    sgd = torch.optim.SGD([parameter], lr=lr)
    single = make_case(
        MPI.COMM_SELF,
        problem=REGRESSION,
        sampling={"data": 16, "resample_every": 1, "rule": "uniform"},
    )
    layout = parse_jets("u", coordinates=("x",))
    for step in range(5):
        single.draw(step, None)
        points = single.flow.sample["data"]
        sgd.zero_grad()
        misfit = single.plan.ansatz.jets(parameter, points.x_ND, layout)[:, 0] - points.y_NM
        (0.5 * (misfit**2).mean()).backward()
        sgd.step()
    torch.testing.assert_close(found, parameter.data, rtol=1e-12, atol=1e-12)


def test_l2_flow_of_a_regression_decays_like_exp_minus_t(comm):
    """If N <= rank J, the whole error lies in the tangent space: e(t) = e^-t e(0)."""
    case = make_case(
        comm,
        problem=REGRESSION | {"num_points": 6},
        network={"hidden": [40]},
        flow={"metric": "l2", "metric_eps": 1e-18},
        solver={"type": "tsqr"},
    )
    theta = well_conditioned(case)
    energies, times = [case.flow.energies(theta, 0.0).sum()], [0.0]
    march(
        case,
        theta,
        0.05,
        20,
        "rk",
        "-ts_rk_type 5dp -ts_adapt_type none",
        lambda theta, time, info: (
            energies.append(case.flow.energies(theta, 0.0).sum()),
            times.append(time),
        ),
    )
    np.testing.assert_allclose(
        np.sqrt(np.array(energies) / energies[0]), np.exp(-np.array(times)), rtol=1e-6
    )


@pytest.mark.one_rank
@pytest.mark.parametrize("kind", [*RK, "ssp"])
def test_explicit_types_have_their_order(comm, kind):
    case = make_case(comm, problem=REGRESSION | {"num_points": 20}, network={"hidden": [4]})
    theta, order = parameters(case), RK.get(kind, 2)
    name, options = (
        ("ssp", SSP) if kind == "ssp" else ("rk", f"-ts_rk_type {kind} -ts_adapt_type none")
    )
    steps = np.array([8, 16])
    reference = march(case, theta, 2.0 / 128, 128, "rk", "-ts_rk_type 5dp -ts_adapt_type none")
    errors = [
        float((march(case, theta, 2.0 / n, n, name, options) - reference).norm()) for n in steps
    ]
    observed = np.log(errors[0] / errors[1]) / np.log(2)
    assert order - 0.4 < observed < order + 2, observed


@pytest.mark.one_rank
def test_adaptive_steps_meet_their_tolerance(comm):
    case = make_case(comm, problem=REGRESSION | {"num_points": 20}, network={"hidden": [4]})
    theta, sizes = parameters(case), []

    def run(rtol):
        with TimeStepper(
            comm,
            case.flow,
            Stepper(type="rk", dt=0.01, petsc_options=f"-ts_rtol {rtol} -ts_atol {rtol}"),
            case.parameters,
            10000,
            5.0,
        ) as stepper:
            last = []
            stepper.solve(
                theta,
                0,
                0.0,
                0.01,
                {},
                lambda step: False,
                lambda theta, step, time, dt, info: (
                    last.append((theta, time)) or sizes.append(info.dt)
                ),
            )
        assert abs(last[-1][1] - 5.0) < 1e-12
        return last[-1][0]

    reference = run(1e-9)
    assert (run(1e-5) - reference).norm() < 1e-3
    assert max(sizes) > 1.5 * min(sizes)


@pytest.mark.parametrize("metric", ["euclidean", "l2", "h1", "energy"])
@pytest.mark.parametrize("solver", ["tsqr", "gram", "dual"])
def test_ptc_solves_poisson(comm, metric, solver):
    case = make_case(comm, flow={"metric": metric, "metric_eps": 1e-4}, solver={"type": solver})
    theta = parameters(case)
    first = case.evaluation.relative_l2(theta)
    assert case.evaluation.relative_l2(march(case, theta, 1.0, 30, "ptc")) < 0.02 * first


@pytest.mark.parametrize("corrections", [0, 1, 2])
def test_corrections_follow_the_curved_path(comm, corrections):
    """Each correction of a step s delta raises the order in s of |r_new - r - s A delta| by one."""
    case = make_case(
        comm,
        problem=REGRESSION | {"num_points": 6},
        network={"hidden": [40]},
        solver={"type": "tsqr"},
    )
    theta = well_conditioned(case)
    system = case.flow.linearise(theta, 0.0)
    delta = system.descent(1e-12)[0] / 20

    def excess(s):
        moved, predicted = theta + s * delta, system.predicted_residual(s * delta)
        for _ in range(corrections):
            moved = (
                moved
                + system.correction(moved, case.flow.evaluate(moved, 0.0)[1], predicted, 1e-12)[0]
            )
        return (
            comm.allreduce(float((case.flow.evaluate(moved, 0.0)[1] - predicted).square().sum()))
            ** 0.5
        )

    order = np.log2(excess(1) / excess(0.5))
    assert abs(order - (corrections + 2)) < 0.4, order


def test_ptc_chooses_the_longest_of_nearly_equal_steps(comm):
    case = make_case(comm)
    theta = parameters(case)
    greedy, long = (
        Ptc(case.flow, Ptc.Settings(slack=slack)).step(theta, 0.0, 1e-3) for slack in (1.0, 4.0)
    )
    assert long[1] > greedy[1]
    assert long[2].E_K.sum() < 4 * greedy[2].E_K.sum()
    assert long[2].E_K.sum() < case.flow.energies(theta, 0.0).sum()


def test_ptc_makes_no_step_longer_than_max_dt(comm):
    case = make_case(comm)
    theta = parameters(case)
    free, held = (Ptc(case.flow, Ptc.Settings(max_dt=max_dt)) for max_dt in (1e24, 0.05))
    assert free.step(theta, 0.0, 1e-2)[2].dt > 0.05
    for start in (1e-2, 7.0):
        _, following, info = held.step(theta, 0.0, start)
        assert following == info.dt and 0.05 / 4 < info.dt <= 0.05


def test_an_exploding_step_is_reported_by_all_ranks(comm):
    case = make_case(comm)
    with pytest.raises(NonFiniteError, match="stability limit"):
        march(case, parameters(case), 1e3, 200)


def test_unknown_petsc_options_are_refused(comm):
    case = make_case(comm)
    with pytest.raises(UsageError, match="-ts_typo"):
        march(case, parameters(case), 0.1, 1, "rk", "-ts_rk_type 4 -ts_typo 3")
    assert parse_options("-a 1 -b -c -2.5") == [("a", "1"), ("b", None), ("c", "-2.5")]
    with pytest.raises(UsageError, match="without an option"):
        parse_options("3 -a")


@pytest.mark.parametrize(
    "options, message",
    [
        ("-ts_type euler", "stepper.type"),
        ("-TS_TYPE euler", "stepper.type"),
        ("-ts_time_step 3", "stepper.dt"),
        ("-log_view", "-log_view is not supported"),
        ("-ts_bdf_order 2", "does not know: -ts_bdf_order"),
        ("5", "'5' is a value without an option"),
        ('-ts_view "ascii:a', "quotation"),
    ],
)
@pytest.mark.parametrize("kind", ["rk", "ptc"])
def test_bad_petsc_options_name_their_fault(comm, kind, options, message):
    case = make_case(comm)
    with pytest.raises(UsageError, match=message):
        march(case, parameters(case), 0.1, 1, kind, options)


def test_quoted_petsc_options_stay_together():
    assert parse_options('-a "b c" -d') == [("a", "b c"), ("d", None)]
    words = ["-ts_view", "ascii:my file.txt"]
    table = config.read(POISSON, petsc_options=words)
    assert parse_options(table["stepper"]["petsc_options"]) == [("ts_view", "ascii:my file.txt")]


def ends(comm, options, kind="rk"):
    """How a TS of at most 10 steps of 1e-3 ended, and the states that it reported."""
    case, states = make_case(comm), []
    theta = parameters(case)
    settings = Stepper(type=kind, dt=1e-3, petsc_options=f"{options} -ts_adapt_type none")
    with TimeStepper(comm, case.flow, settings, case.parameters, 10, None) as stepper:
        end = stepper.solve(
            theta, 0, 0.0, 1e-3, {}, lambda step: False, lambda *args: states.append(args)
        )
    return end, states


@pytest.mark.parametrize(
    "options, reason, steps",
    [
        ("-ts_max_steps 3", "max_steps", 3),
        ("-ts_max_time 2.5e-3", "max_time", 3),
        ("", "max_steps", 10),
    ],
)
def test_an_end_by_petsc_reports_the_last_state(comm, options, reason, steps):
    end, states = ends(comm, options)
    assert end.reason == reason and end.step == steps == len(states)
    assert end.theta_P is states[-1][0] and end.info is states[-1][4]


def test_a_failed_step_is_an_error_also_if_petsc_only_gives_a_reason(comm):
    case = make_case(comm)
    with pytest.raises(NedError, match="nonlinear solve"):
        options = "-snes_max_it 1 -snes_rtol 1e-14 -ts_error_if_step_fails 0"
        march(case, parameters(case), 1e3, 5, "beuler", options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("metric", ["euclidean", "l2", "energy"])
def test_ptc_on_cuda_agrees_with_cpu(comm, metric):
    thetas = []
    for device in ("cpu", "cuda"):
        case = make_case(comm, device={"type": device}, flow={"metric": metric})
        thetas.append(march(case, parameters(case).to(case.device), 1.0, 5, "ptc").cpu())
    torch.testing.assert_close(*thetas, rtol=1e-6, atol=1e-6)
