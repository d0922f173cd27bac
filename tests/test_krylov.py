"""The matrix-free solver gives the solutions of TSQR at any number of ranks.

It forms no P x P matrix.
"""

import numpy as np
import pytest
import torch
from conftest import make_case, make_config
from mpi4py import MPI
from test_flow import march, parameters
from test_solvers import rows

from nedhpc.config import KrylovTable
from nedhpc.errors import ConfigError
from nedhpc.rows import gather
from nedhpc.rows.streamed import StreamedRows
from nedhpc.solvers import SOLVERS, Size, choose
from nedhpc.solvers.krylov import Krylov
from nedhpc.solvers.tsqr import Tsqr

pytestmark = pytest.mark.mpi
TIGHT = KrylovTable(rtol=1e-12, max_iterations=500)


def prepared(comm, A, b_N, settings=None, cls=Krylov):
    """(solver, state) for rows A."""
    solver = cls(comm, 1e-15, settings)
    return solver, solver.init(A, b_N)


def ned_rows(comm, steps=5, hidden=(20, 20)):
    """Rows of a partly trained network. Their singular values span the range of float64."""
    case = make_case(
        comm,
        problem={"name": "poisson", "dim": 2},
        network={"hidden": list(hidden)},
        sampling={"interior": 225, "boundary": 40, "rule": "grid"},
    )
    theta = march(case, parameters(case), 1.0, steps, "ptc")
    return case.plan.energy.linearise(theta, case.flow.sample)


@pytest.mark.parametrize("damping", [1e-4, 1e-8])
def test_agrees_with_tsqr_on_ill_conditioned_rows(comm, damping):
    found = ned_rows(comm)
    A, b = found.A, -found.r_N
    exact, of_exact = prepared(comm, A, b, cls=Tsqr)
    damping *= exact.solve_rows(of_exact, 1.0)[1].sigma_max ** 2
    krylov, of_krylov = prepared(comm, A, b, TIGHT)
    (x, _), (y, info) = exact.solve_rows(of_exact, damping), krylov.solve_rows(of_krylov, damping)
    assert (x - y).norm() < 1e-6 * x.norm() and info.note == ""
    g = torch.as_tensor(np.random.default_rng(0).standard_normal(len(x)))
    x, _ = exact.solve_params(of_exact, g, damping)
    y, info = krylov.solve_params(of_krylov, g, damping)
    assert (x - y).norm() < 1e-6 * x.norm() and info.note == ""
    assert all(np.array_equal(y.numpy(), other) for other in comm.allgather(y.numpy()))


def test_preconditioner_saves_iterations(comm):
    """With rank 100, 20 iterations are enough; with rank 1, 200 are not."""
    found = ned_rows(comm)
    exact, state = prepared(comm, found.A, -found.r_N, cls=Tsqr)
    damping = 1e-8 * exact.solve_rows(state, 1.0)[1].sigma_max ** 2

    def note(**settings):
        krylov, state = prepared(comm, found.A, -found.r_N, KrylovTable(**settings))
        return krylov.solve_rows(state, damping)[1].note

    assert note(max_iterations=20) == ""
    assert "did not reach" in note(rank=1, max_iterations=200)


def solution(comm, found):
    krylov, state = prepared(comm, found.A, -found.r_N, TIGHT)
    return krylov.solve_rows(state, 1e-4)[0]


def test_streamed_and_held_rows_give_the_same_solution(comm, monkeypatch):
    held = ned_rows(comm, 0, (6, 5))
    monkeypatch.setattr(gather, "HOLD_BYTES", 0)
    streamed = ned_rows(comm, 0, (6, 5))
    assert type(streamed.A) is StreamedRows
    one, other = (solution(comm, found) for found in (held, streamed))
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_the_solution_does_not_depend_on_ranks(comm):
    all_ranks, one_rank = (solution(c, ned_rows(c, 2)) for c in (comm, MPI.COMM_SELF))
    assert (all_ranks - one_rank).norm() < 1e-7 * one_rank.norm()


def test_never_squares_the_rows(comm):
    """At condition number 1e10, LSQR finds the solution, and the normal equations do not.

    LSQR works on the rows, here without damping.
    """
    P = 12
    A, _, A_local, _ = rows(comm, 60, P, np.geomspace(1, 1e-10, P))
    b_local = A_local.matvec(torch.ones(P, dtype=torch.float64))
    krylov, state = prepared(comm, A_local, b_local, KrylovTable(rtol=1e-15, max_iterations=200))
    x, _ = krylov.solve_rows(state)
    normal = np.linalg.solve(A.T @ A + 1e-30 * np.eye(P), A.T @ (A @ np.ones(P)))
    assert np.abs(x.numpy() - 1).max() < 1e-3 < np.abs(normal - 1).max()


@pytest.mark.parametrize("metric", ["euclidean", "l2"])
def test_ptc_and_implicit_steps_are_those_of_tsqr(comm, metric):
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
    for one, other in zip(*ends.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_zero_gives_zero_and_nan_gives_nan(comm):
    _, _, A, b = rows(comm, 30, 6)
    krylov, state = prepared(comm, A, 0 * b)
    assert torch.equal(krylov.solve_rows(state, 1e-3)[0], torch.zeros(6, dtype=torch.float64))
    if comm.rank == comm.size - 1:
        A.A_NP[0, 0] = np.nan
    krylov, state = prepared(comm, A, b)
    assert torch.isnan(krylov.solve_rows(state, 1e-3)[0]).all()
    assert torch.isnan(krylov.solve_params(state, torch.ones(6), 1e-3)[0]).all()


def test_auto_chooses_krylov_if_nothing_else_fits():
    memory, many = 2**35, Size(10**6, 10**6)
    assert choose("auto", many, memory) == "krylov"
    assert choose("auto", Size(100, 10**6), memory) == "dual"
    assert SOLVERS["krylov"].cost(many).bytes < 0.01 * SOLVERS["gram"].cost(many).bytes


def test_the_krylov_table_is_validated_for_any_solver():
    with pytest.raises(ConfigError, match="solver.krylov.rank"):
        make_config(solver={"type": "tsqr", "krylov": {"rank": 0}})
