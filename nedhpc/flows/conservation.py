"""Conserved quantities of a march in time, kept to rounding error by a projection. Collective.

A quantity is an integral C(u). After a step, u is replaced by the nearest state that has the values
of the start: the change is least in the metric of the stages, i.e. in L2 with the conditions on the
boundary, so that these still hold. Newton's method solves for it: with c_k = dC_k / dtheta and the
Gram matrix G it is sum_k lambda_k G^+ c_k. Only the columns change in which u is linear, if there
are such columns.
"""

from collections.abc import Sequence

import numpy as np
import torch

from nedhpc.flows.evolution import Evolution
from nedhpc.solvers import SOLVERS

RTOL, DAMPING = 1e-15, 1e-12
"""Cutoff and damping of the Gram matrix."""
MAX_STEPS, HALF = 8, 0.5
"""Most Newton steps; they end if a step leaves more than this share of the error."""
DEPENDENT = 1e-10
"""Quantities whose gradients depend on each other up to this share are not kept apart."""


def restored(
    flow: Evolution, theta_P: torch.Tensor, t: float, target_K: np.ndarray, names: Sequence[str]
) -> torch.Tensor:
    """Parameters (P,) near theta for which some quantities have given values.

    Collective on the flow's comm. Cost O(N P^2) for the factorisation.

    Args:
        flow: the flow of the march.
        theta_P: parameters, (P,).
        t: their time.
        target_K: the values of all quantities.
        names: names of the quantities that are kept.
    """
    kept = [k for k, name in enumerate(flow.quantity_names) if name.partition(".")[0] in names]
    columns = flow.energy.ansatz.linear_columns or flow.energy.all_columns
    flow.rest(theta_P, t)
    solver, state = SOLVERS["tsqr"](flow.comm, RTOL), None
    best = np.inf
    for _ in range(MAX_STEPS):
        C_K, c_KP = flow.quantity_slopes(theta_P)
        missed = target_K[kept] - C_K[kept]
        c_KP = c_KP[kept, columns]
        # Compare the quantities with their slopes, since they may have very different sizes.
        error = float(np.max(np.abs(missed) / (np.linalg.norm(c_KP, axis=1) + 1e-300)))
        if error == 0 or not error < HALF * best:
            break
        best, found = error, theta_P
        if state is None:
            state = solver.init(flow.rows(theta_P, columns).A, None)
        with flow.phases("solve"):
            y_KP = np.array(
                [solver.solve_params(state, c, DAMPING)[0].double().cpu().numpy() for c in c_KP]
            )
        share_K = np.linalg.lstsq(c_KP @ y_KP.T, missed, rcond=DEPENDENT)[0]
        theta_P = theta_P.clone()
        theta_P[columns] += torch.as_tensor(share_K @ y_KP).to(theta_P)
    return theta_P if error < best else found
