"""Points where the residual is large: weighted sampling without replacement from a pool, the same at any number of ranks.

Pool point i has p_i = |r_i|^power / mean |r|^power + floor (RAD; Wu et al., arXiv:2207.10289, eq. 2). The points with the `count` largest
keys log p_i + G_i, G_i independent standard Gumbel numbers, are a sample without replacement with these weights (Efraimidis and
Spirakis 2006; Kool et al., arXiv:1903.06059): all that the ranks need to agree on is a threshold. A key exceeds t, the largest one not
chosen, with probability pi_i = 1 - exp(-p_i e^-t); the quadrature weights |Omega| / (M pi_i), M the pool's size, leave the energy
unbiased (Duffield et al. 2007), so that the flow still descends the same energy. Collective on comm.
"""

import numpy as np

from nedhpc.errors import NonFiniteError
from nedhpc.parallel.comm import block, total
from nedhpc.sampling.points import gumbel

SIGN = np.int64(2**63 - 1)


def choose(comm, energy, theta_P, sampler, on, number, settings):
    """(sorted indices of the chosen points in the pool, their quadrature weights), both (count,), on every rank.

    The pool is `settings.pool` times as many points. Cost: the pool's residuals, and 128 reductions of one number. Raises
    NonFiniteError alike on every rank.
    """
    count = sampler.count(on, number)
    num_pool = settings.pool * count
    start, stop = block(num_pool, comm.rank, comm.size)
    size_N = (
        energy.residual_size(theta_P, on, sampler.pool(on, number, start, stop))
        .double()
        .cpu()
        .numpy()
    )
    mean = total(comm, [(size_N**settings.power).sum()])[0] / num_pool
    if not np.isfinite(mean):
        raise NonFiniteError(
            "the residual is not finite at a point of the sampling pool; the likely cause is a problem function that divides by "
            "zero or takes a root or log of a negative number there"
        )
    p_N = (size_N**settings.power / mean if mean > 0 else 0 * size_N) + settings.floor
    key_N = ordered(np.log(p_N) + gumbel(sampler.seed, on, number, start, stop))
    mine = np.flatnonzero(largest(comm, key_N, count))
    t = key_of(nth_largest(comm, key_N, count + 1))
    weight = sampler.problem.domain.measure(on) / num_pool / -np.expm1(-p_N[mine] * np.exp(-t))
    return tuple(np.concatenate(comm.allgather(part)) for part in (start + mine, weight))


def largest(comm, key_N, count):
    """Mask of this rank's share of the `count` largest integer keys of all ranks; of equal ones those of lower rank and index."""
    threshold = nth_largest(comm, key_N, count)
    above_N, equal_N = key_N > threshold, key_N == threshold
    num_above, num_equal = np.array(comm.allgather((above_N.sum(), equal_N.sum()))).T
    room = count - num_above.sum() - num_equal[: comm.rank].sum()
    return above_N | (equal_N & (np.cumsum(equal_N) <= room))


def nth_largest(comm, key_N, n):
    """The n-th largest integer key of all ranks: the largest number that n keys reach, found bit by bit."""
    found = -(2**63)
    for bit in reversed(range(64)):
        trial = found + 2**bit
        if trial < 2**63 and total(comm, [np.count_nonzero(key_N >= trial)])[0] >= n:
            found = trial
    return found


def ordered(key_N):
    """int64 in the order of float64 keys: the bits of an IEEE number, those of a negative one reversed."""
    bits = (np.asarray(key_N, np.float64) + 0.0).view(np.int64)  # -0 becomes 0
    return np.where(bits >= 0, bits, bits ^ SIGN)


def key_of(integer):
    """The float64 key of its integer."""
    bits = np.int64(integer)
    return (bits if bits >= 0 else bits ^ SIGN).view(np.float64)
