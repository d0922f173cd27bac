"""Rows that are recomputed chunk by chunk equal rows that are held.

This holds in every product and every solver.
"""

import numpy as np
import pytest
import torch
from conftest import make_case

import nedhpc
from nedhpc.ansatz.mlp import MLP
from nedhpc.ansatz.module import ModuleNetwork
from nedhpc.flows.energy import Energy
from nedhpc.problems import bind_terms
from nedhpc.rows import gather
from nedhpc.rows.factored import FactoredRows
from nedhpc.rows.held import HeldRows, dense
from nedhpc.rows.metric import MetricRows
from nedhpc.rows.streamed import StreamedRows
from nedhpc.sampling.points import Sampler
from nedhpc.solvers import SOLVERS, dual

pytestmark = pytest.mark.mpi


def make_energy(problem, ansatz):
    return Energy(problem, bind_terms(problem, {}), ansatz, chunk=4)


TABLES = {
    "problem": {"name": "poisson", "dim": 2},
    "sampling": {"interior": 25, "boundary": 8},
    "network": {"hidden": [6, 5]},
    "solver": {"chunk": 4},
}


@pytest.fixture
def both(comm, monkeypatch):
    """(held rows, streamed rows, theta) of one case."""
    case = make_case(comm, **TABLES)
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    held = case.plan.energy.linearise(theta, case.flow.sample)
    monkeypatch.setattr(gather, "HOLD_BYTES", 0)
    streamed = case.plan.energy.linearise(theta, case.flow.sample)
    assert isinstance(held.A, HeldRows) and type(streamed.A) is StreamedRows
    return held, streamed, theta


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("in_metric", [False, True])
def test_products_of_streamed_and_held_rows_agree(both, in_metric):
    held, streamed, theta = both
    A, S, P = held.A, streamed.A, len(theta)
    if in_metric:
        R_M = torch.eye(P, dtype=theta.dtype) + 0.1 * torch.ones(P, P, dtype=theta.dtype).triu()
        A, S = A.in_metric(R_M), S.in_metric(R_M)
    v, w = torch.randn(P), torch.randn(A.num_rows)
    assert isinstance(A, HeldRows) and isinstance(S, MetricRows if in_metric else StreamedRows)
    close(torch.cat([block for _, block in S.blocks()]), A.A_NP)
    close(S.matvec(v), A.A_NP @ v)
    close(S.rmatvec(w), A.A_NP.T @ w)
    for width in (1, 7, 1000):
        close(torch.cat(list(S.column_blocks(width)), 1), A.A_NP)
        assert [b.shape for b in S.column_blocks(width)] == [
            b.shape for b in A.column_blocks(width)
        ]
    assert A.factors() is None and S.factors() is None


@pytest.mark.parametrize("kind", SOLVERS)
def test_solvers_give_the_same_for_streamed_and_held_rows(comm, both, kind, monkeypatch):
    held, streamed, theta = both
    monkeypatch.setattr(dual, "COLUMN_BYTES", 4000)
    b, g = -held.r_N, torch.ones(len(theta), dtype=theta.dtype)
    solver = SOLVERS[kind](comm, 1e-13)
    states = [solver.init(rows.A, b) for rows in (held, streamed)]
    for solve in (
        lambda state: solver.solve_rows(state, 1e-3)[0],
        lambda state: solver.solve_params(state, g, 1e-2)[0],
    ):
        torch.testing.assert_close(*map(solve, states), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kind", SOLVERS)
def test_solvers_in_a_metric_give_the_same_too(comm, both, kind, monkeypatch):
    """Streamed rows change variables in each product, held rows once; the solutions agree."""
    held, streamed, theta = both
    monkeypatch.setattr(dual, "COLUMN_BYTES", 4000)
    P = len(theta)
    R_M = torch.eye(P, dtype=theta.dtype) + 0.1 * torch.ones(P, P, dtype=theta.dtype).triu()
    solver = SOLVERS[kind](comm, 1e-13)
    ends = [
        solver.solve_rows(solver.init(rows.A.in_metric(R_M), -held.r_N), 1e-3)[0]
        for rows in (held, streamed)
    ]
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("metric", ["euclidean", "l2", "energy"])
def test_a_ptc_step_is_the_same_for_streamed_and_held_rows(comm, metric, monkeypatch):
    from nedhpc.steppers.ptc import Ptc

    ends = []
    for hold in (2**29, 0):
        monkeypatch.setattr(gather, "HOLD_BYTES", hold)
        case = make_case(comm, flow={"metric": metric}, **TABLES)
        theta, _, info = Ptc(case.flow, Ptc.Settings()).step(
            torch.as_tensor(case.plan.ansatz.initial(0)), 0.0, 1e-2
        )
        assert info.dt > 0
        ends.append(theta)
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-8)


class Values(nedhpc.Problem):
    """Terms of values only: two residuals in the interior, one on the boundary.

    There are two outputs and a coefficient.
    """

    domain = nedhpc.Box([-1.0, -1.0], [1.0, 1.0])
    outputs = ("u", "v")
    coefficients = {"k": 0.7, "unused": 1.0}
    terms = [
        nedhpc.Residual("fit", jets=("u", "v")),
        nedhpc.Residual("edge", on="boundary", jets=("v",), weight=3.0),
    ]

    def fit(self, x, j, c):
        return torch.stack([j.u * j.v - c.k, j.u.sin() + c.k * j.v * x[:, 0]], 1)

    def edge(self, x, j, c):
        return j.v**2 - x[:, 1]


class Derivatives(Values):
    """Second, mixed and first derivatives; on the boundary, a coefficient times a derivative."""

    terms = [
        nedhpc.Residual("fit", jets=("u", "v", "u_xy", "lap_v")),
        nedhpc.Residual("edge", on="boundary", jets=("v", "u_x"), weight=3.0),
    ]

    def fit(self, x, j, c):
        return torch.stack([j.u_xy * j.v - c.k, j.lap_v.sin() + c.k * j.u * x[:, 0]], 1)

    def edge(self, x, j, c):
        return j.u_x * c.k - j.v


class Curvature(Derivatives):
    """Only second derivatives in the interior. They vanish if there is no hidden layer."""

    terms = [
        nedhpc.Residual("fit", jets=("lap_u", "lap_v")),
        nedhpc.Residual("edge", on="boundary", jets=("v", "u_x"), weight=3.0),
    ]

    def fit(self, x, j, c):
        return torch.stack([j.lap_u * c.k, j.lap_v + x[:, 0]], 1)


@pytest.mark.parametrize("problem", [Values, Derivatives, Curvature])
@pytest.mark.parametrize(
    "hidden, interior, hold",
    [([], 9, 2**29), ([5], 9, 2**29), ([6, 5], 9, 2**29), ([6, 5], 9, 0), ([7], 2, 2**29)],
)
def test_kernel_by_factors_is_that_of_the_rows(comm, problem, hidden, interior, hold, monkeypatch):
    monkeypatch.setattr(dual, "STRIP", 7)
    monkeypatch.setattr(gather, "HOLD_BYTES", hold)
    energy = make_energy(problem(), MLP(2, hidden, 2))
    counts = {"interior": interior, "boundary": 5}
    domain, cpu = energy.problem.domain, torch.device("cpu")
    sampler = Sampler(comm.rank, comm.size, domain, None, counts, "sobol", 0, cpu, torch.float64)
    sample = sampler.draw(0)
    theta = torch.as_tensor([*energy.ansatz.initial(0), 0.7, 1.0])
    factored, rows = (
        energy.linearise(theta, sample, factored=True).A,
        energy.linearise(theta, sample),
    )
    A_NP = torch.cat([block for _, block in rows.A.blocks()])
    assert isinstance(factored, FactoredRows) and factored.num_rows == len(A_NP)
    v, w = (torch.as_tensor(np.random.default_rng(0).standard_normal(n)) for n in A_NP.shape[::-1])
    torch.testing.assert_close(factored.matvec(v), A_NP @ v, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(factored.rmatvec(w), A_NP.T @ w, rtol=1e-13, atol=1e-13)
    solver = SOLVERS["dual"](comm, 1e-13)
    by_factors, again, by_rows = (
        solver.init(A, -rows.r_N) for A in (factored, factored, dense(A_NP))
    )
    if comm.rank == 0:
        K = by_rows.K.K
        assert len(K) == 2 * interior + 5
        torch.testing.assert_close(by_factors.K.K, K, rtol=0, atol=1e-13 * float(K.abs().max()))
        assert torch.equal(by_factors.K.K, again.K.K)
    torch.testing.assert_close(
        solver.solve_rows(by_factors, 1e-3)[0],
        solver.solve_rows(by_rows, 1e-3)[0],
        rtol=1e-9,
        atol=1e-11,
    )


def test_factors_are_used_if_they_pay(comm):
    """Factors pay for values, and for derivatives if layers are wide and points few.

    They are not used with another solver or metric, nor for a torch module.
    """
    tables = {
        "problem": {"name": "regression", "function": "sinc", "num_points": 30},
        "sampling": {"data": 20, "rule": "uniform"},
        "network": {"hidden": [30, 30]},
    }
    dual_solver = {"solver": {"type": "dual"}}
    wide = {
        "network": {"hidden": [256, 256]},
        "sampling": {"interior": 2, "boundary": 40},
    } | dual_solver

    def factored(**tables):
        case = make_case(comm, **tables)
        rows = case.flow.rows(torch.as_tensor(case.plan.ansatz.initial(0))).A
        return rows.factors() is not None

    assert factored(**tables, **dual_solver)
    assert not factored(**tables, solver={"type": "tsqr"})
    assert not factored(**tables, **dual_solver, flow={"metric": "l2"})
    assert not factored(**dual_solver)
    assert factored(**wide)
    assert not factored(
        **wide | {"sampling": {"interior": 400, "boundary": 40}, "network": {"hidden": [20, 20]}}
    )
    module = ModuleNetwork(torch.nn.Linear(2, 2), 2)
    assert not make_energy(Values(), module).factors_pay({"interior": 3, "boundary": 3})
