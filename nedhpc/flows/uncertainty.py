"""Standard errors of trained coefficients c, from the noise of the data. Collective.

The solution minimises |A (theta, c) - b|^2 to first order, where the rows of A belong to equations,
conditions and data. Only data have noise: equations and conditions are known exactly, so that their
rows count as constraints of the strength that they have in the energy. What is left of their
residual r_i, because the network is too small or the run ended early, is an error of the size of
r_i. A row of data with the scale s_i has the noise s_i sigma. With a the columns of c in A and
A_theta the others,

    v = a - A_theta (A_theta^T A_theta + tau^2 I)^-1 A_theta^T a,    S = a^T v,
    cov(c) = S^-1 (sum_i e_i^2 v_i v_i^T) S^-1 + d d^T,    d = S^-1 v^T r,
    e_i = s_i sigma for data, and r_i for equations and conditions,

which is sigma^2 (J^T J)^-1 if only the coefficients are free and the equations hold. v is what the
network cannot imitate of a change of c, and d is the Gauss-Newton step of c, which is zero at the
minimum. That r_i^2 stands for a variance is White's idea (1980). As the linear model holds for
moderate changes of theta only, theta gets a prior of the size PRIOR: tau = s sigma / PRIOR. The
noise is that of the residuals,

    sigma^2 = sum_i r_i^2 / (N - sum_i h_i),

by term and component, where h_i is the leverage: the share of row i that the fit takes up.
Reference: Seber and Wild, Nonlinear Regression, 1989, sections 2.1 and 5.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nedhpc.flows.energy import Energy
from nedhpc.flows.integrals import integrated
from nedhpc.flows.system import metric_triangle
from nedhpc.parallel.comm import total
from nedhpc.sampling.points import Points

PRIOR = 100.0
"""Standard deviation of the network's parameters about the solution, in its scaled variables.

It only matters for coefficients that the data hardly determine, which then get a large error.
"""
MAX_PARAMETERS = 3000
"""More parameters are not tried: the cost grows with their square."""
LEAST_FREE = 0.5
"""Fewer degrees of freedom of a term's data tell nothing of their noise."""
PASSES = 2
"""How often sigma is computed: tau depends on it, and it depends on tau by the leverages."""


@dataclass(slots=True)
class DataRows:
    """This rank's rows of A that belong to data."""

    index_D: np.ndarray
    """Numbers of the rows."""
    group_D: np.ndarray
    """Number of the group, i.e. of a component of a term."""
    scale_D: np.ndarray
    """sqrt(quadrature weight, weight of the term) times the factor of a balance."""
    num_groups: int


def standard_errors(
    comm, energy: Energy, theta_P: Tensor, points: dict[str, Points]
) -> np.ndarray | None:
    """Standard error of each coefficient, (Q,); the same on every rank.

    Args:
        comm: communicator.
        energy: an energy of residuals.
        theta_P: parameters and coefficients, (P,).
        points: this rank's share of each part.

    Returns:
        None if there are no coefficients or no data, more than MAX_PARAMETERS parameters, or too
        few rows of data to show their noise. A coefficient that the data do not determine has a
        very large value or infinity. Cost O(N P^2 + P^3).
    """
    if not (energy.num_coefficients and energy.is_least_squares):
        return None
    data = data_rows(energy, points)
    if not data.num_groups or energy.num_parameters > MAX_PARAMETERS:
        return None
    energy = integrated(comm, energy, theta_P, points)
    network = slice(0, energy.num_network)
    linear = energy.linearise(theta_P, points, network)
    A, r_N = linear.A, linear.r_N.double().cpu().numpy()
    r_D = r_N[data.index_D] / data.scale_D
    a_NQ = _columns(energy, theta_P, points)
    counts_G, squares_G, scales_G = (
        _by_group(comm, data, values) for values in (np.ones_like(r_D), r_D**2, data.scale_D**2)
    )
    variance_G = squares_G / counts_G
    for _ in range(PASSES):
        tau2 = float((scales_G * variance_G).sum() / counts_G.sum()) / PRIOR**2
        R = metric_triangle(comm, A, max(tau2, np.finfo(float).tiny))
        v_NQ, S = _free_part(comm, A, R, a_NQ, tau2)
        h_D = _leverages(A, R, v_NQ, S, data)
        free_G = counts_G - _by_group(comm, data, h_D)
        if not (free_G >= LEAST_FREE).any():
            return None
        variance_G = np.where(free_G >= LEAST_FREE, squares_G / np.maximum(free_G, LEAST_FREE), 0)
    variance_N = r_N**2
    variance_N[data.index_D] = data.scale_D**2 * variance_G[data.group_D]
    return _sandwich(comm, S, v_NQ.double().cpu().numpy(), variance_N, r_N)


def data_rows(energy: Energy, points: dict[str, Points]) -> DataRows:
    """The rows of data, in the order of `Energy.linearise`. Local."""
    index, group, scale, start, groups = [], [], [], 0, {}
    for piece in energy.pieces(points):
        num, components = len(piece.x_ND), piece.term.num_components
        if piece.y_NM is not None:
            factor_NK = piece.w_N.new_ones(num, components) if piece.b_NK is None else piece.b_NK
            scale_KN = (piece.w_N.sqrt().unsqueeze(1) * factor_NK).T
            for k in range(components):
                number = groups.setdefault((piece.k, k), len(groups))
                index.append(start + k * num + np.arange(num))
                group.append(np.full(num, number))
                scale.append(scale_KN[k].double().cpu().numpy())
        start += num * components
    if not index:
        return DataRows(np.empty(0, int), np.empty(0, int), np.empty(0), 0)
    return DataRows(*map(np.concatenate, (index, group, scale)), len(groups))


def _columns(energy: Energy, theta_P: Tensor, points) -> Tensor:
    """This rank's rows of the coefficients' columns, (N, Q)."""
    columns = slice(energy.num_network, energy.num_parameters)
    A = energy.linearise(theta_P, points, columns).A
    unit = torch.eye(energy.num_coefficients, dtype=theta_P.dtype, device=theta_P.device)
    return torch.stack([A.matvec(e_Q) for e_Q in unit], 1)


def _by_group(comm, data: DataRows, values_D: np.ndarray) -> np.ndarray:
    """Sums over the rows of each group on all ranks, (G,)."""
    return total(comm, np.bincount(data.group_D, values_D, data.num_groups))


def _free_part(comm, A, R: Tensor, a_NQ: Tensor, tau2: float) -> tuple[Tensor, np.ndarray]:
    """v (N, Q) of this rank and S (Q, Q), as the module's docstring says."""
    pulled = np.stack([A.rmatvec(a_N).double().cpu().numpy() for a_N in a_NQ.unbind(1)], 1)
    right = torch.as_tensor(total(comm, pulled), dtype=R.dtype, device=R.device)
    x_PQ = torch.cholesky_solve(right, R, upper=True)
    v_NQ = a_NQ - torch.stack([A.matvec(x_P) for x_P in x_PQ.unbind(1)], 1)
    # a^T v = v^T v + tau^2 x^T x at the minimum; as a sum of squares it is never negative.
    S = total(comm, (v_NQ.T @ v_NQ).double().cpu().numpy())
    return v_NQ, S + tau2 * (x_PQ.T @ x_PQ).double().cpu().numpy()


def _leverages(A, R: Tensor, v_NQ: Tensor, S: np.ndarray, data: DataRows) -> np.ndarray:
    """The diagonal entries of A (A^T A + tau^2)^-1 A^T at the rows of data, (D,). Local."""
    h_N = torch.zeros(len(v_NQ), dtype=torch.float64, device=v_NQ.device)
    for part, block in A.blocks():
        z = torch.linalg.solve_triangular(R.T, block.T, upper=False)
        h_N[part] = z.square().sum(0).double()
    v = v_NQ.double().cpu().numpy()[data.index_D]
    return h_N.cpu().numpy()[data.index_D] + np.einsum("dp,pq,dq->d", v, np.linalg.pinv(S), v)


def _sandwich(comm, S: np.ndarray, v_NQ, variance_N, r_N) -> np.ndarray:
    """Square roots of the diagonal of cov(c), (Q,); infinite if S is singular. Collective."""
    middle = total(comm, np.einsum("n,np,nq->pq", variance_N, v_NQ, v_NQ))
    pulled_Q = total(comm, v_NQ.T @ r_N)
    try:
        inverse = np.linalg.inv(S)
    except np.linalg.LinAlgError:
        return np.full(len(S), np.inf)
    variance_Q = np.maximum(np.diag(inverse @ middle @ inverse), 0)
    return np.sqrt(variance_Q + (inverse @ pulled_Q) ** 2)
