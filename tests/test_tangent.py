"""Rows that are recomputed chunk by chunk are the rows that are held, in every product and every solver."""

import pytest
import torch

from conftest import make_case
from nedhpc import tangent
from nedhpc.solvers import SOLVERS, dual

pytestmark = pytest.mark.mpi
TABLES = {"problem": {"name": "poisson", "dim": 2}, "sampling": {"interior": 25, "boundary": 8}, "network": {"hidden": [6, 5]},
          "solver": {"chunk": 4}}


@pytest.fixture
def both(comm, monkeypatch):
    """(held, streamed) rows of one case, theta."""
    case = make_case(comm, **TABLES)
    theta = torch.as_tensor(case.network.initial(0))
    held = case.energy.rows(theta, case.flow.sample)
    monkeypatch.setattr(tangent, "HOLD_BYTES", 0)
    streamed = case.energy.rows(theta, case.flow.sample)
    assert held.A.A_NP is not None and streamed.A.A_NP is None
    return held, streamed, theta


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("in_metric", [False, True])
def test_products(both, in_metric):
    held, streamed, theta = both
    A, S, P = held.A, streamed.A, len(theta)
    if in_metric:
        R_M = torch.eye(P, dtype=theta.dtype) + 0.1 * torch.ones(P, P, dtype=theta.dtype).triu()
        A, S = A.in_metric(R_M), S.in_metric(R_M)
    v, w = torch.randn(P), torch.randn(A.num_rows)
    close(torch.cat([block for _, block in S.blocks()]), A.A_NP)
    close(S.matvec(v), A.A_NP @ v)
    close(S.rmatvec(w), A.A_NP.T @ w)
    if not in_metric:
        for width in (1, 7, 1000):
            close(torch.cat(list(S.column_blocks(width)), 1), A.A_NP)
            assert [b.shape for b in S.column_blocks(width)] == [b.shape for b in A.column_blocks(width)]


@pytest.mark.parametrize("kind", SOLVERS)
def test_solvers(comm, both, kind, monkeypatch):
    held, streamed, theta = both
    monkeypatch.setattr(dual, "COLUMN_BYTES", 4000)
    b, g = -held.r_N, torch.ones(len(theta), dtype=theta.dtype)
    one, other = (SOLVERS[kind](comm, rows.A, b, 1e-13) for rows in (held, streamed))
    torch.testing.assert_close(one.solve_rows(1e-3)[0], other.solve_rows(1e-3)[0], rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(one.solve_params(g, 1e-2)[0], other.solve_params(g, 1e-2)[0], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("metric", ["euclidean", "l2", "energy"])
def test_a_ptc_step(comm, metric, monkeypatch):
    from nedhpc.config import PtcTable
    from nedhpc.steppers.ptc import Ptc
    ends = []
    for hold in (2**29, 0):
        monkeypatch.setattr(tangent, "HOLD_BYTES", hold)
        case = make_case(comm, flow={"metric": metric}, **TABLES)
        theta, _, info = Ptc(case.flow, PtcTable()).step(torch.as_tensor(case.network.initial(0)), 1e-2)
        assert info.dt > 0
        ends.append(theta)
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-8)
