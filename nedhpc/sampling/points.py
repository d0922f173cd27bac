"""Points and quadrature weights: global, counter-based, split over ranks in contiguous blocks.

A point is a function of (seed, part, draw, global index) only, so the sample does not depend on the
number of ranks. Rule `sobol` scrambles its sequence in a new way for each draw; rule `residual`
uses chosen points of such a sequence (adaptive.py). Weights are |part| / N on a part of the domain
and 1 / N on data, unless the points were chosen. Local: no function here communicates.
"""

import hashlib
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import torch

from nedhpc.domains.base import Domain, Part, midpoints
from nedhpc.errors import UsageError
from nedhpc.problems.data import DataSet
from nedhpc.sampling import quadrature

STREAMS = {"interior": 0, "boundary": 1, "data": 2, "initial": 3}
"""Numbers of the random streams that the checkpoints of the first edition continue with."""
ADAPTED = "interior"
"""The part on which rule `residual` chooses points; the others keep Sobol points."""
FIRST_SHARE = 0.25
"""Share of the points that the first draw of a growing sample has."""
HELD_OUT, MIN_HELD_OUT = 0.25, 32
"""Held-out points for each training point, and the least number of them on a part."""
MORE_NODES = 1.5
"""Ratio of the number of an integral's nodes in the held-out points to that in the sample."""
CHUNK = 8192
"""Number of candidates that are tried at once if a part rejects some; the same on every rank."""
LEAST_ACCEPTED = 1e-3
"""A part that accepts a smaller share of its candidates is refused."""


@dataclass(frozen=True, slots=True)
class Points:
    """This rank's share of the points of one part, or of the data."""

    x_ND: torch.Tensor
    weight_N: torch.Tensor
    """Quadrature weights."""
    y_NM: torch.Tensor | None = None
    """Targets, on data only."""
    n_ND: torch.Tensor | None = None
    """Outward unit normals, on the parts in `with_normals` only."""
    factors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Factors (N, K) of the components of each term (flows/balance.py), by the term's name."""


class Sampler:
    """Draws the points of each part that the problem's terms use, this rank's share of them.

    Args:
        rank: this rank.
        size: number of ranks.
        domain: the domain, or a window of it.
        data: the data sets by name, or None.
        counts: {part: global number of points}.
        rule: "uniform", "sobol", "grid", or "residual", which draws as "sobol" here.
        seed: seed of all draws.
        device: device of the tensors.
        dtype: dtype of the tensors.
        grow_draws: draws over which the numbers grow linearly from a quarter of `counts` to all.
        with_normals: parts whose points get outward normals.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        domain: Domain,
        data: Mapping[str, DataSet] | None,
        counts: Mapping[str, int],
        rule: str,
        seed: int,
        device: torch.device | str,
        dtype: torch.dtype,
        grow_draws: int = 0,
        with_normals: Collection[str] = (),
    ) -> None:
        self.rank, self.size, self.domain, self.data = rank, size, domain, data or {}
        self.counts = counts
        self.rule, self.seed, self.device, self.dtype = rule, seed, device, dtype
        self.grow_draws, self.with_normals = grow_draws, with_normals

    def count(self, on: str, number: int) -> int:
        """Global number of points of a part, or of the data, in draw `number`."""
        full = self.counts[on]
        fixed = on not in self.data and (self._part(on).dim == 0 or self._part(on).is_quadrature)
        if number >= self.grow_draws or fixed:
            return full
        return ceil(full * (FIRST_SHARE + (1 - FIRST_SHARE) * number / self.grow_draws))

    def draw(self, number: int, chosen: Mapping | None = None) -> dict[str, Points]:
        """The points of one draw. Local.

        Args:
            number: number of the draw, 0, 1, ...
            chosen: {part: (sorted indices in the pool, their quadrature weights)}, both (count,).

        Returns:
            {part: this rank's share of its points}.
        """
        return {on: self._points(on, number, (chosen or {}).get(on)) for on in self.counts}

    def held_out(self, counts: Mapping[str, int]) -> dict[str, Points]:
        """Points that no draw has, a share HELD_OUT of `counts`. Local.

        Isolated points have no others. On data they are the held-out rows of the data set, or, if
        it has none, the rows that are trained on.
        """
        return {on: self._held_out(on, counts[on]) for on in self.counts}

    def _held_out(self, on, count):
        if on in self.data:
            data = self.data[on]
            x, y = data.held_out_x, data.held_out_y
            if not len(x):
                x, y = data.x_ND, data.y_NM
            start, stop = self._share(len(x))
            rows = slice(start, stop)
            weight_N = np.full(stop - start, 1 / len(x))
            return Points(*(self._tensor(array) for array in (x[rows], weight_N, y[rows])))
        part = self._part(on)
        if part.is_quadrature:
            # More nodes than the sample has show whether these suffice.
            return self._nodes(on, part, ceil(MORE_NODES * count) if part.dim else count, (2,))
        if part.dim:
            count = max(MIN_HELD_OUT, ceil(HELD_OUT * count))
        start, stop = self._share(count)
        x_ND = part_points(part, on, "sobol", self.seed, 0, count, start, stop, (2,))
        n_ND = self._tensor(part.normal(x_ND)) if on in self.with_normals else None
        weight_N = _weights(part, count, start, stop)
        return Points(self._tensor(x_ND), self._tensor(weight_N), n_ND=n_ND)

    def pool(self, on: str, number: int, start: int, stop: int) -> torch.Tensor:
        """Points of the pool that rule `residual` chooses from, (stop - start, D). Local.

        Args:
            on: name of the part.
            number: number of the draw.
            start: index of the first point in the pool.
            stop: one more than the index of the last point.
        """
        return self._tensor(self._pool(on, number, start, stop))

    def _points(self, on, number, chosen):
        count = self.count(on, number)
        start, stop = self._share(count)
        if on in self.data:
            return self._rows(on, number, count, start, stop)
        part = self._part(on)
        if part.is_quadrature:
            return self._nodes(on, part, count)
        if chosen is None:
            rule = "sobol" if self.rule == "residual" else self.rule
            x_ND = part_points(part, on, rule, self.seed, number, count, start, stop)
            weight_N = _weights(part, count, start, stop)
        else:
            index_N, weight_N = (array[start:stop] for array in chosen)
            # The share of the pool that holds the chosen points of this rank.
            first, last = (int(index_N[0]), int(index_N[-1]) + 1) if len(index_N) else (0, 0)
            x_ND = self._pool(on, number, first, last)[index_N - first]
        n_ND = self._tensor(part.normal(x_ND)) if on in self.with_normals else None
        return Points(self._tensor(x_ND), self._tensor(weight_N), n_ND=n_ND)

    def _nodes(self, on, part, count, stream=()):
        """The nodes of integrals over a part, the same in every draw."""
        if quadrature.has_rule(part):
            x_ND, w_N = quadrature.nodes(part, count)
            start, stop = self._share(len(x_ND))
            x_ND, w_N = x_ND[start:stop], w_N[start:stop]
        else:
            start, stop = self._share(count)
            x_ND = part_points(part, on, "sobol", self.seed, 0, count, start, stop, stream)
            w_N = _weights(part, count, start, stop)
        n_ND = self._tensor(part.normal(x_ND)) if on in self.with_normals else None
        return Points(self._tensor(x_ND), self._tensor(w_N), n_ND=n_ND)

    def _rows(self, on, number, count, start, stop):
        """Rows of a data set: all of them, or `count` random ones."""
        data = self.data[on]
        rows = slice(start, stop)
        if count < len(data.x_ND):
            order = generator(self.seed, on, number).permutation(len(data.x_ND))
            rows = order[:count][rows]
        return Points(
            self._tensor(data.x_ND[rows]),
            self._tensor(np.full(stop - start, 1 / count)),
            self._tensor(data.y_NM[rows]),
        )

    def _pool(self, on, number, start, stop):
        return part_points(self._part(on), on, "sobol", self.seed, number, None, start, stop)

    def _share(self, count):
        """This rank's share [start, stop) of `count` points."""
        return self.rank * count // self.size, (self.rank + 1) * count // self.size

    def _part(self, on):
        return self.domain.parts[on]

    def _tensor(self, array):
        return torch.as_tensor(np.ascontiguousarray(array), dtype=self.dtype, device=self.device)


def _weights(part, count, start, stop):
    """Quadrature weights of points start..stop: equal ones, or those of isolated points."""
    if part.weight_N is not None:
        return part.weight_N[start:stop]
    return np.full(stop - start, part.measure / count)


def part_points(
    part: Part,
    on: str,
    rule: str,
    seed: int,
    number: int,
    count: int | None,
    start: int,
    stop: int,
    stream: tuple[int, ...] = (),
) -> np.ndarray:
    """Points start..stop of one draw on a part, (stop - start, D) float64. Local.

    Args:
        part: the part of the domain.
        on: its name, which sets its random stream apart from those of other parts.
        rule: "uniform", "sobol" or "grid".
        seed: seed of all draws.
        number: number of the draw.
        count: global number of points; only a grid uses it.
        start: first point.
        stop: one more than the last point.
        stream: numbers that separate other uses from the training points.
    """
    if part.dim == 0 or rule == "grid":
        return part.grid(count, start, stop)

    def points_from(first):
        return unit_stream(part.unit_dim, rule, generator(seed, on, number, *stream), first)

    if part.accepts_all:
        return part.points(points_from(start)(stop - start))[0]
    return _accepted(part, on, points_from(0), start, stop)


def _accepted(part, on, next_points, start, stop):
    """Accepted candidates start..stop, numbered in the order of the stream.

    Every rank goes through all candidates up to its last point, so that the ranks agree on the
    numbers without communication. Cost: stop / (share that the part accepts) candidates.
    """
    found, num_accepted, num_tried = [], 0, 0
    while num_accepted < stop:
        x_ND, accepted_N = part.points(next_points(CHUNK))
        x_ND = x_ND[accepted_N]
        found.append(x_ND[max(0, start - num_accepted) : max(0, stop - num_accepted)])
        num_accepted, num_tried = num_accepted + len(x_ND), num_tried + CHUNK
        if num_accepted < LEAST_ACCEPTED * num_tried:
            raise UsageError(
                f"the part {on!r} of the domain accepts {num_accepted} of {num_tried} candidates; "
                "it is empty, or its `place` covers far more than the part: let it cover less"
            )
    return np.concatenate(found) if found else part.place(next_points(0))


def stream_number(on: str) -> int:
    """Number of a part's random streams: a function of its name only."""
    if on in STREAMS:
        return STREAMS[on]
    return int.from_bytes(hashlib.sha256(on.encode()).digest()[:8], "big")


def generator(seed: int, on: str, number: int, *stream: int) -> np.random.Generator:
    """A Philox generator for one part and draw. Local.

    Args:
        seed: seed of all draws.
        on: name of the part, or "data".
        number: number of the draw.
        stream: numbers that separate other uses from the points.
    """
    key = np.random.SeedSequence([seed, stream_number(on), number, *stream])
    return np.random.Generator(np.random.Philox(key))


def unit_stream(
    dim: int, rule: str, fresh: np.random.Generator, start: int
) -> Callable[[int], np.ndarray]:
    """A function that maps n to the next n points (n, dim) of the unit cube, from `start` on.

    Args:
        dim: dimension of the cube.
        rule: "uniform" or "sobol".
        fresh: a generator from which nothing has been drawn.
        start: index of the first point.
    """
    if rule == "uniform":
        # Each point owns whole blocks of four numbers of the counter, so that a point's index gives
        # its counter.
        blocks = ceil(dim / 4)
        fresh.bit_generator.advance(start * blocks)
        return lambda n: fresh.random((n, 4 * blocks))[:, :dim]
    engine = _sobol(dim, scramble=True, rng=fresh)
    if start:
        engine.fast_forward(start)

    def next_points(n):
        with warnings.catch_warnings():
            # The user chooses the number of points; it need not be a power of two.
            warnings.filterwarnings("ignore", "The balance properties")
            return engine.random(n)

    return next_points


def gumbel(seed: int, on: str, number: int, start: int, stop: int) -> np.ndarray:
    """Standard Gumbel numbers start..stop of a separate stream, (stop - start,) float64. Local.

    They are -log(-log u) for uniform u. Arguments as for `generator` and `unit_stream`.
    """
    u_N = unit_stream(1, "uniform", generator(seed, on, number, 1), start)(stop - start)[:, 0]
    return -np.log(-np.log(np.maximum(u_N, np.finfo(float).tiny)))


def evaluation_points(domain: Domain, count: int = 100_000) -> np.ndarray:
    """Fixed points to measure errors on, (N, D), independent of sampling, seed and ranks. Local.

    In one and two dimensions they are an offset grid of about 10^4 points, in more `count` Sobol
    points. If the interior rejects candidates, they are 10^4 or `count` accepted Sobol points; if
    it consists of isolated points, they are these.
    """
    interior = domain.parts["interior"]
    dim = interior.unit_dim
    if not interior.dim:
        return interior.every_point()
    if interior.accepts_all and dim <= 2:
        n = 10_001 if dim == 1 else 101
        # Shift the midpoints, since a training grid may hold them.
        return interior.place((midpoints(np.arange(n**dim), n, dim) * n - 0.5 + 0.37) / n)
    engine = _sobol(dim, scramble=False)
    if interior.accepts_all:
        # One more power of two than needed keeps scipy from warning about balance.
        return interior.place(engine.random(2 ** (count - 1).bit_length())[1 : count + 1])
    return _accepted(interior, "interior", engine.random, 0, 10_000 if dim <= 2 else count)


def _sobol(dim, **options):
    # Import it here: it takes half a second, which commands that draw no points need not spend.
    from scipy.stats import qmc

    return qmc.Sobol(dim, **options)
