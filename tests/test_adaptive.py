"""The rule `residual` prefers points of large residual, with the right probabilities.

The choice is the same at any number of ranks, and a resumed run keeps it.
"""

import dataclasses
import tomllib

import numpy as np
import pytest
import torch
from conftest import evolve as run
from conftest import make_case, make_config
from mpi4py import MPI

from nedhpc.config import override, validate
from nedhpc.errors import NonFiniteError, UsageError
from nedhpc.files import checkpoint
from nedhpc.files.resume import load_resume
from nedhpc.parallel.comm import block
from nedhpc.plan import Plan
from nedhpc.sampling import adaptive
from nedhpc.sampling.points import gumbel

pytestmark = pytest.mark.mpi
EVERY = 3
PEAK = {"name": "poisson", "dim": 2, "solution": "peak", "width": 0.1}


def sampled(every=3, **residual):
    return {
        "interior": 60,
        "boundary": 20,
        "rule": "residual",
        "resample_every": every,
        "residual": residual,
    }


@pytest.mark.parametrize("count", [0, 1, 17, 40])
@pytest.mark.parametrize("kind", ["distinct", "equal", "few values", "infinite"])
def test_ranks_find_the_largest_keys(comm, count, kind):
    keys = np.random.default_rng(3).normal(size=40)
    keys = {
        "distinct": keys,
        "equal": np.zeros(40),
        "few values": np.round(keys),
        "infinite": np.where(keys < 0.5, -np.inf, keys),
    }[kind]
    start, stop = block(40, comm.rank, comm.size)
    mine, next_key = adaptive.largest(comm, keys[start:stop], count)
    mask = np.concatenate(comm.allgather(mine))
    assert mask.sum() == count
    expected = np.argsort(-keys, kind="stable")  # of equal keys, the first is chosen
    assert np.array_equal(np.flatnonzero(mask), np.sort(expected[:count]))
    assert next_key == (keys[expected[count]] if count < 40 else -np.inf)


def test_keys_draw_with_the_given_probabilities():
    """Point i has the largest key with probability p_i / sum p.

    The next key follows the same rule for the points that are left.
    """
    p, num_draws = np.array([0.05, 0.1, 0.15, 0.7]), 4000
    order = np.array(
        [
            np.argsort(-(np.log(p) + gumbel(1, "interior", number, 0, 4)))
            for number in range(num_draws)
        ]
    )
    first = np.bincount(order[:, 0], minlength=4) / num_draws
    assert (np.abs(first - p) < 4.5 * np.sqrt(p * (1 - p) / num_draws)).all()
    after_3 = order[order[:, 0] == 3, 1]
    q = p[:3] / p[:3].sum()
    second = np.bincount(after_3, minlength=3) / len(after_3)
    assert (np.abs(second - q) < 4.5 * np.sqrt(q * (1 - q) / len(after_3))).all()


def test_noise_is_a_function_of_the_index():
    whole = gumbel(7, "interior", 2, 0, 50)
    assert np.array_equal(whole[13:31], gumbel(7, "interior", 2, 13, 31))
    assert not np.array_equal(whole, gumbel(7, "interior", 3, 0, 50))


def test_all_ranks_choose_the_same_points(comm):
    """Ranks choose the distinct indices that one rank chooses; each rank holds a block of them."""
    cases = [make_case(c, problem=PEAK, sampling=sampled()) for c in (comm, MPI.COMM_SELF)]
    theta = torch.as_tensor(cases[0].plan.ansatz.initial(0))
    for case in cases:
        case.draw(EVERY * 1, theta)
    together, alone = (case.sample.state()["index"] for case in cases)
    np.testing.assert_allclose(
        cases[0].sample.state()["weight"], cases[1].sample.state()["weight"], rtol=1e-12
    )
    assert np.array_equal(together, alone)
    assert len(np.unique(together)) == 60 and together.max() < 600
    shares = comm.allgather(cases[0].flow.sample["interior"].x_ND.numpy())
    assert np.array_equal(np.concatenate(shares), cases[1].flow.sample["interior"].x_ND.numpy())
    assert abs(len(shares[comm.rank]) - 60 / comm.size) <= 1


def test_large_residuals_are_preferred_and_power_sharpens(comm):
    def mean_size(**residual):
        case = make_case(comm, problem=PEAK, sampling=sampled(**residual))
        theta = torch.as_tensor(case.plan.ansatz.initial(0))
        case.draw(EVERY * 1, theta)
        x = case.sample.sampler.pool("interior", 1, 0, 600)
        size = case.plan.energy.residual_size(theta, "interior", x).numpy()
        return size[case.sample.state()["index"]].mean() / size.mean()

    flat, plain, sharp = mean_size(floor=1e6), mean_size(), mean_size(power=2.0, floor=1e-3)
    assert flat < 1.5 and plain > 2 * flat and sharp > 1.2 * plain


@pytest.mark.one_rank
def test_weights_leave_the_energy_unbiased(comm):
    """The mean over draws is the quadrature of the pool, within its standard error.

    With equal weights, the mean would be more than twice as large.
    """
    case = make_case(comm, problem=PEAK, sampling=sampled())
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    chosen, equal, sobol, exact = [], [], [], []
    for number in range(1, 200):
        case.draw(EVERY * number, theta)
        x = case.sample.sampler.pool("interior", number, 0, 600)
        square = case.plan.energy.residual_size(theta, "interior", x).numpy() ** 2
        index, weight = case.sample.state()["index"], case.sample.state()["weight"]
        chosen.append(weight @ square[index])
        equal.append(square[index].mean())
        sobol.append(square[:60].mean())  # the pool's first points are a Sobol set
        exact.append(square.mean())
    error = np.array(chosen) - exact
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error))
    assert np.mean(equal) > 2 * np.mean(exact)
    assert error.std() < 0.6 * (np.array(sobol) - exact).std()  # at the same number of points


def test_draw_0_is_a_sobol_set(comm):
    a, b = (
        make_case(comm, problem=PEAK, sampling=table)
        for table in (sampled(), sampled() | {"rule": "sobol"})
    )
    assert torch.equal(a.flow.sample["interior"].x_ND, b.flow.sample["interior"].x_ND)
    assert not a.sample.state()


@pytest.mark.parametrize("stop", [6, 7])
def test_resume_equals_no_interruption(comm, folder, stop):
    """The run is interrupted once at a redraw and once between two redraws."""

    def settings(steps):
        return make_config(
            problem=PEAK, sampling=sampled(), network={"hidden": [8]}, run={"max_steps": steps}
        )

    _, whole = run(settings(11), folder / "whole", comm)
    run(settings(stop), folder / "parts", comm)
    state, about = load_resume(comm, folder / "parts")
    assert state.step == stop
    assert int(state.selection["draw"]) == (stop - 1) // 3
    assert len(state.selection["index"]) == 60
    config = validate(override(tomllib.loads(about.config), ["run.max_steps=11"]))
    _, resumed = run(config, folder / "parts", comm, (state, about))
    assert np.array_equal(whole.theta_P, resumed.theta_P)
    assert all(np.array_equal(whole.selection[k], resumed.selection[k]) for k in whole.selection)
    if comm.rank == 0:
        _, saved, _, _ = checkpoint.newest(folder / "whole")
        assert np.array_equal(saved.selection["weight"], whole.selection["weight"])


def test_a_residual_that_is_not_finite_is_an_error_on_all_ranks(comm):
    case = make_case(comm, problem=PEAK, sampling=sampled())
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    if comm.rank == comm.size - 1:  # only in the share of this rank
        bad = dataclasses.replace(
            case.leg.energy.terms[0], method=lambda x, j: j.lap_u * float("nan"), roles=("x", "j")
        )
        case.leg.energy.terms = (bad, *case.leg.energy.terms[1:])
    with pytest.raises(NonFiniteError, match="sampling pool"):
        case.draw(EVERY * 1, theta)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(UsageError, match="resample_every > 0"):
        make_config(sampling={"rule": "residual"})
    config = make_config(
        problem={"name": "regression", "function": "sinc"},
        sampling={"rule": "residual", "resample_every": 5},
    )
    with pytest.raises(UsageError, match="on 'interior'"):
        Plan(config)
