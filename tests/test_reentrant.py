"""Corners that point into a domain are found, and named with their exponent and the remedy."""

import logging

import numpy as np
import pytest
import torch

import nedhpc
from nedhpc.cli import main
from nedhpc.plan import Plan

R = nedhpc.Rectangle
L_SHAPE = R([-1, -1], [1, 1]) - R([0, -1], [1, 0])
SQUARE = R([-1, -1], [1, 1])
POLYGON = nedhpc.Polygon([[0, 0], [2, 0], [2, 1], [1, 0.2], [0, 1]])


def ring(radius, count):
    phi = 2 * np.pi * np.arange(count) / count
    return radius * np.stack([np.cos(phi), np.sin(phi)], 1)


@pytest.mark.parametrize(
    ("domain", "points", "angle"),
    [
        (L_SHAPE, [[0, 0]], 270),
        (nedhpc.InTime(L_SHAPE, 2), [[0, 0]], 270),
        (nedhpc.Extrusion(L_SHAPE, 0, 1), [[0, 0]], 270),
        (SQUARE - R([-0.5, -0.5], [0.5, 0.5]), [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5]], 270),
        (POLYGON, [[1, 0.2]], 180 + 2 * np.degrees(np.arctan(0.8))),
        (nedhpc.Disk([0, 0], 1) | nedhpc.Disk([1, 0], 1), [[0.5, 0.75**0.5]], 240),
    ],
)
def test_corners_that_point_into_the_domain_are_found_with_their_angles(domain, points, angle):
    found = domain.reentrant_corners()
    for point in points:
        assert any(np.abs(corner - point).max() < 1e-5 for corner, _ in found)
    assert all(abs(np.degrees(omega) - angle) < 0.7 for _, omega in found)


@pytest.mark.parametrize(
    "domain",
    [
        SQUARE,
        SQUARE - nedhpc.Disk([0.2, 0], 0.5),  # a smooth hole
        SQUARE - nedhpc.Disk([-1, -1], 0.5),  # two right angles
        SQUARE - nedhpc.Disk([-1, -1.1], 0.5),  # two sharp ones
        nedhpc.Polygon(ring(1, 64), holes=[ring(0.3, 24)]),  # a circle of short edges
        nedhpc.Polygon([[0, 0], [1, 0], [2, 0], [2, 1]]),  # a corner of 180 degrees
        nedhpc.Periodic([0, 0], [1, 1]),
        nedhpc.Box([0] * 5, [1] * 5),
    ],
)
def test_smooth_boundaries_and_convex_corners_are_not_named(domain):
    assert domain.reentrant_corners() == []


class Membrane(nedhpc.Problem):
    domain = L_SHAPE

    @nedhpc.residual("interior")
    def pde(self, j):
        return j.lap_u + 1

    @nedhpc.residual("boundary")
    def wall(self, j):
        return j.u


class WithFeature(Membrane):
    def singular(self, x):
        phi = torch.atan2(x[:, 1], x[:, 0]) % (2 * torch.pi)
        return (x.norm(dim=1) ** (2 / 3) * torch.sin(2 * phi / 3)).unsqueeze(1)


class FirstOrder(Membrane):
    @nedhpc.residual("interior")
    def pde(self, j):
        return j.u_x + j.u - 1


class Unsteady(Membrane):
    domain = nedhpc.InTime(L_SHAPE, 1)

    @nedhpc.residual("initial")
    def start(self, j):
        return j.u


def notes(problem, **tables):
    return Plan.of_table(tables, None, problem).notes()


def test_the_corner_is_named_with_its_exponent_and_the_remedy():
    for problem in (Membrane(), Unsteady()):
        (text,) = notes(problem)
        assert "corner at x = 0, y = 0 points into the domain, with an angle of 270" in text
        assert "r^0.667 sin(0.667 phi)" in text and "`singular`" in text
    (text,) = notes(type("Ring", (Membrane,), {"domain": SQUARE - R([-0.5, -0.5], [0, 0])})())
    assert "4 corners point into the domain; the sharpest" in text
    assert notes(WithFeature()) == [] and notes(FirstOrder()) == []


def test_check_and_the_log_of_a_run_name_the_corner(tmp_path, caplog, capsys):
    config = tmp_path / "l.toml"
    config.write_text('[problem]\nname = "l_shape"\n')
    assert main(["check", str(config)]) == 0
    assert "note          the corner at x = 0, y = 0" in capsys.readouterr().out
    table = {"network": {"hidden": [4]}, "run": {"max_steps": 1, "start": "random"}}
    with caplog.at_level(logging.INFO, "nedhpc"):
        nedhpc.run(table, problem=Membrane(), out=tmp_path / "run")
    assert sum("note: the corner at x = 0" in text for text in caplog.messages) == 1
