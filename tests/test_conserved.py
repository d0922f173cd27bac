"""Conserved quantities of a march: they are monitored, and kept to rounding error if asked."""

from math import pi

import numpy as np
import pytest
import torch

import nedhpc
from nedhpc.errors import ConfigError
from nedhpc.files import checkpoint
from nedhpc.plan import Plan
from tests.conftest import make_config
from tests.test_march import march


class Traffic(nedhpc.Problem):
    """u_t = -u u_x, periodic, before a shock forms: mass and energy are conserved."""

    domain = nedhpc.Periodic([0.0], [2 * pi])

    @nedhpc.rate()
    def flux(self, j):
        return -j.u * j.u_x

    @nedhpc.conserved()
    def mass(self, j):
        return j.u

    @nedhpc.conserved()
    def energy(self, j):
        return j.u**2 / 2

    def start(self, x):
        return 1 + 0.3 * torch.sin(x[:, 0])


def drifts(folder):
    """Largest relative changes of mass and energy over the series."""
    series = nedhpc.load(folder, Traffic).series
    values = [np.asarray(series[f"metrics/{name}"]) for name in ("mass", "energy")]
    assert all(len(v) > 2 for v in values)
    return [float(np.abs(v / v[0] - 1).max()) for v in values]


def traffic(folder, conserve=(), resumed=None, max_steps=100):
    settings = {"adapt": "none", "conserve": list(conserve)}
    return march(
        Traffic(),
        folder,
        resumed=resumed,
        hidden=10,
        end=0.4,
        stepper={"type": "sdirk3", "dt": 0.1, "sdirk3": settings},
        run={"max_start_error": 1e-4, "max_steps": max_steps},
        output={"every_steps": 1},
    )


def test_quantities_are_kept_to_rounding(folder):
    traffic(folder / "free")
    free = drifts(folder / "free")
    assert 1e-11 < max(free) < 1e-2
    state, run = traffic(folder / "kept", ("mass", "energy"))[1:]
    assert max(drifts(folder / "kept")) < 1e-13
    assert state.step == 4 and set(run.last.measured().metrics) >= {"mass", "energy"}
    assert run.last.measured().metrics["mass"] == pytest.approx(2 * pi, rel=1e-5)


def test_resumed_march_keeps_the_values_of_the_start(folder):
    whole = traffic(folder / "whole", ["mass"])[1]
    traffic(folder / "part", ["mass"], max_steps=2)
    resumed = checkpoint.newest(folder / "part")[1:3]
    state = traffic(folder / "part", ["mass"], resumed)[1]
    assert (state.theta_P == whole.theta_P).all()
    assert drifts(folder / "part")[0] < 1e-13


def test_conditions_on_the_boundary_survive(folder):
    """The change that keeps a quantity does not spoil the conditions."""

    class Neumann(nedhpc.Problem):
        domain = nedhpc.Box([0.0], [1.0])

        @nedhpc.rate()
        def heat(self, j):
            return 0.1 * j.u_xx

        @nedhpc.residual("boundary")
        def closed(self, j):
            return j.u_x

        @nedhpc.conserved()
        def heat_content(self, j):
            return j.u

        def start(self, x):
            return 1 + torch.cos(pi * x[:, 0])

        def exact(self, x, t):
            return 1 + torch.exp(-0.1 * pi**2 * t) * torch.cos(pi * x[:, 0])

    stepper = {
        "type": "sdirk4",
        "dt": 0.1,
        "sdirk4": {"adapt": "none", "conserve": ["heat_content"]},
    }
    run = march(Neumann(), folder, hidden=20, end=0.2, stepper=stepper)[2]
    measured = run.last.measured()
    assert measured.metrics["heat_content"] == pytest.approx(1, rel=1e-9)
    assert measured.relative_l2 < 1e-4 and measured.energy_terms["closed"] < 1e-9


def test_bad_input():
    tables = {"problem": {"name": "python:X"}, "run": {"max_time": 1.0}}
    settings = {"type": "sdirk4", "sdirk4": {"conserve": ["mas"]}}
    with pytest.raises(ConfigError, match="did you mean 'mass'"):
        Plan(make_config(**tables, stepper=settings), Traffic())

    class Steady(nedhpc.Problem):
        domain = nedhpc.Box([0.0], [1.0])

        @nedhpc.residual()
        def pde(self, j):
            return j.u_xx

        @nedhpc.conserved()
        def mass(self, j):
            return j.u

    with pytest.raises(ConfigError, match="use @nedhpc.integral"):
        Plan(make_config(problem={"name": "python:X"}), Steady())


@pytest.mark.mpi
def test_ranks_agree(comm, folder):
    kept = traffic(folder / f"own{comm.rank}", ["mass"], max_steps=1)[2]
    shared = march(
        Traffic(),
        folder / "all",
        comm,
        hidden=10,
        stepper={"type": "sdirk3", "dt": 0.1, "sdirk3": {"adapt": "none", "conserve": ["mass"]}},
        run={"max_start_error": 1e-4, "max_steps": 1},
    )[2]
    masses = [run.last.measured().metrics["mass"] for run in (kept, shared)]
    assert masses[0] == pytest.approx(masses[1], rel=1e-9)
