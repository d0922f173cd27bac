"""The sample is the same for any number of ranks, and its weights integrate."""

import numpy as np
import pytest
import torch
from conftest import make_config
from scipy.stats import qmc

import nedhpc
from nedhpc import problems
from nedhpc.errors import UsageError
from nedhpc.parallel.comm import block
from nedhpc.sampling import points as sampling

SIZES = [1, 2, 3, 7, 60]


def draws(rule, size, number, counts, dim=2, grow_draws=0, seed=5):
    problem = problems.build({"name": "poisson", "dim": dim})
    samplers = [
        sampling.Sampler(
            rank,
            size,
            problem.domain,
            problem.data,
            counts,
            rule,
            seed,
            "cpu",
            torch.float64,
            grow_draws,
        )
        for rank in range(size)
    ]
    shares = [sampler.draw(number) for sampler in samplers]
    return {on: torch.cat([share[on].x_ND for share in shares]) for on in counts}


@pytest.mark.parametrize("rule", ["uniform", "sobol", "grid"])
@pytest.mark.parametrize("size", SIZES)
def test_points_do_not_depend_on_ranks(rule, size):
    counts = {"interior": 49, "boundary": 20}
    one, many = draws(rule, 1, 2, counts), draws(rule, size, 2, counts)
    for on in counts:
        assert torch.equal(one[on], many[on])


@pytest.mark.parametrize("size", SIZES)
def test_blocks_cover_every_index_once(size):
    for count in (0, 1, size - 1, 50):
        blocks = [block(count, rank, size) for rank in range(size)]
        assert [i for start, stop in blocks for i in range(start, stop)] == list(range(count))


@pytest.mark.parametrize("rule", ["uniform", "sobol"])
def test_draws_differ(rule):
    a, b = (draws(rule, 1, number, {"interior": 50})["interior"] for number in (0, 1))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("rule", ["uniform", "sobol"])
def test_seeds_differ(rule):
    a, b = (draws(rule, 1, 0, {"interior": 50}, seed=seed)["interior"] for seed in (5, 6))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("size", SIZES)
def test_a_sample_grows_to_its_number(size):
    full = {"interior": 200, "boundary": 41}
    counts = [
        {on: len(x) for on, x in draws("sobol", size, number, full, grow_draws=8).items()}
        for number in (0, 4, 8, 9)
    ]
    assert counts == [
        {"interior": 50, "boundary": 11},
        {"interior": 125, "boundary": 26},
        full,
        full,
    ]
    for on in full:
        assert torch.equal(
            draws("sobol", size, 3, full, grow_draws=8)[on],
            draws("sobol", 1, 3, full, grow_draws=8)[on],
        )
        assert torch.equal(
            draws("sobol", size, 9, full, grow_draws=8)[on], draws("sobol", size, 9, full)[on]
        )
    assert len(draws("sobol", size, 0, {"boundary": 2}, 1, 8)["boundary"]) == 2  # the two ends


def test_weights_of_a_growing_sample_integrate():
    problem = problems.build({"name": "poisson", "dim": 2})
    sampler = sampling.Sampler(
        0,
        1,
        problem.domain,
        problem.data,
        {"interior": 64, "boundary": 40},
        "sobol",
        0,
        "cpu",
        torch.float64,
        5,
    )
    for number in range(7):
        points = sampler.draw(number)
        assert abs(points["interior"].weight_N.sum() - 1) < 1e-14
        assert abs(points["boundary"].weight_N.sum() - 4) < 1e-14


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_boundary_points_lie_on_the_boundary(dim):
    x = draws("uniform", 1, 0, {"boundary": 2 if dim == 1 else 200}, dim)["boundary"]
    assert (((x == 0) | (x == 1)).sum(1) >= 1).all() and ((x >= 0) & (x <= 1)).all()
    assert len(torch.unique((x == 0).int(), dim=0)) >= dim  # no face is left out


def test_a_midpoint_grid_integrates():
    problem = problems.build({"name": "poisson", "dim": 2})
    points = sampling.Sampler(
        0,
        1,
        problem.domain,
        problem.data,
        {"interior": 900, "boundary": 120},
        "grid",
        0,
        "cpu",
        torch.float64,
    ).draw(0)
    x = points["interior"].x_ND
    assert abs(points["interior"].weight_N @ torch.sin(np.pi * x).prod(1) - 4 / np.pi**2) < 1e-3
    assert abs(points["boundary"].weight_N.sum() - 4) < 1e-14


def test_a_count_that_makes_no_grid_is_refused_with_the_nearest_ones():
    with pytest.raises(UsageError, match="841, 900, 961"):
        nedhpc.Box([0, 0], [1, 1]).parts["interior"].grid(899, 0, 0)


def test_the_evaluation_set_is_large_and_inside():
    for dim, least in ((1, 10_000), (2, 10_000), (5, 100_000)):
        domain = problems.build({"name": "poisson", "dim": dim}).domain
        x = sampling.evaluation_points(domain)
        assert len(x) >= least
        assert (x > 0).all() and (x < 1).all()
        assert len(np.unique(x, axis=0)) == len(x)


def test_config_rejects_redraws_of_a_grid():
    with pytest.raises(UsageError, match="resample_every"):
        make_config(sampling={"rule": "grid", "resample_every": 1})


def test_sobol_redraws_are_even_and_independent():
    """Each draw is as even as a Sobol set, and the quadrature errors of draws are independent.

    The mean of the errors therefore falls like 1 / sqrt(draws).
    """

    def interior(rule, number):
        return draws(rule, 1, number, {"interior": 256})["interior"].numpy()

    sobol, uniform = (
        [interior(rule, number) for number in range(64)] for rule in ("sobol", "uniform")
    )
    assert max(map(qmc.discrepancy, sobol)) < 0.2 * min(map(qmc.discrepancy, uniform))
    assert len({x.tobytes() for x in sobol}) == 64
    errors = np.array([np.exp(x.sum(1)).mean() - (np.e - 1) ** 2 for x in sobol])
    assert abs(errors.mean()) < 4 * errors.std() / 8
    assert abs(np.corrcoef(errors[:-1], errors[1:])[0, 1]) < 4 / np.sqrt(63)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_space_time_points_lie_on_their_parts(dim):
    domain = nedhpc.SpaceTime([0.0] * dim, [2.0] * dim, end=3.0, start=1.0)
    assert domain.coordinates == (*("x", "y", "z")[:dim], "t")
    measure = {on: part.measure for on, part in domain.parts.items()}
    assert measure["interior"] == 2 * 2**dim and measure["initial"] == 2**dim
    assert measure["boundary"] == 2 * (2 if dim == 1 else 2 * dim * 2 ** (dim - 1))
    rng = np.random.default_rng(0)
    sets = {
        on: part.points(rng.random((300, part.unit_dim)))[0] for on, part in domain.parts.items()
    }
    for x in sets.values():
        assert (x[:, :-1] >= 0).all() and (x[:, :-1] <= 2).all()
        assert (x[:, -1] >= 1).all() and (x[:, -1] <= 3).all()
    assert (sets["initial"][:, -1] == 1).all() and np.ptp(sets["initial"][:, 0]) > 1.8
    walls = sets["boundary"][:, :-1]
    assert (((walls == 0) | (walls == 2)).sum(1) == 1).all()
    assert len(np.unique(sets["boundary"][:, -1])) == 300
    assert all((walls[:, axis] == side).any() for axis in range(dim) for side in (0, 2))


def test_a_space_time_grid_has_midpoints_and_weights():
    problem = problems.build({"name": "heat"})
    points = sampling.Sampler(
        0,
        1,
        problem.domain,
        problem.data,
        {"interior": 25, "boundary": 20, "initial": 7},
        "grid",
        0,
        "cpu",
        torch.float64,
    ).draw(0)
    assert torch.equal(
        points["initial"].x_ND, torch.stack([(torch.arange(7) + 0.5) / 7, torch.zeros(7)], 1)
    )
    walls = points["boundary"].x_ND
    assert torch.equal(walls[:10, 1], walls[10:, 1])
    assert (walls[:10, 0] == 0).all() and (walls[10:, 0] == 1).all()
    assert all(
        abs(p.weight_N.sum() - measure) < 1e-14 for p, measure in zip(points.values(), (1, 2, 1))
    )
