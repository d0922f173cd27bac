"""Where parts of the boundary of a shape in three dimensions meet, and contradictions there."""

import numpy as np
import pytest

import nedhpc
from nedhpc.plan import Plan

WALLS = dict(
    x_low="west", x_high="east", y_low="south", y_high="north", z_low="floor", z_high="lid"
)
BOX = nedhpc.Box([0, 0, 0], [1, 1, 1], sides=WALLS)
APART = [{"west", "east"}, {"south", "north"}, {"floor", "lid"}]
EDGES = {
    tuple(sorted((a, b)))
    for a in WALLS.values()
    for b in WALLS.values()
    if a < b and {a, b} not in APART
}
TETRAHEDRON = nedhpc.Polyhedron(
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]],
    name="rest",
    sides={"floor": lambda x, n: n[:, 2] < -0.9, "left": lambda x, n: n[:, 0] < -0.9},
)
CASES = {
    "a bite at a corner": (
        BOX - nedhpc.Ball([1, 1, 1], 0.4, name="ball"),
        EDGES | {("ball", "east"), ("ball", "north"), ("ball", "lid")},
    ),
    "a hole inside": (BOX - nedhpc.Ball([0.5, 0.5, 0.5], 0.3, name="ball"), EDGES),
    "an edge that is cut away": (
        BOX - nedhpc.Box([0.5, 0.5, -1], [2, 2, 2], sides={"x_low": "notch"}),
        EDGES - {("east", "north")} | {("floor", "notch"), ("lid", "notch"), ("north", "notch")},
    ),
    "two balls": (
        nedhpc.Ball([0, 0, 0], 1, name="one") | nedhpc.Ball([1, 0, 0], 1, name="two"),
        {("one", "two")},
    ),
    "a cylinder": (
        nedhpc.Cylinder([0, 0, 0], [0, 1, 2], 0.5, "wall", dict(bottom="inlet", top="outlet")),
        {("inlet", "wall"), ("outlet", "wall")},
    ),
    "a prism": (
        nedhpc.Extrusion(
            nedhpc.Polygon([[0, 0], [1, 0], [0, 1]], sides={0: "a", 1: "b"}), 0, 1, {"top": "top"}
        ),
        {("a", "b"), ("a", "top"), ("b", "top")},
    ),
    "parts of one sphere": (
        nedhpc.Ball([0, 0, 0], 1, name="rest").with_part("cap", lambda x: x[:, 2] > 0.5),
        {("cap", "rest")},
    ),
    "a tetrahedron": (TETRAHEDRON, {("floor", "left"), ("floor", "rest"), ("left", "rest")}),
    "a shell": (nedhpc.Shell([0, 0, 0], 0.5, 1, inner_name="core", name="skin"), set()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_parts_that_meet_are_found_with_points_beside_each_other(case):
    domain, expected = CASES[case]
    seams = [pair for pair in domain.corners() if pair[0][0] != "boundary"]
    assert {tuple(sorted((a[0], b[0]))) for a, b in seams} == expected
    for (a, x_ND), (b, y_ND) in seams:
        assert len(x_ND) and np.abs(x_ND - y_ND).max() < 2e-5
        for name, at_ND in ((a, x_ND), (b, y_ND)):
            faces = [face for face in domain.faces if face.name == name]
            assert np.min([face.gap(at_ND) for face in faces], axis=0).max() < 1e-9


class Warm(nedhpc.Problem):
    """Poisson's equation with given values on named parts."""

    def __init__(self, domain, **values):
        self.domain, self.values = domain, values
        self.terms = [nedhpc.Residual(f"on_{name}", on=name) for name in values]

    @nedhpc.residual()
    def poisson(self, j):
        return j.lap_u + 1

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda j: j.u - self.values[name[3:]]


def contradictions(domain, **values):
    texts = Plan.of_table({}, None, Warm(domain, **values)).contradictions()
    return [text for text in texts if "contradict" in text]


def test_conditions_that_contradict_each_other_at_an_edge_are_named_with_the_place():
    domain = CASES["a bite at a corner"][0]
    (text,) = contradictions(domain, west=0.0, south=0.0, floor=0.0, ball=1.0, east=1.0, lid=1.0)[
        :1
    ]
    assert "contradict each other at" in text
    (text,) = contradictions(domain, ball=1.0, lid=0.0)
    assert "'on_ball' and 'on_lid' contradict each other" in text and "z = 1" in text
    (text,) = contradictions(CASES["a cylinder"][0], inlet=1.0, wall=0.0, outlet=0.0)
    assert "'on_inlet' and 'on_wall'" in text or "'on_wall' and 'on_inlet'" in text
    heated = nedhpc.InTime(CASES["two balls"][0], 1)
    (text,) = contradictions(heated, one=1.0, two=0.0)
    assert "'on_one' and 'on_two' contradict each other" in text


def test_parts_that_fit_or_do_not_meet_are_not_named():
    assert contradictions(CASES["a hole inside"][0], ball=1.0, lid=0.0, floor=0.5) == []
    assert contradictions(CASES["a bite at a corner"][0], ball=1.0, lid=1.0, east=1.0) == []
    assert contradictions(CASES["a shell"][0], core=1.0, skin=0.0) == []
    cut = CASES["an edge that is cut away"][0]
    assert contradictions(cut, east=1.0, north=0.0) == []
