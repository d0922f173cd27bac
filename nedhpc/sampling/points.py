"""Points and quadrature weights: global, counter-based, split over ranks in contiguous blocks.

A point is a function of (seed, point set, draw, global index) alone, so the sample does not depend on the number of ranks. Rule
`sobol` scrambles its sequence afresh for each draw; rule `residual` takes chosen indices of such a sequence (adaptive.py).
Weights are |Omega| / N on a domain's point sets and 1 / N on data, unless the points were chosen. Local: no function here communicates.
"""

import warnings
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from scipy.stats import qmc

from nedhpc.errors import UsageError

SETS = ("interior", "boundary", "data", "initial")
FIRST_SHARE = 0.25
"""Share of its points in the first draw of a growing sample."""


@dataclass(frozen=True, slots=True)
class Points:
    """This rank's share of one point set."""

    x_ND: torch.Tensor
    weight_N: torch.Tensor
    """Quadrature weights."""
    y_NM: torch.Tensor | None
    """Targets, on "data" only."""


class Sampler:
    """Draws the point sets that a problem's terms use, this rank's block of each; their numbers grow to `counts` in grow_draws draws."""

    def __init__(self, rank, size, problem, counts, rule, seed, device, dtype, grow_draws=0):
        self.rank, self.size, self.problem, self.counts = rank, size, problem, counts
        self.rule, self.seed, self.device, self.dtype, self.grow_draws = (
            rule,
            seed,
            device,
            dtype,
            grow_draws,
        )

    def count(self, on, number):
        """Global number of points of a set in draw `number`."""
        full = self.counts[on]
        if number >= self.grow_draws or on != "data" and self.problem.domain.face_dim(on) == 0:
            return full
        return ceil(full * (FIRST_SHARE + (1 - FIRST_SHARE) * number / self.grow_draws))

    def draw(self, number, chosen=None):
        """{point set: Points} of draw `number` (0, 1, ...); `chosen` is {point set: (sorted indices in the pool, their weights)}."""
        return {on: self._points(on, number, (chosen or {}).get(on)) for on in self.counts}

    def pool(self, on, number, start, stop):
        """Points start..stop (n, d) of the pool that rule `residual` chooses from."""
        return self._tensor(
            domain_points(self.problem.domain, on, "sobol", self.seed, number, None, start, stop)
        )

    def _points(self, on, number, chosen):
        count = self.count(on, number)
        start, stop = self.rank * count // self.size, (self.rank + 1) * count // self.size
        if on == "data":
            data = self.problem.data
            if count < len(data.x_ND):
                chosen = generator(self.seed, on, number).permutation(len(data.x_ND))[:count][
                    start:stop
                ]
            else:
                chosen = slice(start, stop)
            return Points(
                self._tensor(data.x_ND[chosen]),
                self._tensor(np.full(stop - start, 1 / count)),
                self._tensor(data.y_NM[chosen]),
            )
        if chosen is None:
            rule = "sobol" if self.rule == "residual" else self.rule
            x_ND = self._tensor(
                domain_points(self.problem.domain, on, rule, self.seed, number, count, start, stop)
            )
            weight_N = np.full(stop - start, self.problem.domain.measure(on) / count)
        else:
            mine, weight_N = (part[start:stop] for part in chosen)
            first, last = (mine[0], mine[-1] + 1) if len(mine) else (0, 0)
            x_ND = self.pool(on, number, int(first), int(last))[mine - first]
        return Points(x_ND, self._tensor(weight_N), None)

    def _tensor(self, array):
        return torch.as_tensor(np.ascontiguousarray(array), dtype=self.dtype, device=self.device)


def generator(seed, on, number, *stream):
    """A Philox stream for one point set and draw; `stream` sets other uses apart from the points."""
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, SETS.index(on), number, *stream]))
    )


def domain_points(domain, on, rule, seed, number, count, start, stop):
    """Points start..stop of the `count` points of one draw, (stop - start, d) float64."""
    if domain.face_dim(on) == 0:
        return domain.place_on_face(on, np.arange(start, stop), np.empty((stop - start, 0)))
    if rule == "grid":
        return grid(domain, on, count, start, stop)
    if rule == "sobol":
        engine = qmc.Sobol(domain.unit_dim(on), scramble=True, rng=generator(seed, on, number))
        if start:
            engine.fast_forward(start)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "The balance properties"
            )  # any count of points is a person's to choose
            return domain.place(on, engine.random(stop - start))
    return domain.place(on, uniform(generator(seed, on, number), domain.unit_dim(on), start, stop))


def gumbel(seed, on, number, start, stop):
    """Standard Gumbel numbers start..stop of a stream of their own, by inverse CDF."""
    u = uniform(generator(seed, on, number, 1), 1, start, stop)[:, 0]
    return -np.log(-np.log(np.maximum(u, np.finfo(float).tiny)))


def uniform(stream, dim, start, stop):
    """Uniform points start..stop of a fresh Philox stream: each point owns whole counter blocks of four numbers."""
    blocks = ceil(dim / 4)
    bits = stream.bit_generator
    bits.advance(start * blocks)
    return np.random.Generator(bits).random((stop - start, 4 * blocks))[:, :dim]


def grid(domain, on, count, start, stop):
    """Midpoints of a tensor grid of n^k cells on each face of dimension k (the interior is one face)."""
    faces, dim = len(domain.faces(on)), domain.face_dim(on)
    n, per_face = grid_side(count, dim, faces, on), count // faces
    index = np.arange(start, stop)
    return domain.place_on_face(on, index // per_face, _midpoints(index % per_face, n, dim))


def _midpoints(index, n, dim):
    return (np.stack(np.unravel_index(index, (n,) * dim), 1) + 0.5) / n


def grid_side(count, dim, parts, on):
    """n with count = parts * n^dim; UsageError with the nearest counts otherwise."""
    n = max(1, round((count / parts) ** (1 / dim)))
    if parts * n**dim != count:
        near = sorted(parts * k**dim for k in (max(1, n - 1), n, n + 1))
        raise UsageError(
            f"sampling.{on} = {count}: rule 'grid' needs {'' if parts == 1 else f'{parts} times '}"
            f"a whole number to the power {dim}; near it: {', '.join(map(str, dict.fromkeys(near)))}; or rule = 'sobol'"
        )
    return n


def evaluation_points(domain, count=100_000):
    """Fixed points to measure errors on, (N, d): an offset grid of at least 10^4 points for d <= 2, else Sobol points.

    They depend on neither sampling, seed nor ranks.
    """
    if domain.dim <= 2:
        n = 10_001 if domain.dim == 1 else 101
        unit = (_midpoints(np.arange(n**domain.dim), n, domain.dim) * n - 0.5 + 0.37) / n
    else:
        # One more power of two than needed keeps scipy from warning about balance.
        unit = qmc.Sobol(domain.dim, scramble=False).random(2 ** (count - 1).bit_length())[
            1 : count + 1
        ]
    return domain.place("interior", unit)
