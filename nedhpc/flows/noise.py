"""How little data may weigh because they are noisy: a share of their weight. Local.

Equations hold exactly, and noisy data do not. A fit that weighs both alike breaks the equations to
follow the noise, which a field that is sought can do at every place. If the residual r of the data
is noise, their weight is therefore lowered until their part of the energy is as large as that of
the equations,

    share = (q + e) / v,    v = mean |r(x) - r(x')|^2 / 2,    e = mean |r|^2 - v,

where x' is the point of the data next to x, and q is the mean square of the equations' and
conditions' residuals. All are balanced. For independent noise v is its variance (von Neumann 1941),
and e is what is left of the signal, which counts as zero if it is within SIGNIFICANT standard
errors. So the data keep their weight as long as they are not yet fitted, and get it back if the
equations cannot meet them (the discrepancy principle of Morozov 1966; the weights by variances are
those of an estimation of variance components, Helmert 1907).
"""

from collections.abc import Iterable

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

LEAST_ROWS = 100
"""Fewer rows of data do not show whether a residual is noise."""
SIGNIFICANT = 3.0
"""Standard errors of `v` up to which the signal that is left counts as zero."""
LEAST_SHARE = 1e-4
"""No share is smaller: otherwise rounding would hide the data beside the equations."""


def shares(x_ND: np.ndarray, r_NK: Tensor, equations: float) -> Tensor:
    """The share (K,) of its weight that each component of a term on data keeps.

    Args:
        x_ND: points of the data in scaled coordinates, N of them.
        r_NK: balanced residual at the points, with the full weight.
        equations: q, the mean square of the equations' and conditions' balanced residuals.
    """
    one_K = torch.ones(r_NK.shape[1], dtype=r_NK.dtype)
    if len(x_ND) < LEAST_ROWS or not r_NK.isfinite().all() or not np.isfinite(equations):
        return one_K
    _, next_N2 = cKDTree(x_ND).query(x_ND, k=2)
    # Of equal points, either may come first.
    is_other = next_N2[:, 1] != np.arange(len(x_ND))
    beside_N = torch.as_tensor(np.where(is_other, next_N2[:, 1], next_N2[:, 0]))
    noise_K = (r_NK - r_NK[beside_N]).square().mean(0) / 2
    signal_K = r_NK.square().mean(0) - noise_K
    is_seen_K = signal_K > SIGNIFICANT / len(x_ND) ** 0.5 * noise_K
    share_K = (equations + torch.where(is_seen_K, signal_K, 0.0)) / noise_K
    return torch.where(noise_K > 0, share_K.clamp(LEAST_SHARE, 1.0), one_K)


def have_changed(before: Iterable[Tensor], now: Iterable[Tensor], ratio: float) -> bool:
    """True if a share has changed by more than a ratio."""
    pairs = zip(torch.cat([*before, torch.ones(1)]), torch.cat([*now, torch.ones(1)]), strict=True)
    return any(max(a / b, b / a) > ratio for a, b in pairs)
