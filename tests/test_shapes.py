"""Shapes: measures, normals and moments of each against known values; names; bad input."""

import re
from math import pi, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mpi4py import MPI
from scipy.special import ellipe

import nedhpc
from nedhpc.config import Sampling
from nedhpc.domains.piece import even, flux
from nedhpc.domains.trial import domain_errors
from nedhpc.errors import UsageError
from nedhpc.postprocess.fields import _values, panels
from nedhpc.postprocess.info import info
from nedhpc.postprocess.solution import Solution
from nedhpc.sampling.adaptive import choose
from nedhpc.sampling.points import Sampler, evaluation_points

DOCUMENT = Path(__file__).parent.parent / "docs" / "domains.md"
TET = ([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
TRIANGLE = [[0.2, 0.2], [0.4, 0.2], [0.3, 0.4]]
SQUARE = nedhpc.Rectangle([0, 0], [2, 1], sides=dict(left="inlet", right="outlet"))
HOLED = SQUARE - nedhpc.Disk([0.5, 0.5], 0.1, name="hole")
L_SHAPE = nedhpc.Rectangle([-1, -1], [1, 1]) - nedhpc.Rectangle([0, -1], [1, 0])
TWO_DISKS = nedhpc.Disk([0, 0], 1) | nedhpc.Disk([1, 0], 1)
LENS = 2 * pi / 3 - sqrt(3) / 2
POLYGON = nedhpc.Polygon([[0, 0], [2, 0], [2, 1], [0, 1]], [TRIANGLE], {3: "inlet"}, name="wall")
CUBE = nedhpc.Box([0, 0, 0], [1, 1, 1])
EXACT = {
    "interval": (nedhpc.Interval(-1, 2), 3, 2),
    "interval with a gap": (nedhpc.Interval(0, 1) - nedhpc.Interval(0.4, 0.6), 0.8, 4),
    "rectangle": (SQUARE, 2, 6),
    "square with a hole": (HOLED, 2 - pi / 100, 6 + pi / 5),
    "L": (L_SHAPE, 3, 8),
    "L by a larger notch": (
        nedhpc.Rectangle([-1, -1], [1, 1]) - nedhpc.Rectangle([0, -1.5], [1.5, 0]),
        3,
        8,
    ),
    "two squares side by side": (
        nedhpc.Rectangle([0, 0], [1, 1]) | nedhpc.Rectangle([1, 0], [2, 1]),
        2,
        6,
    ),
    "lens": (nedhpc.Disk([0, 0], 1) & nedhpc.Disk([1, 0], 1), LENS, 4 * pi / 3),
    "two disks": (TWO_DISKS, 2 * pi - LENS, 8 * pi / 3),
    "disk": (nedhpc.Disk([1, 2], 3), 9 * pi, 6 * pi),
    "ellipse": (nedhpc.Ellipse([1, 2], [3, 1], 0.5), 3 * pi, 12 * ellipe(8 / 9)),
    "annulus": (nedhpc.Annulus([0, 0], 1, 2), 3 * pi, 6 * pi),
    "ball": (nedhpc.Ball([0, 0, 1], 2), 32 * pi / 3, 16 * pi),
    "ball in 5D": (nedhpc.Ball([0] * 5, 1), 8 * pi**2 / 15, 8 * pi**2 / 3),
    "shell": (nedhpc.Shell([0, 0, 0], 1, 2), 28 * pi / 3, 20 * pi),
    "cylinder": (nedhpc.Cylinder([0, 0, 0], [1, 2, 2], 0.5), 0.75 * pi, 3.5 * pi),
    "polygon with a hole": (POLYGON, 1.98, 6.2 + 0.2 * sqrt(5)),
    "extrusion": (nedhpc.Extrusion(POLYGON, 0, 2), 3.96, 2 * (6.2 + 0.2 * sqrt(5)) + 3.96),
    "tetrahedron": (nedhpc.Polyhedron(*TET), 1 / 6, 1.5 + sqrt(3) / 2),
    "cube without a ball": (CUBE - nedhpc.Ball([0.5] * 3, 0.25), 1 - pi / 48, 6 + pi / 4),
    "channel with a hole": (
        nedhpc.Box([0, 0], [1, 1], periodic=[0]) - nedhpc.Disk([0.5, 0.5], 0.2),
        1 - pi / 25,
        2 + 0.4 * pi,
    ),
    "disk without a sector": (
        nedhpc.Disk([0, 0], 1) - nedhpc.Rectangle([0, 0], [2, 2]),
        0.75 * pi,
        1.5 * pi + 2,
    ),
}
"""Domains with the measure of the interior and of the boundary."""
COUNTED = {
    "cube without a corner": (CUBE - nedhpc.Box([0.6] * 3, [1.5] * 3), 1 - 0.4**3, 6),
    "cube and ball": (CUBE & nedhpc.Ball([0, 0, 0], 1), pi / 6, pi / 2 + 0.75 * pi),
}
"""Domains in three dimensions of which measures are counted on quasi-random points."""
ALL = {name: case[0] for name, case in (EXACT | COUNTED).items()}


@pytest.mark.parametrize("name", EXACT)
def test_measures_are_those_of_formulas(name):
    domain, inside, boundary = EXACT[name]
    assert domain.parts["interior"].measure == pytest.approx(inside, rel=1e-10)
    assert domain.parts["boundary"].measure == pytest.approx(boundary, rel=1e-10)


@pytest.mark.parametrize("name", COUNTED)
def test_counted_measures_are_accurate_to_a_part_in_a_thousand(name):
    domain, inside, boundary = COUNTED[name]
    assert domain.parts["interior"].measure == pytest.approx(inside, rel=1e-3)
    assert domain.parts["boundary"].measure == pytest.approx(boundary, rel=1e-3)


def random_points(part, count=20_000, seed=0):
    if part.dim == 0:
        return part.every_point()
    x, accepted = part.points(np.random.default_rng(seed).random((count, part.unit_dim)))
    return x[accepted]


def mean_and_sigma(part, values):
    """The integral over the part by random points, and its standard deviation."""
    deviation = values.std() / sqrt(len(values)) if part.dim else 0.0
    return part.measure * values.mean(), part.measure * deviation


@pytest.mark.parametrize("name", ALL)
def test_flux_and_moments_agree_with_each_other(name):
    """The flux of (x, y, ..) is D |interior|, that of (x^2, 0, ..) twice the first moment."""
    domain = ALL[name]
    interior, boundary = domain.parts["interior"], domain.parts["boundary"]
    walled = [i for i, period in enumerate(domain.periods) if period is None]
    x, y = random_points(boundary), random_points(interior, seed=1)
    n, i = boundary.normal(x), walled[-1]
    np.testing.assert_allclose(np.linalg.norm(n, axis=1), 1)
    assert domain.inside(y).all()
    step = 1e-5 * (domain.high - domain.low).max()
    assert not domain.inside(x + step * n).any()
    assert domain.inside(x - step * n).mean() > 0.99  # all but those beside a corner
    for out, within in (
        ((x[:, walled] * n[:, walled]).sum(1), np.full(len(y), float(len(walled)))),
        (x[:, i] ** 2 * n[:, i], 2 * y[:, i]),
    ):
        (flux_out, sigma), (inside, other) = (
            mean_and_sigma(boundary, out),
            mean_and_sigma(interior, within),
        )
        slack = 2e-3 * interior.measure if name in COUNTED else 1e-9
        assert abs(flux_out - inside) < 4 * np.hypot(sigma, other) + slack


@pytest.mark.parametrize("domain", [POLYGON, L_SHAPE, HOLED, TWO_DISKS])
def test_the_flux_of_plane_shapes_is_exact(domain):
    found = sum(flux(face, np.array([0.3, -0.7])) for face in domain.faces)
    assert found == pytest.approx(2 * domain.parts["interior"].measure, rel=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_shapes_pass_the_trial(name):
    assert domain_errors(ALL[name]) == []
    assert domain_errors(nedhpc.InTime(ALL[name], 2, start=1)) == []


@pytest.mark.parametrize("rule", ["uniform", "sobol"])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", ["square with a hole", "two disks", "tetrahedron", "cylinder"])
def test_points_do_not_depend_on_ranks(name, size, rule):
    domain = nedhpc.InTime(ALL[name], 1)
    counts = {on: 101 for on in domain.parts}

    def draw(rank, size):
        given = (rank, size, domain, None, counts, rule, 1, "cpu", torch.float64, 0, ["boundary"])
        return Sampler(*given).draw(3)

    whole, shares = draw(0, 1), [draw(rank, size) for rank in range(size)]
    for on in counts:
        assert torch.equal(torch.cat([share[on].x_ND for share in shares]), whole[on].x_ND)
        assert max(len(s[on].x_ND) for s in shares) - min(len(s[on].x_ND) for s in shares) <= 1
        total = sum(float(share[on].weight_N.sum()) for share in shares)
        assert total == pytest.approx(domain.parts[on].measure)
    normals = torch.cat([share["boundary"].n_ND for share in shares])
    assert torch.equal(normals, whole["boundary"].n_ND)


def test_sides_and_holes_are_parts_and_all_of_them_the_boundary():
    assert list(HOLED.parts) == ["interior", "boundary", "inlet", "outlet", "hole"]
    assert HOLED.parts["inlet"].normal(np.array([[0.0, 0.3]])).tolist() == [[-1, 0]]
    hole = random_points(HOLED.parts["hole"], 100)
    np.testing.assert_allclose(HOLED.parts["hole"].normal(hole), (0.5 - hole[:, :2]) / 0.1)
    every = random_points(HOLED.parts["boundary"], 50_000)
    share = (np.abs(np.linalg.norm(every - 0.5, axis=1) - 0.1) < 1e-9).mean()
    assert share == pytest.approx(0.2 * pi / (6 + 0.2 * pi), abs=0.006)


def test_grids_fit_on_boxes_and_curves_only():
    circle = nedhpc.Disk([0, 0], 1).parts["boundary"].grid(4, 0, 4)
    np.testing.assert_allclose(np.abs(circle), sqrt(0.5))
    assert SQUARE.parts["inlet"].grid(2, 0, 2).tolist() == [[0, 0.25], [0, 0.75]]
    whole = HOLED.parts["boundary"].grid(100, 0, 100)
    np.testing.assert_array_equal(HOLED.parts["boundary"].grid(100, 30, 40), whole[30:40])
    for part in (HOLED.parts["interior"], ALL["ball"].parts["boundary"]):
        with pytest.raises(UsageError, match="use rule = 'sobol'"):
            part.grid(100, 0, 100)


def test_a_part_in_time_has_an_even_grid_if_the_part_has_one():
    box = nedhpc.InTime(nedhpc.Rectangle([0, 0], [2, 1], sides=dict(left="inlet")), 3, start=1)
    for name, count in [("interior", 4**3), ("boundary", 6 * 4 * 6), ("inlet", 25), ("initial", 9)]:
        part, whole = box.parts[name], box.parts[name].grid(count, 0, count)
        np.testing.assert_array_equal(part.grid(count, 5, 9), whole[5:9])
        mean = whole.mean(0) if name != "inlet" else np.append(whole[:, :2].mean(0) + [1, 0], 2)
        np.testing.assert_allclose(mean, [1, 0.5, 1 if name == "initial" else 2])
        assert len(np.unique(whole, axis=0)) == count
    # Midpoints integrate 1 + x^2 t to second order: 4 + (8 / 3) 4.
    x = box.parts["interior"].grid(20**3, 0, 20**3)
    integral = box.parts["interior"].measure * (1 + x[:, 0] ** 2 * x[:, 2]).mean()
    assert integral == pytest.approx(4 + 32 / 3, rel=1e-3)
    disk = nedhpc.InTime(nedhpc.Disk([0, 0], 1), 1)
    rim = disk.parts["boundary"].grid(400, 0, 400)
    assert len(np.unique(rim[:, 2])) == 20 and np.allclose(np.hypot(rim[:, 0], rim[:, 1]), 1)
    sensors = nedhpc.InTime(SQUARE.with_points("sensors", [[0.5, 0.5], [0.7, 0.2]]), 1)
    assert len(np.unique(sensors.parts["sensors"].grid(20, 0, 20), axis=0)) == 20
    for part, count, message in [
        (disk.parts["interior"], 64, "needs a part that an even grid fits on"),
        (box.parts["interior"], 62, "an even grid of the part at each of about 4 times"),
        (sensors.parts["sensors"], 21, "at each of about 10 times"),
    ]:
        with pytest.raises(UsageError, match=message):
            part.grid(count, 0, 0)


def test_parts_of_boundary_and_interior_are_named_by_regions():
    domain = HOLED.with_part("steel", nedhpc.Disk([1.5, 0.5], 0.2), on="interior")
    domain = domain.with_part("slit", lambda x: (x[:, 1] == 0) & (x[:, 0] > 1.25))
    domain = domain.with_points("sensors", [[1.0, 0.5], [0.0, 0.5]], weights=[1, 3])
    assert domain.parts["steel"].measure == pytest.approx(0.04 * pi, rel=1e-10)
    assert domain.parts["slit"].measure == pytest.approx(0.75, rel=1e-10)
    assert domain.parts["boundary"].measure == HOLED.parts["boundary"].measure
    assert "slit" not in HOLED.parts
    sampler = Sampler(0, 1, domain, None, {"sensors": 2}, "sobol", 1, "cpu", torch.float64)
    assert sampler.draw(0)["sensors"].weight_N.tolist() == [1, 3]
    lines = nedhpc.InTime(domain, 2).parts["sensors"]
    assert (lines.dim, lines.measure) == (1, 8)
    x = random_points(lines, 4000)
    assert (x[:, 0] == 0).mean() == pytest.approx(0.75, abs=0.03)


def test_a_cloud_has_its_points_weights_and_normals():
    x, _ = np.random.default_rng(0).random((50, 2)), None
    walls = ([[0.0, 0.5], [1.0, 0.5]], None, [[-1, 0], [1, 0]])
    cloud = nedhpc.PointCloud({"interior": (x, np.full(50, 0.02)), "boundary": walls})
    assert cloud.parts["interior"].measure == pytest.approx(1)
    assert cloud.parts["boundary"].normal(np.array([[1.0, 0.5]])).tolist() == [[1, 0]]
    np.testing.assert_array_equal(evaluation_points(cloud), x)
    assert cloud.inside(x).all() and not cloud.inside(np.array([[3.0, 3.0]])).any()
    assert domain_errors(cloud) == domain_errors(nedhpc.InTime(cloud, 1)) == []


def test_a_domain_in_time_has_windows_and_a_start():
    domain = nedhpc.InTime(HOLED, 2, start=1)
    assert domain.coordinates == ("x", "y", "t")
    assert domain.parts["hole"].measure == pytest.approx(0.2 * pi)
    assert domain.parts["initial"].measure == HOLED.parts["interior"].measure
    assert (random_points(domain.parts["initial"])[:, 2] == 1).all()
    window = domain.between(1.5, 2)
    assert window.low.tolist() == [0, 0, 1.5]
    assert window.parts["interior"].measure == pytest.approx(0.5 * HOLED.parts["interior"].measure)


@pytest.mark.parametrize(
    "domain, part",
    [
        (SQUARE, "inlet"),
        (HOLED, "outlet"),
        (HOLED, "hole"),
        (HOLED, "boundary"),
        (L_SHAPE, "boundary"),
        (POLYGON, "boundary"),
        (nedhpc.Polygon([[0, 0], [3, 0], [3, 2], [2, 1], [1, 2], [1, 1]]), "boundary"),
        (TWO_DISKS, "boundary"),
        (ALL["ellipse"], "boundary"),
        (ALL["shell"], "boundary"),
        (nedhpc.Annulus([0, 0], 1, 2, inner_name="inner"), "inner"),
        (ALL["cylinder"], "boundary"),
        (ALL["tetrahedron"], "boundary"),
        (nedhpc.InTime(HOLED, 1), "hole"),
    ],
)
def test_a_distance_vanishes_on_its_part_only(domain, part):
    on = torch.as_tensor(random_points(domain.parts[part], 1000))
    inside = torch.as_tensor(random_points(domain.parts["interior"], 4000)).requires_grad_()
    distance = domain.distance(inside, part)
    assert domain.distance(on, part).abs().max() < 1e-12
    assert distance.min() > 0
    (slope,) = torch.autograd.grad(distance.sum(), inside)
    assert slope.isfinite().all()


def test_shares_of_a_cut_surface_are_even():
    part = COUNTED["cube and ball"][0].parts["boundary"]
    x = part.points(even(part.unit_dim, 2**14))
    on_sphere = np.abs(np.linalg.norm(x[0][x[1]], axis=1) - 1) < 1e-9
    assert on_sphere.mean() == pytest.approx(0.5 / 1.25, abs=0.01)


def test_the_examples_of_the_document_run():
    found = {}
    for block in re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S):
        exec(block, found)
    assert set(found["in_time"].parts) == {*HOLED.parts, "initial"}
    assert found["plate"].parts["steel"].measure == pytest.approx(0.5)
    assert found["plate"].parts["sensors"].measure == 2


def test_the_document_and_the_package_name_the_same_domains():
    classes = {name for name, where in nedhpc._WHERE.items() if ".domains." in where}
    assert {name for name in classes if f"`{name}" not in DOCUMENT.read_text()} == {
        "Domain",
        "Part",
        "Shape",
    }


SHORT = {
    "sampling": {"interior": 80, "boundary": 40, "initial": 40},
    "network": {"hidden": [8]},
    "run": {"max_steps": 2, "starts": 1, "start": "random"},
    "device": {"threads": 1},
}


class Waves(nedhpc.Problem):
    """lap u = -u in any number of coordinates, with u = sin x."""

    def __init__(self, domain):
        self.domain = domain

    @nedhpc.residual()
    def equation(self, x, j):
        return j.lap_u + j.u

    @nedhpc.residual("boundary")
    def wall(self, x, j):
        return j.u - self.exact(x)

    def exact(self, x):
        return torch.sin(x[:, 0])


@pytest.mark.parametrize(
    "domain",
    [
        HOLED,
        nedhpc.InTime(HOLED, 1),
        ALL["tetrahedron"],
        nedhpc.Interval(0, 1) - nedhpc.Interval(0.4, 0.6),
        nedhpc.InTime(nedhpc.Ball([0, 0, 0], 1), 1),
        nedhpc.PointCloud(
            {
                "interior": (np.random.default_rng(0).random((90, 2)), None),
                "boundary": ([[0, 0.5], [1, 0.5]], [0.5, 0.5]),
            }
        ),
    ],
    ids=lambda domain: f"{type(domain).__name__} {domain.dim}",
)
def test_runs_and_plots_work_on_shapes(domain, tmp_path):
    nedhpc.run(SHORT, problem=Waves(domain), out=tmp_path / "run")
    facts = info(tmp_path / "run")
    assert facts["relative_l2"] < 0.5 and facts["held_out_energy"] > 0
    solution = Solution(tmp_path / "run", Waves(domain))
    found = panels(solution)
    assert len(found) == {1: 2, 2: 3}.get(domain.dim, 9)
    figure = Figure()
    for panel in found:
        panel(figure, figure.add_subplot())
    figure.savefig(tmp_path / "plot.png")


def test_places_outside_the_domain_stay_blank():
    class Zero:
        problem, outputs = type("P", (), {"domain": HOLED}), ("u",)

        def __call__(self, x):
            return np.zeros((len(x), 1))

        def exact(self, x):
            assert HOLED.inside(0.999999 * (x - [1, 0.5]) + [1, 0.5]).all()
            return np.ones((len(x), 1))

    places = np.array([[0.5, 0.5], [0.0, 0.0], [2.0, 0.4], [1.5, 0.5], [2.1, 0.5]])
    u, exact = _values(Zero(), places)
    assert np.isnan(u[:, 0]).tolist() == np.isnan(exact[:, 0]).tolist()
    assert np.isnan(u[:, 0]).tolist() == [True, False, False, False, True]


@pytest.mark.mpi
def test_a_chosen_sample_is_the_same_on_all_ranks(comm):
    domain = ALL["L"]
    sampler = Sampler(
        comm.rank, comm.size, domain, None, {"interior": 60}, "residual", 1, "cpu", torch.float64
    )
    size = lambda theta, on, x: x.norm(dim=1)
    settings = Sampling().residual
    index, weight = choose(comm, size, torch.zeros(1), sampler, "interior", 2, settings)
    alone = Sampler(0, 1, domain, None, {"interior": 60}, "residual", 1, "cpu", torch.float64)
    same = choose(MPI.COMM_SELF, size, torch.zeros(1), alone, "interior", 2, settings)
    np.testing.assert_array_equal(index, same[0])
    np.testing.assert_allclose(weight, same[1], rtol=1e-12)
    x = sampler.draw(2, {"interior": (index, weight)})["interior"].x_ND.numpy()
    assert domain.inside(x).all()


@pytest.mark.parametrize("domain, part", [(L_SHAPE, "boundary"), (HOLED, "hole")])
def test_hard_conditions_hold_on_shapes(domain, part, tmp_path):
    problem = Waves(domain)
    problem.hard = {part: {"u": 0.0}}
    nedhpc.run(SHORT, problem=problem, out=tmp_path)
    solution, facts = Solution(tmp_path, problem), info(tmp_path)
    assert np.isfinite(facts["energy"])
    assert np.abs(solution(random_points(domain.parts[part], 500))).max() < 1e-12
    assert np.abs(solution(random_points(domain.parts["interior"], 500))).max() > 1e-6
