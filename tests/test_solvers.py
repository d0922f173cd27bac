"""Distributed least squares are right at any number of ranks and any damping.

This holds for rank-deficient rows and for ranks without rows, too.
"""

import numpy as np
import pytest
import torch

from nedhpc.errors import UsageError
from nedhpc.parallel.comm import block, total
from nedhpc.rows.held import dense
from nedhpc.solvers import SOLVERS, Size, choose

pytestmark = pytest.mark.mpi


def rows(comm, N, P, singular_values=None, seed=0):
    """The whole A and b, and this rank's share of each."""
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((N, P)), rng.standard_normal(N)
    if singular_values is not None:
        U, _, Vh = np.linalg.svd(A, full_matrices=False)
        A = U * singular_values @ Vh
    start, stop = block(N, comm.rank, comm.size)
    return A, b, dense(torch.as_tensor(A[start:stop])), torch.as_tensor(b[start:stop])


def prepared(comm, kind, A, b_N, rtol=1e-13):
    """(solver, state) for rows A."""
    solver = SOLVERS[kind](comm, rtol)
    return solver, solver.init(A, b_N)


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("N, P", [(40, 7), (7, 40), (2, 5), (1, 3)])
@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_solves_rows_and_params(comm, kind, N, P, damping):
    A, b, A_local, b_local = rows(comm, N, P)
    solver, state = prepared(comm, kind, A_local, b_local)
    x, info = solver.solve_rows(state, damping)
    expected = (
        np.linalg.pinv(A) @ b
        if damping == 0
        else np.linalg.solve(A.T @ A + damping * np.eye(P), A.T @ b)
    )
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(info.residual, np.linalg.norm(A @ expected - b), atol=1e-7)
    np.testing.assert_allclose(
        info.projection_error, np.linalg.norm(A @ expected - b) / np.linalg.norm(b), atol=1e-7
    )
    g = A.T @ b
    y, _ = solver.solve_params(state, torch.as_tensor(g), damping)
    expected = (
        np.linalg.pinv(A.T @ A) @ g
        if damping == 0
        else np.linalg.solve(A.T @ A + damping * np.eye(P), g)
    )
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-7, atol=1e-7)


def test_dual_solves_a_right_hand_side_outside_the_rows(comm):
    A, b, A_local, b_local = rows(comm, 4, 9)
    g = np.random.default_rng(3).standard_normal(9)
    solver, state = prepared(comm, "dual", A_local, b_local)
    x, _ = solver.solve_params(state, torch.as_tensor(g), 0.1)
    np.testing.assert_allclose(x.numpy(), np.linalg.solve(A.T @ A + 0.1 * np.eye(9), g), rtol=1e-10)


@pytest.mark.parametrize("damping", [1e-3, 1e-30, 0.0])
def test_dual_falls_back_from_cholesky_to_eigenvectors(comm, damping):
    """If the damping is too small for Cholesky, dual uses eigenvectors.

    The info says so if there is any damping. An earlier solve with other damping changes nothing.
    """
    start, stop = block(9, comm.rank, comm.size)
    A, b = rows(comm, 9, 30)[:2]
    A[1::2] = A[0]  # rank 5
    A_local, b_local = dense(torch.as_tensor(A[start:stop])), torch.as_tensor(b[start:stop])
    solver, state = prepared(comm, "dual", A_local, b_local)
    solver.solve_rows(state, 7.0)
    x, info = solver.solve_rows(state, damping)
    assert ("not positive definite" in info.note) == (damping == 1e-30)
    expected = (
        np.linalg.pinv(A, 1e-7) @ b
        if damping < 1e-3
        else np.linalg.solve(A.T @ A + damping * np.eye(30), A.T @ b)
    )
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-7, atol=1e-9)


def test_dual_refines_what_woodbury_cancels(comm):
    """Refinement restores the digits that Woodbury's identity cancels.

    At lambda / d = 1e12, one solve of (b - A^T (K + d)^-1 A b) / d keeps only four digits of the
    part of x in the span of the rows.
    """
    s, d = np.geomspace(1e3, 3e2, 20), 1e-6
    A, r, A_local, b_local = rows(comm, 20, 50, s)
    b = A.T @ r
    solver, state = prepared(comm, "dual", A_local, b_local)
    x, info = solver.solve_params(state, torch.as_tensor(b), d)
    U, s, Vh = np.linalg.svd(A, full_matrices=False)
    expected = Vh.T @ (Vh @ b / (s * s + d))
    assert np.linalg.norm(Vh @ (x.numpy() - expected)) < 1e-9 * np.linalg.norm(expected)
    assert info.note == ""
    assert info.residual < 1e-9 * np.linalg.norm(b)


@pytest.mark.parametrize("kind", SOLVERS)
def test_solve_pulled_solves_another_right_hand_side(comm, kind):
    A, b, A_local, b_local = rows(comm, 12, 20)
    other = np.random.default_rng(5).standard_normal(12)
    start, stop = block(12, comm.rank, comm.size)
    solver, state = prepared(comm, kind, A_local, b_local)
    x, _ = solver.solve_pulled(state, torch.as_tensor(other[start:stop]), 0.01)
    np.testing.assert_allclose(
        x.numpy(), np.linalg.solve(A.T @ A + 0.01 * np.eye(20), A.T @ other), rtol=1e-8, atol=1e-9
    )


def test_solution_is_the_same_on_every_rank(comm):
    _, _, A, b = rows(comm, 31, 6)
    for kind in SOLVERS:
        solver, state = prepared(comm, kind, A, b)
        x, _ = solver.solve_rows(state, 1e-3)
        assert all(np.array_equal(x.numpy(), other) for other in comm.allgather(x.numpy()))


def test_tsqr_keeps_the_accuracy_that_gram_loses(comm):
    """At condition number 1e12, TSQR loses cond * eps, and gram loses half of the spectrum.

    The Gram matrix squares the singular values, so that rounding hides the small ones.
    """
    P, cond = 20, 1e12
    A, _, A_local, _ = rows(comm, 200, P, np.geomspace(1, 1 / cond, P))
    x = np.ones(P)
    start, stop = block(200, comm.rank, comm.size)
    b_local = torch.as_tensor((A @ x)[start:stop])
    error = {}
    for kind in ("tsqr", "gram"):
        solver, state = prepared(comm, kind, A_local, b_local, 1e-15)
        error[kind] = np.linalg.norm(solver.solve_rows(state)[0].numpy() - x) / np.sqrt(P)
    assert error["tsqr"] < 1e-3 and error["gram"] > 1e-1


def test_gram_says_that_it_fell_back(comm):
    _, _, A, b = rows(comm, 30, 6)
    A.A_NP[:, 3] = A.A_NP[:, 2]
    solver, state = prepared(comm, "gram", A, b, 1e-15)
    x, info = solver.solve_rows(state)
    assert "not positive definite" in info.note and info.effective_rank == 5
    solver, state = prepared(comm, "tsqr", A, b)
    x_tsqr, info = solver.solve_rows(state)
    assert info.effective_rank == 5 and info.note == ""
    np.testing.assert_allclose(x.numpy(), x_tsqr.numpy(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", SOLVERS)
def test_nan_reaches_every_rank(comm, kind):
    _, _, A, b = rows(comm, 30, 6)
    if comm.rank == comm.size - 1:
        A.A_NP[0, 0] = np.nan
    solver, state = prepared(comm, kind, A, b)
    x, _ = solver.solve_rows(state, 1e-3)
    assert torch.isnan(x).any()


def test_total_is_the_same_on_every_rank(comm):
    x = np.full(3, 0.1 * (comm.rank + 1))
    expected = total(comm, x)
    assert all(np.array_equal(expected, other) for other in comm.allgather(total(comm, x)))


def test_auto_picks_by_size():
    memory = 2**35
    assert choose("auto", Size(1000, 257), memory) == "tsqr"
    assert choose("auto", Size(500, 10_065), memory) == "dual"
    assert choose("auto", Size(20_000, 5000), memory) == "gram"
    few = Size(100, 10**6)
    assert SOLVERS["dual"].cost(few).bytes < SOLVERS["tsqr"].cost(few).bytes
    with pytest.raises(UsageError, match="GiB.*use solver krylov"):
        choose("tsqr", Size(1000, 10**6), memory)


@pytest.mark.parametrize("kind", SOLVERS)
def test_cost_grows_with_the_problem(kind):
    """A larger problem never costs less, and more ranks never cost rank 0 more.

    A larger problem has more rows, parameters or jets, or a dense metric.
    """
    cost = SOLVERS[kind].cost
    base = cost(Size(1000, 5000))
    for larger in (
        Size(2000, 5000),
        Size(1000, 10_000),
        Size(1000, 5000, point_bytes=10**5),
        Size(1000, 5000, dense_metric=True),
    ):
        assert cost(larger).bytes >= base.bytes and cost(larger).flops >= base.flops
    split = cost(Size(1000, 5000, num_ranks=4))
    assert split.bytes <= base.bytes and split.flops <= base.flops


@pytest.mark.parametrize("N, P", [(40, 12), (12, 40)])
@pytest.mark.parametrize("damping", [1.0, 1e-4])
def test_all_solvers_agree(comm, N, P, damping):
    A, _, A_local, b_local = rows(comm, N, P, np.geomspace(1, 1e-3, min(N, P)))
    g = torch.as_tensor(np.random.default_rng(4).standard_normal(P))
    ends = []
    for kind in SOLVERS:
        solver, state = prepared(comm, kind, A_local, b_local)
        ends.append(
            (
                solver.solve_rows(state, damping)[0],
                solver.solve_params(state, g, damping)[0],
                solver.solve_pulled(state, 2 * b_local, damping)[0],
            )
        )
    for end in ends[1:]:
        for one, other in zip(ends[0], end, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", SOLVERS)
def test_states_share_nothing(comm, kind):
    """If one solver object solves two systems in turn, neither changes the other's results.

    Each result equals that of a solver which has only this system, to the bit.
    """
    systems = [rows(comm, N, P, seed=seed)[2:] for N, P, seed in ((40, 7, 1), (9, 20, 2))]
    dampings = (1e-2, 0.0, 3.0, 1e-2)

    def solves(solver, state, damping):
        g = torch.ones(state.A.num_columns)
        return [solver.solve_rows(state, damping), solver.solve_params(state, g, damping)]

    solver = SOLVERS[kind](comm, 1e-13)
    settings = dict(vars(solver))
    states = [solver.init(A, b) for A, b in systems]
    in_turn = [[solves(solver, state, damping) for state in states] for damping in dampings]
    assert vars(solver) == settings
    for k, (A, b) in enumerate(systems):
        for damping, found in zip(dampings, in_turn, strict=True):
            fresh = solves(*prepared(comm, kind, A, b), damping)
            for (x, info), (y, other) in zip(fresh, found[k], strict=True):
                assert torch.equal(x, y) and repr(info) == repr(other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", SOLVERS)
def test_solvers_on_cuda_give_the_solution(comm, kind):
    A, b, A_local, b_local = rows(comm, 40, 7)
    solver, state = prepared(comm, kind, dense(A_local.A_NP.cuda()), b_local.cuda())
    x, _ = solver.solve_rows(state, 1e-3)
    np.testing.assert_allclose(
        x.cpu().numpy(), np.linalg.solve(A.T @ A + 1e-3 * np.eye(7), A.T @ b), rtol=1e-9
    )
