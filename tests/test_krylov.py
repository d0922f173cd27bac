"""The matrix-free solver: the solutions of TSQR without its P x P matrices, at any number of ranks."""

import numpy as np
import pytest
import torch
from conftest import make_case, make_config
from mpi4py import MPI
from test_flow import march, parameters
from test_solvers import rows

from nedhpc.config import KrylovTable, Stepper
from nedhpc.errors import ConfigError
from nedhpc.rows import tangent
from nedhpc.solvers import choose, memory_bytes
from nedhpc.solvers.krylov import Krylov
from nedhpc.solvers.tsqr import Tsqr
from nedhpc.steppers.ts import TimeStepper

pytestmark = pytest.mark.mpi
TIGHT = KrylovTable(rtol=1e-12, max_iterations=500)


def ned_rows(comm, steps=5, hidden=(20, 20)):
    """Rows of a network on its way: singular values fall over all of float64."""
    case = make_case(
        comm,
        problem={"name": "poisson", "dim": 2},
        network={"hidden": list(hidden)},
        sampling={"interior": 225, "boundary": 40, "rule": "grid"},
    )
    theta = march(case, parameters(case), 1.0, steps, "ptc")
    return case.energy.rows(theta, case.flow.sample)


@pytest.mark.parametrize("damping", [1e-4, 1e-8])
def test_agrees_with_tsqr_on_ill_conditioned_rows(comm, damping):
    found = ned_rows(comm)
    A, b = found.A, -found.r_N
    exact = Tsqr(comm, A, b, 1e-15)
    damping *= exact.solve_rows(1.0)[1].sigma_max ** 2
    krylov = Krylov(comm, A, b, 1e-15, TIGHT)
    (x, _), (y, info) = exact.solve_rows(damping), krylov.solve_rows(damping)
    assert (x - y).norm() < 1e-6 * x.norm() and info.note == ""
    g = torch.as_tensor(np.random.default_rng(0).standard_normal(len(x)))
    (x, _), (y, info) = exact.solve_params(g, damping), krylov.solve_params(g, damping)
    assert (x - y).norm() < 1e-6 * x.norm() and info.note == ""
    assert all(np.array_equal(y.numpy(), other) for other in comm.allgather(y.numpy()))


def test_preconditioner_saves_iterations(comm):
    """What rank 100 solves in 20 iterations, rank 1 does not in ten times as many."""
    found = ned_rows(comm)
    damping = 1e-8 * Tsqr(comm, found.A, -found.r_N, 1e-15).solve_rows(1.0)[1].sigma_max ** 2
    assert (
        Krylov(comm, found.A, -found.r_N, 1e-15, KrylovTable(max_iterations=20))
        .solve_rows(damping)[1]
        .note
        == ""
    )
    assert (
        "did not reach"
        in Krylov(comm, found.A, -found.r_N, 1e-15, KrylovTable(rank=1, max_iterations=200))
        .solve_rows(damping)[1]
        .note
    )


def test_streamed_rows_are_held_rows(comm, monkeypatch):
    held = ned_rows(comm, 0, (6, 5))
    monkeypatch.setattr(tangent, "HOLD_BYTES", 0)
    streamed = ned_rows(comm, 0, (6, 5))
    assert streamed.A.A_NP is None
    one, other = (
        Krylov(comm, r.A, -r.r_N, 1e-15, TIGHT).solve_rows(1e-4)[0] for r in (held, streamed)
    )
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_ranks_agree(comm):
    together = Krylov(comm, *(lambda r: (r.A, -r.r_N))(ned_rows(comm, 2)), 1e-15, TIGHT).solve_rows(
        1e-4
    )[0]
    alone = Krylov(
        MPI.COMM_SELF, *(lambda r: (r.A, -r.r_N))(ned_rows(MPI.COMM_SELF, 2)), 1e-15, TIGHT
    ).solve_rows(1e-4)[0]
    assert (together - alone).norm() < 1e-7 * alone.norm()


def test_never_squares_the_rows(comm):
    """Condition number 1e10 without damping: LSQR on rows still finds the solution; the normal equations cannot."""
    P = 12
    A, _, A_local, _ = rows(comm, 60, P, np.geomspace(1, 1e-10, P))
    b_local = A_local.matvec(torch.ones(P, dtype=torch.float64))
    x, _ = Krylov(
        comm, A_local, b_local, 1e-15, KrylovTable(rtol=1e-15, max_iterations=200)
    ).solve_rows()
    normal = np.linalg.solve(A.T @ A + 1e-30 * np.eye(P), A.T @ (A @ np.ones(P)))
    assert np.abs(x.numpy() - 1).max() < 1e-3 < np.abs(normal - 1).max()


@pytest.mark.parametrize("metric", ["euclidean", "l2"])
def test_in_ptc_and_in_the_implicit_form(comm, metric):
    ends = {}
    for kind in ("tsqr", "krylov"):
        case = make_case(
            comm,
            solver={"type": kind, "krylov": {"rtol": 1e-12}},
            flow={"metric": metric, "metric_eps": 1e-2},
        )
        theta = parameters(case)
        ends[kind] = (
            march(case, theta, 1e-2, 2, "ptc"),
            march(case, theta, 0.05, 2, "beuler", "-snes_rtol 1e-10"),
        )
    for one, other in zip(*ends.values()):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_zero_and_not_finite_right_hand_sides(comm):
    _, _, A, b = rows(comm, 30, 6)
    assert torch.equal(
        Krylov(comm, A, 0 * b, 1e-15).solve_rows(1e-3)[0], torch.zeros(6, dtype=torch.float64)
    )
    if comm.rank == comm.size - 1:
        A.A_NP[0, 0] = np.nan
    F = Krylov(comm, A, b, 1e-15)
    assert (
        torch.isnan(F.solve_rows(1e-3)[0]).all()
        and torch.isnan(F.solve_params(torch.ones(6), 1e-3)[0]).all()
    )


def test_auto_takes_it_where_nothing_else_fits():
    assert choose("auto", 10**6, 10**6, 1) == "krylov"
    assert choose("auto", 100, 10**6, 1) == "dual"
    assert memory_bytes("krylov", 10**6, 10**6, 1) < 0.01 * memory_bytes("gram", 10**6, 10**6, 1)


def test_its_table_is_always_validated():
    with pytest.raises(ConfigError, match="solver.krylov.rank"):
        make_config(solver={"type": "tsqr", "krylov": {"rank": 0}})
