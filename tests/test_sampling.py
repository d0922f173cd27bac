"""The sample is global: the same points for any number of ranks, with weights that integrate."""

import numpy as np
import pytest
import torch

from conftest import make_config
from nedhpc import problems, sampling
from nedhpc.errors import UsageError
from nedhpc.parallel import block

SIZES = [1, 2, 3, 7, 60]


def draws(rule, size, number, counts, dim=2):
    problem = problems.build({"name": "poisson", "dim": dim})
    samplers = [sampling.Sampler(rank, size, problem, counts, rule, 5, "cpu", torch.float64) for rank in range(size)]
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
def test_draws_and_seeds_differ(rule):
    a, b = (draws(rule, 1, number, {"interior": 50})["interior"] for number in (0, 1))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_boundary_points_lie_on_the_boundary(dim):
    x = draws("uniform", 1, 0, {"boundary": 2 if dim == 1 else 200}, dim)["boundary"]
    assert (((x == 0) | (x == 1)).sum(1) >= 1).all() and ((x >= 0) & (x <= 1)).all()
    assert len(torch.unique((x == 0).int(), dim=0)) >= dim  # no face is left out


def test_midpoint_grid_integrates():
    problem = problems.build({"name": "poisson", "dim": 2})
    points = sampling.Sampler(0, 1, problem, {"interior": 900, "boundary": 120}, "grid", 0, "cpu", torch.float64).draw(0)
    x = points["interior"].x_ND
    assert abs(points["interior"].weight * torch.sin(np.pi * x).prod(1).sum() - 4 / np.pi**2) < 1e-3
    assert abs(points["boundary"].weight * len(points["boundary"].x_ND) - 4) < 1e-14


def test_grid_counts_are_checked():
    with pytest.raises(UsageError, match="841, 900, 961"):
        sampling.grid_side(899, 2, 1, "interior")


def test_evaluation_set_is_large_and_fixed():
    for dim, least in ((1, 10_000), (2, 10_000), (5, 100_000)):
        domain = problems.build({"name": "poisson", "dim": dim}).domain
        x = sampling.evaluation_points(domain)
        assert len(x) >= least and (x > 0).all() and (x < 1).all() and len(np.unique(x, axis=0)) == len(x)


def test_config_rejects_redraws_of_a_grid():
    with pytest.raises(UsageError, match="resample_every"):
        make_config(sampling={"rule": "grid", "resample_every": 1})
