"""Domains: measures, normals, distances and samples, of the built-in ones and of a user's own."""

import hashlib

import numpy as np
import pytest
import torch
from scipy.stats import qmc

import nedhpc
from nedhpc import problems
from nedhpc.domains.trial import domain_errors
from nedhpc.errors import ConfigError, UsageError
from nedhpc.plan import Plan
from nedhpc.sampling.points import Sampler, evaluation_points

pytestmark = pytest.mark.filterwarnings("ignore:The balance properties")


class Ring(nedhpc.Domain):
    """1 < |x| < 2: candidates of a square, of which those on the ring are accepted."""

    def __init__(self):
        self.low, self.high = np.array([-2.0, -2.0]), np.array([2.0, 2.0])
        self.parts = {
            "interior": nedhpc.Part(
                dim=2,
                measure=3 * np.pi,
                place=lambda unit: 4 * unit - 2,
                keep=lambda x: np.abs(np.linalg.norm(x, axis=1) - 1.5) < 0.5,
            ),
            "rim": nedhpc.Part(
                dim=1, measure=6 * np.pi, place=self.rim, unit_dim=2, outward=self.outward
            ),
        }

    def rim(self, unit):
        """The outer circle has two thirds of the length."""
        radius, angle = np.where(unit[:, 0] < 2 / 3, 2.0, 1.0), 2 * np.pi * unit[:, 1]
        return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)

    def outward(self, x):
        radius = np.linalg.norm(x, axis=1, keepdims=True)
        return np.where(radius > 1.5, x, -x) / radius


DOMAINS = {
    "interval": nedhpc.Box([-1], [2]),
    "box": nedhpc.Box([-1, 0], [2, 0.5]),
    "cube": nedhpc.Box([0, 0, 0], [1, 2, 3]),
    "channel": nedhpc.Box([0, 0], [3, 1], periodic=[0]),
    "ring": Ring(),
}


def integral(domain, part, f):
    """Of f(x, part) over the part, by its own quadrature on 2^15 Sobol candidates."""
    part = domain.parts[part]
    if part.dim == 0:
        x = part.grid(part.num_points, 0, part.num_points)
    else:
        unit = qmc.Sobol(part.unit_dim, scramble=True, rng=0).random(2**15)
        x, accepted = part.points(unit)
        x = x[accepted]
    return part.measure * np.mean(f(x, part))


@pytest.mark.parametrize("name", DOMAINS)
def test_the_divergence_theorem_holds(name):
    """It ties measures, maps, normals, and the walls that a periodic coordinate does not have."""
    domain = DOMAINS[name]
    boundary = "rim" if name == "ring" else "boundary"
    walled = [i for i, period in enumerate(domain.periods) if period is None]

    def flux(x, part):  # F_i = x_i^3 in the walled coordinates
        return sum(x[:, i] ** 3 * part.normal(x)[:, i] for i in walled)

    def divergence(x, part):
        return sum(3 * x[:, i] ** 2 for i in walled)

    out, inside = integral(domain, boundary, flux), integral(domain, "interior", divergence)
    assert abs(out / inside - 1) < 3e-3


@pytest.mark.parametrize("name", DOMAINS)
def test_weights_add_up_to_the_measure_of_a_part(name):
    """The sum is over three ranks."""
    problem = type("Problem", (), {"domain": DOMAINS[name], "data": None})()
    counts = {on: part.num_points or 100 for on, part in problem.domain.parts.items()}
    for on, part in problem.domain.parts.items():
        shares = [
            Sampler(
                rank, 3, problem.domain, problem.data, counts, "sobol", 1, "cpu", torch.float64
            ).draw(0)[on]
            for rank in range(3)
        ]
        assert np.isclose(sum(float(share.weight_N.sum()) for share in shares), part.measure)


@pytest.mark.parametrize("rule", ["uniform", "sobol"])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_sample_by_rejection_does_not_depend_on_ranks(rule, size):
    problem = type("Problem", (), {"domain": DOMAINS["ring"], "data": None})()
    counts = {"interior": 10_000, "rim": 50}

    def draw(rank, size):
        return Sampler(
            rank,
            size,
            problem.domain,
            problem.data,
            counts,
            rule,
            1,
            "cpu",
            torch.float64,
            0,
            ["rim"],
        ).draw(2)

    whole, shares = draw(0, 1), [draw(rank, size) for rank in range(size)]
    for on in counts:
        assert torch.equal(torch.cat([share[on].x_ND for share in shares]), whole[on].x_ND)
    assert torch.equal(torch.cat([share["rim"].n_ND for share in shares]), whole["rim"].n_ND)
    radius = whole["interior"].x_ND.norm(dim=1)
    assert len(radius) == 10_000
    assert 1 < radius.min() and radius.max() < 2
    # Half of the ring's area lies within the radius sqrt(2.5).
    assert abs((radius < 2.5**0.5).double().mean() - 0.5) < 0.02


def test_a_part_that_accepts_next_to_nothing_is_refused():
    ring = Ring()
    ring.parts["interior"] = nedhpc.Part(
        dim=2, measure=1.0, place=lambda unit: unit, keep=lambda x: x[:, 0] > 2
    )
    problem = type("Problem", (), {"domain": ring, "data": None})()
    sampler = Sampler(
        0, 1, problem.domain, problem.data, {"interior": 5}, "sobol", 1, "cpu", torch.float64
    )
    with pytest.raises(UsageError, match="'interior' of the domain accepts 0 of"):
        sampler.draw(0)


def test_evaluation_points_of_a_domain_by_rejection_lie_inside():
    radius = np.linalg.norm(evaluation_points(Ring()), axis=1)
    assert len(radius) == 10_000
    assert 1 < radius.min() and radius.max() < 2


@pytest.mark.parametrize("name", ["interval", "box", "cube", "channel"])
def test_a_distance_vanishes_on_its_part_only(name):
    domain, rng = DOMAINS[name], np.random.default_rng(0)
    walls, inside = (
        torch.as_tensor(domain.parts[on].points(rng.random((500, domain.parts[on].unit_dim)))[0])
        if domain.parts[on].dim
        else torch.as_tensor(domain.parts[on].grid(2, 0, 2))
        for on in ("boundary", "interior")
    )
    assert domain.distance(walls, "boundary").abs().max() < 1e-14
    distance = domain.distance(inside, "boundary")
    assert distance.min() > 0
    assert distance.max() <= 1
    with pytest.raises(UsageError, match="no distance function for the part 'interior'"):
        domain.distance(inside, "interior")


def test_a_distance_in_time_vanishes_at_the_start_only():
    domain = nedhpc.SpaceTime([0], [1], end=3, start=1)
    x = torch.tensor([[0.3, 1.0], [0.3, 2.0], [0.3, 3.0]], dtype=torch.float64)
    assert domain.distance(x, "initial").tolist() == [0, 0.5, 1]
    assert domain.distance(x, "boundary").unique().numel() == 1  # the walls stand at all times


def test_a_normal_has_the_kind_of_its_points():
    wall = nedhpc.Box([0, 0], [1, 2]).parts["boundary"]
    x = np.array([[0.0, 0.5], [1.0, 0.5], [0.5, 0.0], [0.5, 2.0]])
    right = [[-1, 0], [1, 0], [0, -1], [0, 1]]
    assert wall.normal(x).tolist() == right
    for dtype in (torch.float32, torch.float64):
        normal = wall.normal(torch.as_tensor(x, dtype=dtype))
        assert normal.dtype == dtype
        assert normal.tolist() == right


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nedhpc.Box([0, 1], [1, 1]), "coordinate y: low = 1.0, high = 1.0"),
        (lambda: nedhpc.Box([0], [np.inf]), "coordinate x: low = 0.0, high = inf"),
        (lambda: nedhpc.Box([0, 0], [1]), "a lower and an upper bound for each coordinate"),
        (lambda: nedhpc.Box([0], [1], periodic=[1]), r"periodic = \(1,\): allowed are"),
        (lambda: nedhpc.SpaceTime([0], [1], end=0), "coordinate t: low = 0.0, high = 0.0"),
        (lambda: nedhpc.SpaceTime([0], [1], 1, periodic=[1]), "numbers of the space coordinates"),
    ],
)
def test_wrong_bounds_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def line(**fields):
    """The lower side of the unit square as a part, with some of its fields replaced."""
    right = {
        "dim": 1,
        "measure": 1.0,
        "place": lambda unit: np.concatenate([unit, 0 * unit], 1),
        "outward": lambda x: np.tile([0.0, -1.0], (len(x), 1)),
    }
    return nedhpc.Part(**(right | fields))


WRONG_PARTS = {
    "place of one column": (line(place=lambda unit: unit), r"place returns float64 \(64, 1\)"),
    "single precision": (
        line(place=lambda unit: np.zeros((len(unit), 2), np.float32)),
        "place returns float32",
    ),
    "place that mixes points": (
        line(place=lambda unit: np.tile(unit - unit.mean(), 2)),
        "place gives a point another value if the other points change",
    ),
    "place that raises": (line(place=lambda unit: unit[:, 5]), "place raises IndexError"),
    "points outside": (line(place=lambda unit: np.tile(unit + 1, 2)), "outside low and high"),
    "keep of numbers": (
        line(keep=lambda x: np.ones(len(x), int)),
        "keep returns int64",
    ),
    "negative measure": (line(measure=-1.0), "measure = -1.0; it must be positive"),
    "no measure": (line(measure=float("nan")), "measure = nan; it must be positive"),
    "long normals": (line(outward=lambda x: 2 * np.ones_like(x)), "normals of length 1"),
    "long normals of few points": (
        line(keep=lambda x: x[:, 0] < 0.5, outward=lambda x: 2 * np.ones_like(x)),
        "normals of length 1",
    ),
    "normals of one column": (line(outward=lambda x: x[:, 0]), r"outward returns float64 \(64,\)"),
    "isolated points without a number": (line(dim=0), "need num_points"),
    "too many dimensions": (line(dim=3), "needed are a dim from 0 to 2"),
    "not a part": ("side", "it is a str"),
}


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_a_wrong_part_is_refused_before_the_run(name):
    part, message = WRONG_PARTS[name]
    domain = nedhpc.Box([0, 0], [1, 1])
    domain.parts["side"] = part
    assert len(domain_errors(domain)) == 1
    problem = type("P", (Flat,), {"domain": domain})
    with pytest.raises(ConfigError, match=f"part 'side': .*{message}"):
        Plan.of_table({"sampling": {"interior": 16}}, problem=problem)


class Flat(nedhpc.Problem):
    domain = nedhpc.Box([0, 0], [1, 1])

    @nedhpc.residual("interior")
    def flat(self, j):
        return j.lap_u


@pytest.mark.parametrize(
    "low, high, message",
    [
        ([0, 0], [1, 1], "must be numpy arrays"),
        (np.zeros(2), np.zeros(2), "finite low < high"),
        (np.zeros(2), np.ones(3), "must be numpy arrays"),
    ],
)
def test_wrong_bounds_of_a_domain_are_refused(low, high, message):
    domain = Ring()
    domain.low, domain.high = low, high
    (error,) = domain_errors(domain)
    assert message in error


@pytest.mark.parametrize("name", DOMAINS)
def test_right_domains_pass_the_trial(name):
    assert domain_errors(DOMAINS[name]) == []


FIRST_EDITION = {
    ("poisson", "uniform"): "d68d0d588113af10",
    ("poisson", "sobol"): "7a5a7894f2117b60",
    ("poisson", "grid"): "82982f7458fdd6f0",
    ("heat", "uniform"): "6c288ff6a22583f9",
    ("heat", "sobol"): "671e7672688cafa5",
    ("heat", "grid"): "bfdfc6928ece1cfc",
}
"""SHA-256, first 16 digits, of points and weights of draws 0 and 3 at seed 7, parts by name."""
COUNTS = {
    "poisson": {"interior": 50, "boundary": 41},
    "heat": {"interior": 50, "boundary": 40, "initial": 30},
}
GRID_COUNTS = {
    "poisson": {"interior": 64, "boundary": 24},
    "heat": {"interior": 49, "boundary": 20, "initial": 7},
}


@pytest.mark.parametrize("name, rule", FIRST_EDITION)
def test_samples_are_those_of_the_first_edition(name, rule):
    """Its checkpoints hold a draw's number, not its points: the points must stay the same."""
    problem = problems.build({"name": name} | ({"dim": 3} if name == "poisson" else {}))
    counts, grow = (GRID_COUNTS[name], 0) if rule == "grid" else (COUNTS[name], 5)
    sampler = Sampler(
        0, 1, problem.domain, problem.data, counts, rule, 7, "cpu", torch.float64, grow
    )
    digest = hashlib.sha256()
    for number in (0, 3):
        for _, points in sorted(sampler.draw(number).items()):
            digest.update(points.x_ND.numpy().tobytes())
            digest.update(points.weight_N.numpy().tobytes())
    assert digest.hexdigest()[:16] == FIRST_EDITION[name, rule]
