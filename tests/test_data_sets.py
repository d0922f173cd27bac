"""Several data sets by name: each has terms, weights, numbers of rows and a split of its own."""

import numpy as np
import pytest
from mpi4py import MPI
from test_adaptation import plan_of, run, small

import nedhpc
from nedhpc.errors import ConfigError, UsageError
from nedhpc.files.resume import load_resume
from nedhpc.postprocess.info import info
from nedhpc.running.case import Case

COMM = MPI.COMM_SELF


class Line(nedhpc.Problem):
    """u'' = 0 with u = 1 + 2 x at some sensors and u' = 2 at others."""

    domain = nedhpc.Box([0.0], [1.0])

    def __init__(self, num_rows: int = 20, slope: float = 2.0):
        x = np.linspace(0.1, 0.9, num_rows)[:, None]
        slopes = np.full((3, 2), [slope, 7.0])
        self.data = {
            "sensors": nedhpc.DataSet(x, 1 + 2 * x),
            "fluxes": nedhpc.DataSet(np.array([[0.0], [0.5], [1.0]]), slopes),
        }

    @nedhpc.residual("interior")
    def pde(self, j):
        return j.u_xx

    @nedhpc.residual("sensors")
    def values(self, j, y):
        return j.u - y[:, 0]

    @nedhpc.residual("fluxes", weight=3.0)
    def slopes(self, j, y):
        return j.u_x - y[:, 0]


@pytest.mark.mpi
def test_two_data_sets_are_fitted_together(tmp_path):
    comm = MPI.COMM_WORLD
    folder = comm.bcast(tmp_path) / "run"
    run(Line(), folder, comm, **small(max_steps=30))
    assert info(folder)["energy"] < 1e-8
    u = nedhpc.load(folder, Line())
    assert abs(u([0.25])[0, 0] - 1.5) < 1e-3 and abs(u.jet("u_x", [0.25])[0] - 2) < 1e-2


def test_each_set_has_its_number_of_rows_and_its_weight():
    tables = small() | {"sampling": {"sensors": 5}, "weights": {"fluxes": 2.0}}
    plan = plan_of(Line(), **tables)
    assert plan.counts["sensors"] == 5 and plan.counts["fluxes"] == 3
    assert {term.name: term.weight for term in plan.terms}["slopes"] == 6.0
    case = Case(COMM, plan)
    case.draw(0)
    assert len(case.flow.sample["sensors"].x_ND) == 5
    assert case.flow.sample["fluxes"].y_NM[:, 1].tolist() == [7.0] * 3


def test_rows_of_the_large_set_only_are_held_out():
    plan = plan_of(Line(num_rows=200), **small())
    assert [len(data.held_out_x) for data in plan.data.values()] == [20, 0]


def test_a_run_does_not_continue_with_other_sets(tmp_path):
    run(Line(), tmp_path / "run", **small(max_steps=2))
    resumed = load_resume(COMM, tmp_path / "run")
    with pytest.raises(UsageError, match="the data set or its split"):
        run(Line(num_rows=21), tmp_path / "run", resumed=resumed, **small(max_steps=3))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sensors": 1.0}, "sensors is a float"),
        ({"interior": Line().data["sensors"]}, "that no part of the domain has"),
        ({"sensors": Line().data["sensors"]}, "is on 'fluxes'; allowed: .*sensors"),
        (Line().data | {"far": nedhpc.DataSet(np.ones((1, 2)), np.ones((1, 1)))}, "far.x_ND has"),
    ],
)
def test_sets_that_do_not_fit_say_why(data, message):
    problem = Line()
    problem.data = data
    with pytest.raises(ConfigError, match=message):
        plan_of(problem, **small())
