"""Cross-entropy terms have the rows, gradient and curvature of the softmax.

Their accuracy is the same at any number of ranks.
"""

import h5py
import numpy as np
import pytest
import torch
from conftest import evolve, make_case, make_config
from mpi4py import MPI

import nedhpc
from nedhpc import problems
from nedhpc.errors import ConfigError
from nedhpc.postprocess.info import info
from nedhpc.problems.terms import softmax_rows

pytestmark = pytest.mark.mpi
pytest.importorskip("sklearn")


def make(comm, data=12, **tables):
    tables = {"network": {"hidden": [5]}, "sampling": {"data": data, "rule": "uniform"}} | tables
    case = make_case(comm, problem={"name": "digits"}, **tables)
    case.draw(0, None)
    return case


def autograd_energy(case, theta, points):
    """The mean cross-entropy, computed by torch's own function."""
    return torch.nn.functional.cross_entropy(case.evaluation.u(theta, points.x_ND), points.y_NM)


def test_rows_gradient_and_curvature_are_those_of_autograd():
    case = make(MPI.COMM_SELF, solver={"chunk": 5})
    theta, points = 1.5 * torch.as_tensor(case.plan.ansatz.initial(0)), case.flow.sample["data"]
    rows = case.plan.energy.linearise(theta, case.flow.sample)
    E = lambda theta: autograd_energy(case, theta, points)
    torch.testing.assert_close(rows.E_K.sum(), E(theta), rtol=1e-13, atol=0)
    torch.testing.assert_close(
        case.plan.energy.evaluate(theta, case.flow.sample)[0].sum(), E(theta), rtol=1e-13, atol=0
    )
    g = torch.func.grad(E)(theta)
    torch.testing.assert_close(rows.A.A_NP.T @ rows.r_N, g, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(
        case.plan.energy.gradient(theta, case.flow.sample)[0], g, rtol=1e-11, atol=1e-13
    )
    # The Gauss-Newton Hessian is sum_q w J^T (diag p - p p^T) J with the Jacobian J of the logits.
    # In the weights of the last layer it is the full Hessian.
    J = torch.func.jacrev(lambda theta: case.evaluation.u(theta, points.x_ND))(theta)
    p = torch.softmax(case.evaluation.u(theta, points.x_ND), 1)
    H = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    K = torch.einsum("nip,nij,njq->pq", J, H, J) / len(p)
    gram = rows.A.A_NP.T @ rows.A.A_NP
    torch.testing.assert_close(gram, K, rtol=1e-10, atol=1e-12)
    last = case.plan.ansatz.linear_columns
    hessian = torch.autograd.functional.hessian(
        lambda w: E(torch.cat([theta[: last.start], w])), theta[last]
    )
    torch.testing.assert_close(gram[last, last], hessian, rtol=1e-9, atol=1e-12)


def test_residual_has_the_derivatives_that_the_correction_needs():
    """With L frozen at theta, the residual has Jacobian A and second derivative L z_vv there.

    The second-order correction differentiates this residual.
    """
    case = make(MPI.COMM_SELF)
    theta, sample = torch.as_tensor(case.plan.ansatz.initial(0)), case.flow.sample
    rows = case.plan.energy.linearise(theta, sample)
    torch.testing.assert_close(
        case.plan.energy.evaluate(theta, sample)[1], rows.r_N, rtol=1e-13, atol=1e-14
    )
    residual = lambda at: case.plan.energy.evaluate(at, sample, theta)[1]
    torch.testing.assert_close(
        torch.func.jacrev(residual)(theta), rows.A.A_NP, rtol=1e-11, atol=1e-13
    )
    v = torch.as_tensor(np.random.default_rng(0).standard_normal(len(theta)))
    slope = lambda f: lambda at: torch.func.jvp(f, (at,), (v,))[1]
    z = lambda at: case.evaluation.u(at, sample["data"].x_ND)
    z_vv = torch.func.jvp(slope(z), (theta,), (v,))[1]
    L, _ = softmax_rows(z(theta), sample["data"].y_NM)
    expected = torch.einsum("nij,nj->ni", L, z_vv).T.reshape(-1) / len(z_vv) ** 0.5
    torch.testing.assert_close(
        torch.func.jvp(slope(residual), (theta,), (v,))[1], expected, rtol=1e-9, atol=1e-12
    )


def test_confident_logits_neither_overflow_nor_cancel():
    z = torch.tensor([[0.0, 2000.0, -2000.0], [40.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    for target in range(3):
        y = torch.eye(3)[[target] * 3]
        L, r = softmax_rows(z, y)
        p = torch.softmax(z, 1)
        assert torch.isfinite(L).all() and torch.isfinite(r).all()
        torch.testing.assert_close(torch.einsum("nij,ni->nj", L, r), p - y, rtol=1e-15, atol=1e-15)
        torch.testing.assert_close(
            L.transpose(1, 2) @ L,
            torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1),
            rtol=1e-14,
            atol=1e-15,
        )
    _, r = softmax_rows(z, torch.eye(3)[[0] * 3])
    # If p - 1 were computed by subtraction, it would be 0.
    assert abs(float(r[1, 0]) / (-2 * np.exp(-40.0)) - 1) < 1e-12


def test_cross_entropy_is_neither_least_squares_nor_a_misfit():
    case = make(MPI.COMM_SELF)
    assert case.plan.energy.has_row_residual
    assert not case.plan.energy.is_least_squares
    assert not case.plan.energy.is_misfit
    assert case.plan.num_rows == 120


@pytest.mark.parametrize(
    "metric, solver",
    [("euclidean", "tsqr"), ("euclidean", "dual"), ("energy", "tsqr"), ("l2", "tsqr")],
)
def test_ptc_classifies(comm, folder, metric, solver):
    config = make_config(
        problem={"name": "digits"},
        network={"hidden": [6]},
        sampling={"data": 120, "rule": "uniform"},
        flow={"metric": metric, "metric_eps": 1e-3},
        solver={"type": solver},
        run={"max_steps": 8},
        output={"every_steps": 4},
    )
    _, state = evolve(config, folder / "run", comm)
    _, alone = evolve(config, folder / f"alone{comm.rank}", MPI.COMM_SELF)
    facts = info(folder / f"alone{comm.rank}")
    assert facts["relative_l2"] is None
    assert facts["metrics"]["accuracy"] > 0.3
    assert facts["energy"] < 0.1
    if comm.rank == 0:
        together = info(folder / "run")
        assert together["metrics"].keys() == {"accuracy", "train_accuracy"}
        assert together["metrics"]["accuracy"] == pytest.approx(
            facts["metrics"]["accuracy"], abs=0.01
        )
        with h5py.File(folder / "run" / "series.h5") as file:
            assert file["metrics/accuracy"].shape == file["step"].shape
            assert file["metrics/accuracy"][-1] == together["metrics"]["accuracy"]


def test_accuracy_is_the_same_at_any_number_of_ranks(comm):
    case, alone = make(comm), make(MPI.COMM_SELF)
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    found = case.evaluation.metrics(theta)
    assert found == alone.evaluation.metrics(theta)
    data = case.plan.problem.data
    for prefix, x, y in (("", data.held_out_x, data.held_out_y), ("train_", data.x_ND, data.y_NM)):
        right = case.evaluation.u(theta, torch.as_tensor(x)).argmax(1).numpy() == y.argmax(1)
        assert found[prefix + "accuracy"] == pytest.approx(right.mean(), abs=1e-15)
    assert len(data.x_ND) + len(data.held_out_x) == 1797 and abs(data.x_ND).max() == 1


def test_cross_entropy_needs_targets():
    class NoTargets(nedhpc.Problem):
        domain = nedhpc.Box([0.0], [1.0])
        terms = [nedhpc.CrossEntropy("classify", on="interior")]

        def classify(self, x, j, c, y):
            return j.u

    with pytest.raises(ConfigError, match="targets"):
        problems.check(NoTargets(), "NoTargets")
