"""Points at which the residual is large: weighted sampling without replacement from a pool.

Pool point i has p_i = |r_i|^power / mean |r|^power + floor (RAD; Wu et al., arXiv:2207.10289,
eq. 2). Let G_i be independent standard Gumbel numbers. The points with the `count` largest keys
log p_i + G_i are a sample without replacement with these weights (Efraimidis and Spirakis 2006;
Kool et al., arXiv:1903.06059). The ranks only need to agree on a threshold, so the sample does not
depend on their number.

Let t be the largest key that is not chosen, and M the pool's size. A key exceeds t with probability
pi_i = 1 - exp(-p_i e^-t). With the quadrature weights |part| / (M pi_i) the energy stays unbiased
(Duffield et al. 2007), so that the flow still descends the same energy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from nedhpc.config import ResidualTable
from nedhpc.errors import NonFiniteError
from nedhpc.parallel.comm import block, total
from nedhpc.sampling.points import Sampler, gumbel

if TYPE_CHECKING:  # importing MPI initialises it, and commands that only read need none
    from mpi4py import MPI


def choose(
    comm: MPI.Comm,
    residual_size: Callable[[torch.Tensor, str, torch.Tensor], torch.Tensor],
    theta_P: torch.Tensor,
    sampler: Sampler,
    on: str,
    number: int,
    settings: ResidualTable,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the points of one draw from a larger pool. Collective on comm.

    The pool has `settings.pool` times as many points. Cost: the pool's residuals, and a gather of
    at most 2 (count + 1) numbers from each rank.

    Args:
        comm: communicator.
        residual_size: |r| (N,) as a function of theta, the part's name and points (N, D).
        theta_P: parameters.
        sampler: the sampler whose pool is used.
        on: the part.
        number: number of the draw.
        settings: power, floor and pool of the rule.

    Returns:
        (sorted indices of the chosen points in the pool, their quadrature weights), both (count,)
        and the same on every rank.

    Raises:
        NonFiniteError: on every rank, if the residual is not finite at a point of the pool.
    """
    count = sampler.count(on, number)
    num_pool = settings.pool * count
    start, stop = block(num_pool, comm.rank, comm.size)
    size_N = residual_size(theta_P, on, sampler.pool(on, number, start, stop))
    power_N = size_N.double().cpu().numpy() ** settings.power
    mean = total(comm, [power_N.sum()])[0] / num_pool
    if not np.isfinite(mean):
        raise NonFiniteError(
            "the residual is not finite at a point of the sampling pool; the likely cause is a "
            "problem function that divides by zero or takes a root or log of a negative number "
            "there"
        )
    p_N = (power_N / mean if mean > 0 else 0 * power_N) + settings.floor
    key_N = np.log(p_N) + gumbel(sampler.seed, on, number, start, stop)
    chosen_N, t = largest(comm, key_N, count)
    mine = np.flatnonzero(chosen_N)
    # Horvitz and Thompson's weights: each chosen point stands for 1 / pi_i points of the pool.
    measure = sampler.domain.parts[on].measure
    weight = measure / num_pool / -np.expm1(-p_N[mine] * np.exp(-t))
    return tuple(np.concatenate(comm.allgather(share)) for share in (start + mine, weight))


def largest(comm: MPI.Comm, key_N: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Find the `count` largest keys of all ranks. Collective on comm: one gather.

    A rank sends its count + 1 largest keys at most, and no more than it has.

    Args:
        comm: communicator.
        key_N: this rank's keys, float64; there are at least `count` on all ranks.
        count: number of keys to choose.

    Returns:
        (mask of this rank's chosen keys, largest key of all ranks that was not chosen). The second
        is -inf if all were chosen. If keys are equal, those of the lower rank are chosen first, and
        on a rank those of the lower index.
    """
    shares = comm.allgather(np.sort(key_N)[::-1][: count + 1])
    ranked = np.sort(np.concatenate(shares))[::-1]
    last = ranked[count - 1] if count else np.inf
    next_key = ranked[count] if len(ranked) > count else -np.inf
    # All keys above `last` are chosen, and as many of those equal to it as there is room for, lower
    # ranks first. The shares contain all of them, because a share that was cut has count + 1 keys.
    num_above = sum(np.count_nonzero(share > last) for share in shares)
    num_equal_before = sum(np.count_nonzero(share == last) for share in shares[: comm.rank])
    room = count - num_above - num_equal_before
    equal_N = key_N == last
    return (key_N > last) | (equal_N & (np.cumsum(equal_N) <= room)), next_key
