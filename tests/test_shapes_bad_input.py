"""What is wrong with a shape, or with the conditions on it, is said with what and where."""

import sys

import numpy as np
import pytest
import torch

import nedhpc
from nedhpc.errors import ConfigError, UsageError
from nedhpc.plan import Plan

SQUARE = nedhpc.Rectangle([0, 0], [1, 1], sides=dict(left="inlet", right="outlet"))
TET = ([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])


def disk(x, y, r, name=None):
    return nedhpc.Disk([x, y], r, name)


WRONG = {
    "empty intersection": (lambda: disk(0, 0, 1) & disk(3, 0, 1), "intersection is empty"),
    "empty intersection within bounds": (
        lambda: disk(0, 0, 1) & disk(1.5, 1.5, 1),
        "intersection is empty",
    ),
    "nothing left": (lambda: disk(0, 0, 1) - disk(0, 0, 2), "nothing is left of it"),
    "nothing left in 3D": (
        lambda: nedhpc.Ball([0] * 3, 1) - nedhpc.Ball([0] * 3, 2),
        "nothing is left of it",
    ),
    "nothing removed": (
        lambda: SQUARE - disk(5, 5, 1, "hole"),
        r"Disk 'hole' \[4 .. 6, 4 .. 6\]: .* nothing",
    ),
    "nothing added": (lambda: disk(0, 0, 2) | disk(0, 0, 1), "adds nothing"),
    "a lost side": (lambda: SQUARE - disk(0, 0.5, 0.8), "nothing is left of the part 'inlet'"),
    "a cusp": (
        lambda: nedhpc.Rectangle([0, 0], [2, 1]) - disk(1, 1.5, 1.5),
        r"cusp at \(1, .*\), where two parts touch",
    ),
    "balls that touch": (
        lambda: nedhpc.Ball([0] * 3, 1) | nedhpc.Ball([2, 0, 0], 1),
        r"cusp at \(1, .*\), where two parts touch",
    ),
    "a hole that touches in 3D": (
        lambda: nedhpc.Ball([0] * 3, 1) - nedhpc.Ball([0.5, 0, 0], 0.5),
        "cusp at",
    ),
    "a pipe along a wall": (
        lambda: nedhpc.Box([0] * 3, [1] * 3) - nedhpc.Cylinder([0.5, 0.2, -1], [0.5, 0.2, 2], 0.2),
        r"cusp at \(0.5000*\d?, 0, ",
    ),
    "boxes that share an edge": (
        lambda: nedhpc.Box([0] * 3, [1] * 3) | nedhpc.Box([1, 1, 0], [2, 2, 1]),
        r"cusp at \(1, 1, ",
    ),
    "a hole that touches": (lambda: disk(0, 0, 1) - disk(0.5, 0, 0.5), "cusp at"),
    "other dimensions": (lambda: SQUARE - nedhpc.Ball([0] * 3, 1), "have 2 and 3 coordinates"),
    "time": (lambda: nedhpc.SpaceTime([0], [1], 1) - disk(0, 0, 0.5), "nedhpc.InTime"),
    "time twice": (lambda: nedhpc.InTime(nedhpc.InTime(SQUARE, 1), 1), "has a time"),
    "no time": (lambda: nedhpc.InTime(SQUARE, 0), "finite start < end"),
    "a named part that would be lost": (
        lambda: SQUARE.with_points("a", [[0.5, 0.5]]) - disk(0.5, 0.5, 0.1),
        "would be lost",
    ),
    "a condition on periodic ends": (
        lambda: nedhpc.Rectangle([0, 0], [1, 1], periodic=[0], sides=dict(left="inlet")),
        r"'x_low'\] = 'inlet': the domain is periodic in x, and its ends are not part",
    ),
    "a hole across periodic ends": (
        lambda: nedhpc.Box([0, 0], [1, 1], periodic=[0]) - disk(0, 0.5, 0.1),
        "periodic direction x",
    ),
    "periodic union": (
        lambda: nedhpc.Box([0, 0], [1, 1], periodic=[0]) | disk(0, 0.5, 0.1),
        "periodic shape",
    ),
    "unknown side": (lambda: nedhpc.Rectangle([0, 0], [1, 1], sides=dict(up="a")), "left, right"),
    "unknown wall": (lambda: nedhpc.Box([0], [1], sides=dict(left="a")), "x_low, x_high"),
    "reserved name": (lambda: disk(0, 0, 1, "data"), "cannot be named 'data'"),
    "name with a space": (lambda: disk(0, 0, 1, "the hole"), "cannot be named 'the hole'"),
    "taken name": (lambda: SQUARE.with_part("inlet", lambda x: x[:, 0] > 0), "already has a part"),
    "empty part": (lambda: SQUARE.with_part("a", lambda x: x[:, 0] > 2), "'a' is empty: no point"),
    "empty material": (
        lambda: SQUARE.with_part("a", disk(5, 5, 1), "interior"),
        "'a' of the interior is empty",
    ),
    "a part without an area": (
        lambda: SQUARE.with_part("a", lambda x: x[:, 0] == 0.5, "interior"),
        "'a' of the interior is empty",
    ),
    "a part without a length": (
        lambda: SQUARE.with_part("a", lambda x: (x[:, 0] == 0.5) & (x[:, 1] == 0)),
        "'a' is empty: no point of 'boundary'",
    ),
    "shapes that share a side": (
        lambda: SQUARE & nedhpc.Rectangle([1, 0], [2, 1]),
        "intersection is empty",
    ),
    "part of no part": (lambda: SQUARE.with_part("a", disk(0, 0, 1), "lid"), "inlet, outlet"),
    "sensor outside": (lambda: SQUARE.with_points("a", [[0.5, 2]]), r"\[0.5, 2.0\] lies outside"),
    "negative weight": (lambda: SQUARE.with_points("a", [[0.5, 1]], [-1]), "positive, finite"),
    "no radius": (lambda: disk(0, 0, 0), "radius = 0"),
    "radii": (lambda: nedhpc.Annulus([0, 0], 2, 1), "0 < inner < outer"),
    "ball of one coordinate": (lambda: nedhpc.Ball([0], 1), "nedhpc.Interval"),
    "disk in space": (lambda: nedhpc.Disk([0, 0, 0], 1), "nedhpc.Ball"),
    "flat ellipse": (lambda: nedhpc.Ellipse([0, 0], [1, 0]), "two positive ones"),
    "self-crossing polygon": (
        lambda: nedhpc.Polygon([[0, 0], [1, 1], [1, 0], [0, 1]]),
        r"Self-intersection\[0.5 0.5",
    ),
    "hole outside": (
        lambda: nedhpc.Polygon([[0, 0], [1, 0], [0, 1]], [[[5, 5], [6, 5], [5, 6]]]),
        "Hole lies",
    ),
    "flat polygon": (lambda: nedhpc.Polygon([[0, 0], [1, 0], [2, 0]]), "must have an area"),
    "equal corners": (
        lambda: nedhpc.Polygon([[0, 0], [1, 0], [1, 0], [0, 1]]),
        "corners 1 and 2 are equal",
    ),
    "unknown edge": (lambda: nedhpc.Polygon([[0, 0], [1, 0], [0, 1]], sides={3: "a"}), "0 .. 2"),
    "open surface": (
        lambda: nedhpc.Polyhedron(TET[0], TET[1][:3]),
        r"not watertight: 3 edges .* from \[0.0, 0.0, 0.0\] to",
    ),
    "no file": (lambda: nedhpc.Polyhedron.read("none.stl"), "none.stl: cannot be read"),
    "side without triangles": (
        lambda: nedhpc.Polyhedron(*TET, sides={"lid": lambda x, n: n[:, 2] > 2}),
        "no triangle",
    ),
    "flat extrusion": (lambda: nedhpc.Extrusion(SQUARE, 1, 1), "finite low < high"),
    "flat cylinder": (lambda: nedhpc.Cylinder([0] * 3, [0] * 3, 1), "start other than end"),
    "cloud on a line": (
        lambda: nedhpc.PointCloud({"interior": ([[0, 1], [1, 1]], None)}),
        "all points have y = 1",
    ),
    "cloud without an interior": (lambda: nedhpc.PointCloud({"a": ([[0]], None)}), "'interior'"),
    "cloud with wrong normals": (
        lambda: nedhpc.PointCloud({"interior": ([[0.0], [1.0]], None, [[1], [2]])}),
        "of length 1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_shape_is_refused_with_what_and_where(name):
    make, message = WRONG[name]
    with pytest.raises(UsageError, match=message):
        make()


def test_a_file_of_an_open_surface_is_refused_with_the_place(tmp_path):
    triangles = [
        f"facet normal 0 0 0\nouter loop\n{corners}\nendloop\nendfacet"
        for corners in (
            "\n".join("vertex " + " ".join(map(str, TET[0][k])) for k in triangle)
            for triangle in TET[1]
        )
    ]
    file = tmp_path / "part.stl"
    file.write_text("\n".join(["solid part", *triangles, "endsolid"]))
    assert nedhpc.Polyhedron.read(file).parts["interior"].measure == pytest.approx(1 / 6)
    file.write_text("\n".join(["solid part", *triangles[:3], "endsolid"]))
    with pytest.raises(UsageError, match=r"part.stl: .*not watertight: 3 edges .* from \[0.0, 0.0"):
        nedhpc.Polyhedron.read(file)
    file.write_text("no surface")
    with pytest.raises(UsageError, match="part.stl: "):
        nedhpc.Polyhedron.read(file)


def test_shapes_that_meet_with_the_same_normals_are_not_refused():
    half = nedhpc.Cylinder([0] * 3, [0, 0, 1], 0.5) | nedhpc.Ball([0, 0, 1], 0.5)
    assert half.parts["interior"].measure == pytest.approx(np.pi / 4 + np.pi / 12, rel=1e-3)
    assert nedhpc.Box([0] * 3, [1] * 3) - nedhpc.Box([0.5, 0.25, 0.25], [1, 0.75, 0.5])


@pytest.mark.parametrize("module", ["shapely", "trimesh"])
def test_a_missing_package_is_named_with_the_remedy(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    make = {
        "shapely": lambda: nedhpc.Polygon([[0, 0], [1, 0], [0, 1]]),
        "trimesh": lambda: nedhpc.Polyhedron(*TET),
    }[module]
    with pytest.raises(UsageError, match=rf"needs {module}: pip install 'nedhpc\[shapes\]'"):
        make()


class Flow(nedhpc.Problem):
    """u = 0 on the inlet, and `values` on other parts."""

    def __init__(self, domain=SQUARE, **values):
        self.domain, self.values = domain, values
        self.terms = [nedhpc.Residual(f"on_{on}", on=on) for on in values]

    @nedhpc.residual()
    def laplace(self, j):
        return j.lap_u + 1

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda j: j.u - self.values[name[3:]]


def warnings(problem):
    return Plan.of_table({}, None, problem).contradictions()


def test_a_part_of_the_boundary_without_a_condition_is_named():
    missing, rest = warnings(Flow(inlet=0.0))
    assert "no condition holds on the part 'outlet'" in missing
    assert "that has no name" in rest
    assert warnings(Flow(boundary=0.0)) == []
    (whole,) = warnings(Flow(nedhpc.Box([0, 0], [1, 1])))
    assert "no condition holds on the boundary;" in whole


def test_conditions_that_overlap_or_meet_and_contradict_are_named_with_the_place():
    (overlap,) = warnings(Flow(boundary=0.0, inlet=1.0))
    assert "'on_boundary' and 'on_inlet' contradict each other at x = 0" in overlap
    polygon = nedhpc.Polygon([[0, 0], [2, 0], [0, 1]], sides={0: "floor"}, name="rest")
    (corner,) = warnings(Flow(polygon, floor=0.0, rest=1.0))
    assert "'on_floor' and 'on_rest' contradict" in corner
    assert warnings(Flow(polygon, floor=1.0, rest=1.0)) == []
    heated = nedhpc.InTime(nedhpc.Disk([0, 0], 1), 1)
    (start,) = warnings(Flow(heated, initial=0.0, boundary=1.0))
    assert "t = 0" in start


def test_rules_that_isolated_points_cannot_have_are_refused():
    x = np.random.default_rng(0).random((30, 2))
    cloud = nedhpc.PointCloud({"interior": (x, None)})
    table = {"sampling": {"rule": "residual", "resample_every": 5}}
    with pytest.raises(ConfigError, match="isolated points, which are all used"):
        Plan.of_table(table, None, Flow(cloud))
    with pytest.raises(ConfigError, match="rule 'grid' needs a part"):
        Plan.of_table({"sampling": {"rule": "grid"}}, None, Flow(nedhpc.Disk([0, 0], 1)))


def test_a_distance_that_does_not_exist_is_refused():
    x = torch.zeros(2, 2)
    with pytest.raises(UsageError, match="no distance function for the part 'floor'"):
        nedhpc.Polygon([[0, 0], [2, 0], [0, 1]], sides={0: "floor"}).distance(x, "floor")
