"""Points where the residual is large: weighted sampling without replacement from a pool, the same at any number of ranks.

Pool point i is drawn with weight p_i = |r_i|^power / mean |r|^power + floor (RAD; Wu et al., arXiv:2207.10289, eq. 2). The points with
the `count` largest keys log p_i + G_i, G_i independent standard Gumbel numbers, are such a sample (Efraimidis and Spirakis 2006;
Kool et al., arXiv:1903.06059): all that the ranks need to agree on is a threshold. Collective on comm.
"""

import numpy as np

from nedhpc.errors import NonFiniteError
from nedhpc.parallel import block, total
from nedhpc.sampling import gumbel


def choose(comm, energy, theta_P, sampler, on, number, settings):
    """Sorted indices (count,) of the chosen points in the pool of `settings.pool` times as many, on every rank.

    Cost: the pool's residuals, and 64 reductions of one number. Raises NonFiniteError alike on every rank.
    """
    count = sampler.counts[on]
    num_pool = settings.pool * count
    start, stop = block(num_pool, comm.rank, comm.size)
    size_N = energy.residual_size(theta_P, on, sampler.pool(on, number, start, stop)).double().cpu().numpy()
    weight_N = size_N**settings.power
    mean = total(comm, [weight_N.sum()])[0] / num_pool
    if not np.isfinite(mean):
        raise NonFiniteError("the residual is not finite at a point of the sampling pool; the likely cause is a problem function that divides by "
                             "zero or takes a root or log of a negative number there")
    p_N = weight_N / mean + settings.floor if mean > 0 else np.ones_like(weight_N)
    with np.errstate(divide="ignore"):  # weight zero is a key of -inf: chosen last
        key_N = np.log(p_N) + gumbel(sampler.seed, on, number, start, stop)
    return np.concatenate(comm.allgather(start + np.flatnonzero(largest(comm, key_N, count))))


def largest(comm, key_N, count):
    """Mask of this rank's share of the `count` largest keys of all ranks; of equal keys those of lower rank and index."""
    rank_N = ordered(key_N)
    threshold = -2**63
    # The largest threshold that at least `count` keys reach, bit by bit.
    for bit in reversed(range(64)):
        trial = threshold + 2**bit
        if trial < 2**63 and total(comm, [np.count_nonzero(rank_N >= trial)])[0] >= count:
            threshold = trial
    above_N, equal_N = rank_N > threshold, rank_N == threshold
    num_above, num_equal = np.array(comm.allgather((above_N.sum(), equal_N.sum()))).T
    room = count - num_above.sum() - num_equal[:comm.rank].sum()
    return above_N | (equal_N & (np.cumsum(equal_N) <= room))


def ordered(key_N):
    """int64 in the order of float64 keys: the bits of an IEEE number, those of a negative one reversed."""
    bits = (np.asarray(key_N, np.float64) + 0.0).view(np.int64)  # -0 becomes 0
    return np.where(bits >= 0, bits, bits ^ np.int64(2**63 - 1))
