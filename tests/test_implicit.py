"""PETSc's implicit types solve the implicit form of the flow.

The tests cover their orders, stiff flows, failures, and resuming to the bit.
"""

import functools
import tomllib

import numpy as np
import pytest
import torch
from conftest import evolve as run
from conftest import make_case, make_config, on_ranks
from mpi4py import MPI
from test_flow import march, parameters

from nedhpc.config import Stepper, override, validate
from nedhpc.errors import FailedStepError, NedError, NonFiniteError, UsageError
from nedhpc.files.resume import load_resume
from nedhpc.postprocess.solution import Solution
from nedhpc.steppers.ts import TimeStepper

pytestmark = pytest.mark.mpi
REGRESSION = {"name": "regression", "function": "sinc", "num_points": 20}
IMPLICIT = ("beuler", "theta", "cn", "bdf", "arkimex", "rosw", "pseudo")
TIGHT = "-snes_rtol 1e-12 -snes_stol 1e-13"


def order(case, theta, kind, options, steps, reference, end):
    """(order that the last two errors show, all errors), measured against `reference`."""
    errors = [
        float((march(case, theta, end / n, n, kind, options) - reference).norm()) for n in steps
    ]
    return np.log2(errors[-2] / errors[-1]) * np.log(2) / np.log(steps[-1] / steps[-2]), errors


@pytest.fixture(scope="module")
def curves():
    """metric -> (case, theta_0, theta(1) by a fine explicit integration)."""

    @functools.cache
    def build(metric):
        case = make_case(
            MPI.COMM_WORLD,
            problem=REGRESSION,
            network={"hidden": [4]},
            flow={"metric": metric, "metric_eps": 1e-2},
            solver={"type": "tsqr"},
        )
        theta = parameters(case)
        return (
            case,
            theta,
            march(case, theta, 1 / 64, 64, "rk", "-ts_rk_type 5dp -ts_adapt_type none"),
        )

    return build


ORDERS = [
    (kind, options, expected, metric)
    for metric in ("euclidean", "l2", "energy")
    for kind, options, expected in [
        ("beuler", "", 1),
        ("theta", "-ts_theta_theta 0.5", 2),
        ("bdf", "-ts_bdf_order 2 -ts_adapt_type none", 2),
        ("arkimex", "-ts_arkimex_type 3 -ts_adapt_type none", 3),
        ("arkimex", "-ts_arkimex_type 4 -ts_adapt_type none", 4),
    ]
]
# These two assume that M is constant.
ORDERS += [
    ("cn", "", 2, "euclidean"),
    ("rosw", "-ts_rosw_type ra34pw2 -ts_adapt_type none", 3, "euclidean"),
]


@pytest.mark.one_rank
@pytest.mark.parametrize("kind, options, expected, metric", ORDERS)
def test_each_type_has_its_order(curves, kind, options, expected, metric):
    case, theta, reference = curves(metric)
    steps = (8, 16) if expected > 2 else (16, 32)
    observed, errors = order(
        case,
        theta,
        kind,
        f"{options} {TIGHT}" if kind != "rosw" else options,
        steps,
        reference,
        1.0,
    )
    assert expected - 0.4 < observed < expected + 1, (observed, errors)


LOOSE = "-ts_adapt_type basic -ts_rtol 0.1 -ts_atol 0.1"
EVERY = {
    "euler": "",
    "rk": "-ts_rk_type 4",
    "ssp": "",
    "beuler": "",
    "theta": "-ts_theta_theta 0.9",
    "cn": "",
    "bdf": LOOSE,
    "arkimex": LOOSE,
    "rosw": "-ts_adapt_type basic -ts_rtol 0.02 -ts_atol 0.02",
    "pseudo": "",
}
EXPLICIT = {"euler": 50, "rk": 40, "ssp": 40}
"""{type: number of steps} of the explicit types, with dt = 0.2 in metric energy.

In this metric every mode of the energy decays at rate 1. Implicit types use dt = 1 in metric
euclidean.
"""


@pytest.mark.one_rank
@pytest.mark.parametrize("kind", EVERY)
def test_every_type_solves_poisson(comm, kind):
    explicit = kind in EXPLICIT
    case = (
        make_case(comm, flow={"metric": "energy", "metric_eps": 1e-4})
        if explicit
        else make_case(comm)
    )
    dt, steps = (
        (0.2, EXPLICIT[kind]) if explicit else (1.0, {"arkimex": 6, "rosw": 100}.get(kind, 20))
    )
    theta = parameters(case)
    assert case.evaluation.relative_l2(theta) > 0.5
    assert case.evaluation.relative_l2(march(case, theta, dt, steps, kind, EVERY[kind])) < 0.05


@pytest.mark.parametrize("kind", EVERY)
def test_every_type_fits_a_regression(comm, kind):
    """In metric l2, the energy would fall by e^-2 in time 1 without metric_eps."""
    case = make_case(comm, problem=REGRESSION, flow={"metric": "l2", "metric_eps": 1e-2})
    theta = parameters(case)
    first = case.flow.energies(theta, 0.0).sum()
    dt, steps = (0.02, 50) if kind == "cn" else (0.1, 100 if kind == "rosw" else 10)
    assert (
        case.flow.energies(march(case, theta, dt, steps, kind, EVERY[kind]), 0.0).sum()
        < 0.5 * first
    )


@pytest.mark.parametrize("metric", on_ranks(["l2"], ["l2", "h1"]))
@pytest.mark.parametrize(
    "kind, options",
    [
        ("beuler", ""),
        ("theta", f"-ts_theta_theta 0.7 {LOOSE}"),
        ("bdf", "-ts_bdf_order 1 -ts_adapt_type none"),
        ("arkimex", LOOSE),
    ],
)
def test_implicit_types_solve_stiff_flows(comm, metric, kind, options):
    """Implicit types solve a PDE energy at steps at which explicit Euler explodes.

    The flow is stiff, because its metric is that of u or of its gradient.
    """
    case = make_case(comm, flow={"metric": metric, "metric_eps": 1e-2})
    theta, times = parameters(case), []
    first = case.flow.energies(theta, 0.0).sum()
    last = march(case, theta, 0.2, 6, kind, options, lambda theta, time, info: times.append(time))
    assert times[-1] > 6 * 0.05 and case.flow.energies(last, 0.0).sum() < 0.2 * first


@pytest.mark.one_rank
@pytest.mark.parametrize("metric, dt", [("l2", 0.01), ("h1", 0.05)])
def test_explicit_euler_fails_on_stiff_flows(comm, metric, dt):
    case = make_case(comm, flow={"metric": metric, "metric_eps": 1e-2})
    theta, energies = parameters(case), []
    first = case.flow.energies(theta, 0.0).sum()
    try:
        march(
            case,
            theta,
            dt,
            200,
            "euler",
            each=lambda theta, time, info: energies.append(case.flow.energies(theta, 0.0).sum()),
        )
    except NonFiniteError:
        return
    assert energies[-1] > 0.5 * first


@pytest.mark.one_rank
def test_the_full_jacobian_needs_fewer_iterations(comm):
    """With -snes_mf_operator, fewer iterations give the same solution.

    The option includes what the Gauss-Newton Jacobian leaves out.
    """
    case = make_case(comm)
    theta, found = parameters(case), {}
    for name, options in {
        "gn": "",
        "full": "-snes_mf_operator -ksp_type gmres -ksp_rtol 1e-6",
        "krylov": "-ksp_type cg -pc_type none -ksp_rtol 1e-10",
    }.items():
        with TimeStepper(
            comm,
            case.flow,
            Stepper(type="beuler", dt=0.05, petsc_options=f"-snes_rtol 1e-9 {options}"),
            case.parameters,
            1,
            None,
        ) as stepper:
            stepper.solve(
                theta,
                0,
                0.0,
                0.05,
                {},
                lambda step: False,
                lambda theta, *rest, name=name: found.update(
                    {name: (theta, stepper.ts.getSNESIterations())}
                ),
            )
    for name in ("full", "krylov"):
        torch.testing.assert_close(found[name][0], found["gn"][0], rtol=1e-6, atol=1e-6)
    assert found["full"][1] < found["gn"][1]


def test_a_failing_nonlinear_solve_is_an_error_or_shortens_the_step(comm):
    """Without an adaptor it is a clear error. With one, the step becomes shorter."""
    case = make_case(comm)
    theta, sizes = parameters(case), []
    with pytest.raises(NedError, match="nonlinear solve.*smaller stepper.dt"):
        march(case, theta, 1e3, 5, "beuler", "-snes_max_it 2")
    march(
        case,
        theta,
        1e3,
        2,
        "beuler",
        "-snes_max_it 10 -ts_adapt_type basic",
        lambda theta, time, info: sizes.append(info.dt),
    )
    assert 0 < sizes[0] < 1e3


@pytest.mark.parametrize("kind", on_ranks(["beuler"], ["beuler", "theta", "cn", "bdf", "arkimex"]))
def test_a_failed_nonlinear_solve_is_repeated_with_a_shorter_dt(comm, folder, kind):
    """With the default dt, the first solves of beuler, theta and cn fail here."""
    config = make_config(
        network={"hidden": [20, 20]},
        stepper={"type": kind},
        run={"max_steps": 2},
    )
    status, state = run(config, folder / "run", comm)
    assert status == "max_steps" and state.step == 2
    assert kind in ("bdf", "arkimex") or 0.25**4 < state.dt < 1
    if comm.rank == 0:
        energy = Solution(folder / "run").series["energy"]
        assert energy[-1] < energy[0]


def test_retries_of_a_failed_nonlinear_solve_end(comm, folder):
    """No dt helps a Newton iteration that may make no iteration."""
    config = make_config(
        stepper={"type": "beuler", "petsc_options": "-snes_max_it 1 -snes_rtol 1e-30"},
        run={"max_steps": 1},
    )
    with pytest.raises(FailedStepError, match="after step 0: .*10 retries, down to dt = 9.54e-07"):
        run(config, folder / "run", comm)


@pytest.mark.parametrize("kind", IMPLICIT)
def test_parameters_that_are_not_finite_are_an_error(comm, kind):
    case = make_case(comm)
    theta = parameters(case)
    theta[3] = np.nan
    with pytest.raises(NonFiniteError):
        march(case, theta, 0.1, 3, kind)


def test_options_of_all_levels_are_known_and_misspelt_ones_refused(comm):
    case = make_case(comm)
    good = (
        "-ts_adapt_type basic -ts_rtol 1e-3 -snes_type newtonls -snes_rtol 1e-6 "
        "-snes_linesearch_type basic -ksp_type gmres -ksp_rtol 1e-3 -ts_max_snes_failures 3"
    )
    march(case, parameters(case), 0.1, 1, "theta", good)
    for bad in ("-snes_rtoll 1e-3", "-ksp_gmres_restrat 3", "-ts_bdf_order 2"):
        with pytest.raises(UsageError, match=bad.split()[0]):
            march(case, parameters(case), 0.1, 1, "theta", bad)


RESUMED = {
    "beuler": "",
    "theta": "-ts_adapt_type basic",
    "cn": "",
    "bdf": "",
    "bdf 4": "-ts_bdf_order 4",
    "bdf 6": "-ts_bdf_order 6 -ts_adapt_type none",
    "arkimex": "",
    "rosw": "",
    "pseudo": "",
}


@pytest.mark.parametrize("name", on_ranks(["beuler", "bdf", "arkimex"], RESUMED))
@pytest.mark.parametrize("resample", on_ranks([4], [0, 4]))
def test_resume_equals_no_interruption(comm, folder, name, resample):
    def settings(steps):
        stepper = {"type": name.split()[0], "dt": 0.02, "petsc_options": RESUMED[name]}
        return make_config(
            stepper=stepper,
            run={"max_steps": steps},
            network={"hidden": [5]},
            sampling={"rule": "uniform", "interior": 20, "resample_every": resample},
        )

    _, whole = run(settings(13), folder / "whole", comm)
    for stop in (3, 10):
        run(settings(stop), folder / f"parts{stop}", comm)
        state, about = load_resume(comm, folder / f"parts{stop}")
        assert state.step == stop
        table = override(tomllib.loads(about.config), ["run.max_steps=13"])
        _, resumed = run(validate(table), folder / f"parts{stop}", comm, (state, about))
        assert resumed.step == 13 and np.array_equal(whole.theta_P, resumed.theta_P)
        assert whole.dt == resumed.dt and whole.time == resumed.time


def test_pseudo_stops_at_the_steady_state(comm, folder):
    status, state = run(
        make_config(
            stepper={"type": "pseudo", "dt": 1.0, "petsc_options": "-ts_pseudo_frtol 1e-2"}
        ),
        folder / "run",
        comm,
    )
    assert status == "converged" and state.step < 2000
