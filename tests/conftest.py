"""Shared fixtures. Under mpirun, a failing rank ends the job.

Otherwise the other ranks would wait for it in a collective.
"""

import atexit
import faulthandler
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from mpi4py import MPI

import nedhpc
from nedhpc import config
from nedhpc.ansatz import jets
from nedhpc.plan import Plan
from nedhpc.running.case import Case
from nedhpc.running.evolve import Run

torch.set_default_dtype(torch.float64)
faulthandler.enable()
# The record of the code that was run must not be the user's own. Processes that tests start have
# this variable too.
STATE_HOME = MPI.COMM_WORLD.bcast(
    tempfile.mkdtemp(prefix="nedhpc-tests-") if MPI.COMM_WORLD.rank == 0 else None
)
os.environ["XDG_STATE_HOME"] = STATE_HOME
if MPI.COMM_WORLD.rank == 0:
    atexit.register(shutil.rmtree, STATE_HOME, ignore_errors=True)


def _abort(kind, value, trace):
    traceback.print_exception(kind, value, trace)
    sys.stderr.flush()
    MPI.COMM_WORLD.Abort(1)


if MPI.COMM_WORLD.size > 1:
    sys.excepthook = _abort


class Decay(nedhpc.Problem):
    """A march: u_t = -u, so that u = sin(x) exp(-t)."""

    domain = nedhpc.Periodic([0.0], [2 * torch.pi])

    @nedhpc.rate()
    def decay(self, j):
        return -j.u

    def start(self, x):
        return torch.sin(x[:, 0])

    def exact(self, x, t):
        return torch.sin(x[:, 0]) * torch.exp(-t)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if MPI.COMM_WORLD.size > 1 and report.failed:
        print(
            f"rank {MPI.COMM_WORLD.rank}: {item.nodeid} failed\n{report.longreprtext}",
            file=sys.stderr,
            flush=True,
        )
        MPI.COMM_WORLD.Abort(1)


@pytest.fixture
def comm():
    return MPI.COMM_WORLD


@pytest.fixture
def folder(comm, tmp_path_factory):
    """One folder for all ranks."""
    return comm.bcast(tmp_path_factory.mktemp("run") if comm.rank == 0 else None, 0)


def repeatable(count, **options):
    """hypothesis.settings of `count` examples, the same in each run, on machines of any speed."""
    fixed = {"deadline": None, "derandomize": True, "database": None}
    return settings(max_examples=count, suppress_health_check=list(HealthCheck), **fixed, **options)


def on_ranks(some, values):
    """Parameters of a test of which only `some` are worth a run on several ranks."""
    return [pytest.param(v, marks=() if v in some else pytest.mark.one_rank) for v in values]


def make_table(**tables):
    """A config table of a small problem, with whole tables replaced or extended.

    Nothing is scaled, balanced or adapted, so that a test sees only the mechanism it is about.
    """
    base = {
        "problem": {"name": "poisson", "dim": 1},
        "network": {"hidden": [8], "scaling": "none"},
        "sampling": {"interior": 40, "rule": "grid", "adapt": "none"},
        "weights": {"balance": "none"},
        "run": {"start": "random", "windows": 1},
        "checkpoint": {"every_seconds": 1e6},
        "device": {"threads": 1},
    }
    for name, table in tables.items():
        base[name] = table if name == "problem" else base.get(name, {}) | table
    return base


def make_config(**tables):
    return config.validate(make_table(**tables))


def make_plan(comm=MPI.COMM_SELF, **tables):
    return Plan(make_config(**tables), num_ranks=comm.size)


def make_case(comm, **tables):
    """A Case with draw 0 in its flow."""
    case = Case(comm, make_plan(comm, **tables))
    case.draw(0, None)
    return case


def evolve(settings, run_dir, comm, resumed=None, signals=None, observers=()):
    """(status, State) of a whole run of a Config. Collective."""
    plan = Plan(settings, num_ranks=comm.size)
    return Run(comm, plan, Path(run_dir), resumed, signals, observers).evolve()


def parse_jets(*names, outputs=("u",), coordinates=("x", "y")):
    return jets.parse(names, outputs, coordinates)
