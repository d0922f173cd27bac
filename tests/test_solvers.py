"""Distributed least squares: right for any ranks, any damping, rank-deficient rows and empty shares."""

import numpy as np
import pytest
import torch

from nedhpc.errors import UsageError
from nedhpc.parallel.comm import block, total
from nedhpc.rows.tangent import dense
from nedhpc.solvers import SOLVERS, choose, memory_bytes

pytestmark = pytest.mark.mpi


def rows(comm, N, P, singular_values=None, seed=0):
    """(A, b) whole, and this rank's share."""
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((N, P)), rng.standard_normal(N)
    if singular_values is not None:
        U, _, Vh = np.linalg.svd(A, full_matrices=False)
        A = U * singular_values @ Vh
    start, stop = block(N, comm.rank, comm.size)
    return A, b, dense(torch.as_tensor(A[start:stop])), torch.as_tensor(b[start:stop])


@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("N, P", [(40, 7), (7, 40), (2, 5), (1, 3)])
@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_solves_rows_and_params(comm, kind, N, P, damping):
    A, b, A_local, b_local = rows(comm, N, P)
    F = SOLVERS[kind](comm, A_local, b_local, 1e-13)
    x, info = F.solve_rows(damping)
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
    y, _ = F.solve_params(torch.as_tensor(g), damping)
    expected = (
        np.linalg.pinv(A.T @ A) @ g
        if damping == 0
        else np.linalg.solve(A.T @ A + damping * np.eye(P), g)
    )
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-7, atol=1e-7)


def test_dual_takes_a_right_hand_side_outside_the_rows(comm):
    A, b, A_local, b_local = rows(comm, 4, 9)
    g = np.random.default_rng(3).standard_normal(9)
    x, _ = SOLVERS["dual"](comm, A_local, b_local, 1e-13).solve_params(torch.as_tensor(g), 0.1)
    np.testing.assert_allclose(x.numpy(), np.linalg.solve(A.T @ A + 0.1 * np.eye(9), g), rtol=1e-10)


@pytest.mark.parametrize("damping", [1e-3, 1e-30, 0.0])
def test_dual_by_cholesky_and_by_eigenvectors(comm, damping):
    """Cholesky where the damping allows it; else eigenvectors, which is said where damping was asked for. K keeps its damping out."""
    start, stop = block(9, comm.rank, comm.size)
    A, b = rows(comm, 9, 30)[:2]
    A[1::2] = A[0]  # rank 5
    F = SOLVERS["dual"](
        comm, dense(torch.as_tensor(A[start:stop])), torch.as_tensor(b[start:stop]), 1e-13
    )
    F.solve_rows(7.0)
    x, info = F.solve_rows(damping)
    assert ("not positive definite" in info.note) == (damping == 1e-30)
    expected = (
        np.linalg.pinv(A, 1e-7) @ b
        if damping < 1e-3
        else np.linalg.solve(A.T @ A + damping * np.eye(30), A.T @ b)
    )
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-7, atol=1e-9)


def test_dual_refines_what_woodbury_cancels(comm):
    """lambda / damping = 1e12: one solve of (b - A^T (K + d)^-1 A b) / d keeps four digits of the part in the rows' span."""
    s, d = np.geomspace(1e3, 3e2, 20), 1e-6
    A, r, A_local, b_local = rows(comm, 20, 50, s)
    b = A.T @ r
    F = SOLVERS["dual"](comm, A_local, b_local, 1e-13)
    x, info = F.solve_params(torch.as_tensor(b), d)
    U, s, Vh = np.linalg.svd(A, full_matrices=False)
    expected = Vh.T @ (Vh @ b / (s * s + d))
    assert (
        np.linalg.norm(Vh @ (x.numpy() - expected)) < 1e-9 * np.linalg.norm(expected)
        and info.note == ""
    )
    assert info.residual < 1e-9 * np.linalg.norm(b)


@pytest.mark.parametrize("kind", SOLVERS)
def test_a_further_right_hand_side_on_the_rows(comm, kind):
    A, b, A_local, b_local = rows(comm, 12, 20)
    other = np.random.default_rng(5).standard_normal(12)
    start, stop = block(12, comm.rank, comm.size)
    x, _ = SOLVERS[kind](comm, A_local, b_local, 1e-13).solve_pulled(
        torch.as_tensor(other[start:stop]), 0.01
    )
    np.testing.assert_allclose(
        x.numpy(), np.linalg.solve(A.T @ A + 0.01 * np.eye(20), A.T @ other), rtol=1e-8, atol=1e-9
    )


def test_solution_is_the_same_on_every_rank(comm):
    _, _, A, b = rows(comm, 31, 6)
    for kind in SOLVERS:
        x, _ = SOLVERS[kind](comm, A, b, 1e-13).solve_rows(1e-3)
        assert all(np.array_equal(x.numpy(), other) for other in comm.allgather(x.numpy()))


def test_tsqr_keeps_full_accuracy_where_gram_does_not(comm):
    """Condition number 1e12: TSQR loses cond * eps, the Gram route cannot see the small half of the spectrum."""
    P, cond = 20, 1e12
    A, _, A_local, _ = rows(comm, 200, P, np.geomspace(1, 1 / cond, P))
    x = np.ones(P)
    start, stop = block(200, comm.rank, comm.size)
    b_local = torch.as_tensor((A @ x)[start:stop])
    error = {
        kind: np.linalg.norm(
            SOLVERS[kind](comm, A_local, b_local, 1e-15).solve_rows()[0].numpy() - x
        )
        / np.sqrt(P)
        for kind in ("tsqr", "gram")
    }
    assert error["tsqr"] < 1e-3 and error["gram"] > 1e-1


def test_gram_says_that_it_fell_back(comm):
    _, _, A, b = rows(comm, 30, 6)
    A.A_NP[:, 3] = A.A_NP[:, 2]
    x, info = SOLVERS["gram"](comm, A, b, 1e-15).solve_rows()
    assert "not positive definite" in info.note and info.effective_rank == 5
    x_tsqr, info = SOLVERS["tsqr"](comm, A, b, 1e-13).solve_rows()
    assert info.effective_rank == 5 and info.note == ""
    np.testing.assert_allclose(x.numpy(), x_tsqr.numpy(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", SOLVERS)
def test_nan_reaches_every_rank(comm, kind):
    _, _, A, b = rows(comm, 30, 6)
    if comm.rank == comm.size - 1:
        A.A_NP[0, 0] = np.nan
    x, _ = SOLVERS[kind](comm, A, b, 1e-13).solve_rows(1e-3)
    assert torch.isnan(x).any()


def test_total_is_a_fixed_order_sum(comm):
    x = np.full(3, 0.1 * (comm.rank + 1))
    expected = total(comm, x)
    assert all(np.array_equal(expected, other) for other in comm.allgather(total(comm, x)))


def test_auto_picks_by_size():
    assert choose("auto", 1000, 257, 1) == "tsqr"
    assert choose("auto", 500, 10_065, 1) == "dual"
    assert choose("auto", 20_000, 5000, 1) == "gram"
    assert memory_bytes("dual", 100, 10**6, 1) < memory_bytes("tsqr", 100, 10**6, 1)
    with pytest.raises(UsageError, match="GiB"):
        choose("tsqr", 1000, 10**6, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", SOLVERS)
def test_solvers_on_cuda(comm, kind):
    A, b, A_local, b_local = rows(comm, 40, 7)
    x, _ = SOLVERS[kind](comm, dense(A_local.A_NP.cuda()), b_local.cuda(), 1e-13).solve_rows(1e-3)
    np.testing.assert_allclose(
        x.cpu().numpy(), np.linalg.solve(A.T @ A + 1e-3 * np.eye(7), A.T @ b), rtol=1e-9
    )
