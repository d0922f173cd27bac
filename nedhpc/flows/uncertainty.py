"""Standard errors of the solution and of the coefficients, from the noise of data. Collective.

The parameters and coefficients p = (theta, c) minimise |A p - b|^2 to first order, where the rows
of A belong to equations, conditions and data. Only data have noise: equations and conditions are
known exactly, so that their rows count as constraints of the strength that they have in the energy.
What is left of their residual r_i, because the network is too small or the run ended early, is an
error of the size of r_i. A row of data with the scale s_i has the noise s_i sigma. As the linear
model holds for moderate changes of theta only, theta has a prior of the size PRIOR: there are rows
tau theta with tau = s sigma / PRIOR, whose noise is tau PRIOR. With the QR factorisation A = Q R of
all rows, and e_i = s_i sigma for data, tau PRIOR for the prior, r_i for equations and conditions,

    cov(p) = R^-1 (Q^T diag(e^2) Q + q q^T) R^-T,    q = Q^T r,

which is sigma^2 (A^T A)^-1 if there are only data with s = 1. R^-1 q is the Gauss-Newton step,
which is zero at the minimum. That r_i^2 stands for a variance is White's idea (1980). The noise is
that of the residuals,

    sigma^2 = sum_i r_i^2 / (N - sum_i h_i),

by term and component, where h_i = |Q_i|^2 is the leverage: the share of row i that the fit takes
up. The standard error of u at x is |du/dp F| with cov(p) = F F^T. Reference: Seber and Wild,
Nonlinear Regression, 1989, sections 2.1 and 5.
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

PRIOR = 10.0
"""Standard deviation of the network's parameters about the solution, in its scaled variables.

It matters only for what the data hardly determine, which then gets a large error.
"""
FREE = 1e6
"""A coefficient has a prior that is wider than PRIOR by this factor, and by its own size."""
MAX_PARAMETERS = 3000
"""More parameters are not tried: the cost grows with their square."""
LEAST_FREE = 0.5
"""Fewer degrees of freedom of a term's data tell nothing of their noise."""
PASSES = 2
"""How often sigma is computed: tau depends on it, and it depends on tau by the leverages."""
JITTER = 1e-14
"""Share of its largest entry that is added to the diagonal of a covariance, against rounding."""


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


def covariance_factor(
    comm, energy: Energy, theta_P: Tensor, points: dict[str, Points]
) -> np.ndarray | None:
    """F (P, P) with cov(theta, c) = F F^T; the same on every rank.

    Args:
        comm: communicator.
        energy: an energy of residuals.
        theta_P: parameters and coefficients, (P,).
        points: this rank's share of each part.

    Returns:
        None if there are no data, nothing but data and no coefficients, more than MAX_PARAMETERS
        parameters, or too few rows of data to show their noise. A coefficient that the data do not
        determine has a very large error. Cost O(N P^2 + P^3).
    """
    if not energy.is_least_squares or energy.num_parameters > MAX_PARAMETERS:
        return None
    data = data_rows(energy, points)
    is_fit = all(points[term.on].y_NM is not None for term in energy.terms)
    if not data.num_groups or (is_fit and not energy.num_coefficients):
        return None
    energy = integrated(comm, energy, theta_P, points)
    linear = energy.linearise(theta_P, points)
    r_N = linear.r_N.double().cpu().numpy()
    r_D = r_N[data.index_D] / data.scale_D
    counts_G, squares_G, scales_G = (
        _by_group(comm, data, values) for values in (np.ones_like(r_D), r_D**2, data.scale_D**2)
    )
    variance_G = squares_G / counts_G
    wide_P = np.ones(energy.num_parameters)
    c = theta_P[energy.num_network :].double().cpu().numpy()
    wide_P[energy.num_network :] = FREE * np.maximum(1, np.abs(c))
    for _ in range(PASSES):
        noise2 = float((scales_G * variance_G).sum() / counts_G.sum())
        noise2 = max(noise2, np.finfo(float).tiny)
        R = metric_triangle(comm, linear.A, noise2 / (PRIOR * wide_P) ** 2)
        Q = linear.A.in_metric(R)
        free_G = counts_G - _by_group(comm, data, _leverages(Q)[data.index_D])
        if not (free_G >= LEAST_FREE).any():
            return None
        variance_G = np.where(free_G >= LEAST_FREE, squares_G / np.maximum(free_G, LEAST_FREE), 0)
    e2_N = r_N**2
    e2_N[data.index_D] = data.scale_D**2 * variance_G[data.group_D]
    inner = _inner(comm, Q, e2_N, linear.r_N)
    inverse = torch.linalg.inv(R.double().cpu())
    prior = torch.as_tensor(1 / (PRIOR * wide_P)).unsqueeze(1) * inverse
    root = _root(inner + noise2**2 * (prior.T @ prior))
    return (inverse @ root).numpy()


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


def _by_group(comm, data: DataRows, values_D: np.ndarray) -> np.ndarray:
    """Sums over the rows of each group on all ranks, (G,)."""
    return total(comm, np.bincount(data.group_D, values_D, data.num_groups))


def _leverages(Q) -> np.ndarray:
    """|Q_i|^2 of this rank's rows, (N,). Local."""
    return np.concatenate([block.double().square().sum(1).cpu().numpy() for _, block in Q.blocks()])


def _inner(comm, Q, e2_N: np.ndarray, r_N: Tensor) -> Tensor:
    """Q^T diag(e^2) Q + q q^T (P, P) of all rows but those of the prior."""
    P = Q.num_columns
    sums = torch.zeros(P, P, dtype=torch.float64)
    for part, block in Q.blocks():
        block = block.double().cpu()
        sums += block.T @ (torch.as_tensor(e2_N[part]).unsqueeze(1) * block)
    q_P = total(comm, Q.rmatvec(r_N).double().cpu().numpy())
    inner = total(comm, sums.numpy().ravel()).reshape(P, P)
    return torch.as_tensor(inner + np.outer(q_P, q_P))


def _root(inner: Tensor) -> Tensor:
    """The lower triangle L with L L^T = inner, which is positive but for rounding."""
    inner.diagonal().add_(JITTER * inner.diagonal().max())
    return torch.linalg.cholesky(inner)
