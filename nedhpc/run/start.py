"""Where a run begins: random parameters, or the linear part of the network solved first. Collective on comm."""

import logging

import numpy as np
import torch

from nedhpc.errors import UsageError
from nedhpc.parallel.comm import total
from nedhpc.solvers.tsqr import Tsqr

log = logging.getLogger("nedhpc")

SCALES = np.geomspace(0.1, 300, 9)
"""Scales of the first layer that are tried, in units of 1 / (mean width of the domain)."""
REFINEMENTS = 4
"""Times that the best scale's neighbours move half as near."""
RTOL = 1e-15
MAX_ITERATIONS = 10


def last_layer(flow, network, problem, seed, like):
    """theta with random features of the best scale found and the last layer at its steady state.

    The flow restricted to the columns in which u is linear reaches its steady state in one least-squares solve if the terms
    are linear in u, in a few Gauss-Newton steps otherwise (random features, Huang et al. 2006). The scale is chosen by
    generalised cross validation of the energy, then refined around the best. Cost: one N x P_last factorisation a trial.
    """
    if network.last_layer is None:
        raise UsageError(
            "run.start = 'last_layer' needs the built-in network: which columns of a torch module are linear is not known"
        )
    if not flow.energy.has_row_residual:
        raise UsageError(
            "run.start = 'last_layer' needs Residual terms: a Density leaves no row residual to solve for"
        )
    domain = problem.domain
    width = float(np.mean(domain.high - domain.low))
    coefficients = torch.as_tensor(
        list(problem.coefficients.values()), dtype=like.dtype, device=like.device
    )
    tried = {}

    def score(scale):
        if scale not in tried:
            features = torch.as_tensor(
                network.features(seed, scale / width, domain.low, domain.high),
                dtype=like.dtype,
                device=like.device,
            )
            tried[scale] = solve(flow, network, torch.cat([features, coefficients]))
        return tried[scale][0]

    best = min(SCALES, key=score)
    ratio = SCALES[1] / SCALES[0]
    for _ in range(REFINEMENTS):
        ratio **= 0.5
        best = min((best / ratio, best, best * ratio), key=score)
    log.info("last-layer start: first-layer scale %.3g, energy %.3g", best / width, tried[best][2])
    return tried[best][1]


def solve(flow, network, theta_P):
    """(cross-validation score, theta, energy): the last layer's least-squares solution from theta."""
    E = float(flow.energies(theta_P).sum())
    score = np.inf
    for _ in range(MAX_ITERATIONS):
        rows = flow.energy.rows(theta_P, flow.sample, network.last_layer)
        num_rows = int(total(flow.comm, [rows.A.num_rows])[0])
        delta, info = Tsqr(flow.comm, rows.A, -rows.r_N, RTOL).solve_rows()
        trial = theta_P.clone()
        trial[network.last_layer] += delta
        E_trial = float(flow.energies(trial).sum())
        if not E_trial < E:
            break
        small = E_trial > 0.5 * E
        theta_P, E = trial, E_trial
        score = E / max(1 - info.effective_rank / num_rows, 1 / num_rows) ** 2
        if small:
            break
    return score, theta_P, E
