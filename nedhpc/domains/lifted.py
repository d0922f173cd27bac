"""Parts of a domain times an interval: at all times, or along an axis. Local."""

from dataclasses import dataclass

import numpy as np

from nedhpc.domains.base import Part
from nedhpc.domains.piece import Piece, choose, far
from nedhpc.errors import UsageError

UNEVEN = 3.0
"""An even grid has at most so many times more, or fewer, cells along the interval than across."""


@dataclass(frozen=True, kw_only=True)
class Lifted(Piece):
    """The points (x, s) with x on a part and low < s < high, or s = low if low = high."""

    base: Part
    low: float
    high: float

    @property
    def accepts_all(self) -> bool:
        return self.keep is None and self.base.accepts_all

    def points(self, unit_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        base, unit_N = self.base, unit_NK[:, -1]
        if base.dim:
            x_ND, accepted_N = base.points(unit_NK[:, : base.unit_dim])
        else:
            points, weight_N = base.every_point(), base.weight_N
            which_N, _ = choose(np.ones(len(points)) if weight_N is None else weight_N, unit_NK)
            x_ND, accepted_N = points[which_N], np.ones(len(unit_NK), bool)
        x_ND = np.column_stack([x_ND, self.low + (self.high - self.low) * unit_N])
        return x_ND, accepted_N if self.keep is None else accepted_N & self.keep(x_ND)


def lifted(base: Part, low: float, high: float, name: str | None = None) -> Piece:
    """A part times the interval [low, high]; if low = high, the part at this place.

    Args:
        base: the part.
        low: lower end.
        high: upper end.
        name: name of the new part.
    """
    is_flat = low == high
    outward, gap = base.outward, getattr(base, "gap", far)
    base_dims = (base.unit_dim or 0) if base.dim else int((base.num_points or 0) > 1)

    def normal(x_ND):
        assert outward is not None
        return np.column_stack([outward(x_ND[:, :-1]), np.zeros(len(x_ND))])

    def distance(x_ND):
        beyond_N = np.maximum(np.maximum(low - x_ND[:, -1], x_ND[:, -1] - high), 0)
        return np.hypot(gap(x_ND[:, :-1]), beyond_N)

    def cells(count, start, stop):
        if is_flat:
            return np.column_stack([base.grid(count, start, stop), np.full(stop - start, low)])
        index_N, times = np.arange(start, stop), _num_times(base, count)
        x_ND = base.grid(count // times, 0, count // times)[index_N % (count // times)]
        share_N = (index_N // (count // times) + 0.5) / times
        return np.column_stack([x_ND, low + (high - low) * share_N])

    has_grid = base.cells is not None and base.weight_N is None and (base.dim or not is_flat)
    found = Lifted(
        dim=base.dim + (not is_flat),
        measure=base.measure * (1.0 if is_flat else high - low),
        unit_dim=base_dims + (not is_flat),
        place=lambda unit_NK: found.points(unit_NK)[0],
        outward=None if outward is None or is_flat else normal,
        gap=distance,
        cells=cells if has_grid else None,
        name=name,
        base=base,
        low=low,
        high=high,
    )
    return found


def _num_times(base: Part, count: int) -> int:
    """Number of copies of an even grid of the base, along the interval, that are `count` points.

    Raises:
        UsageError: there is none for which the cells are about as long as wide.
    """
    num = (base.num_points or 1) if base.dim == 0 else None
    even = count / num if num else max(1.0, count ** (1 / (base.dim + 1)))
    divisors = [k for k in range(1, count + 1) if count % k == 0]
    for times in sorted(divisors, key=lambda k: max(k / even, even / k)):
        if not even / UNEVEN <= times <= UNEVEN * even or (num and times * num != count):
            continue
        try:
            base.grid(count // times, 0, 0)
        except UsageError:
            continue
        return times
    raise UsageError(
        f"rule 'grid' needs an even grid of the part at each of about {even:.0f} times, which "
        f"{count} points do not give; use rule = 'sobol', or another number, such as a power "
        f"{base.dim + 1} of a whole number"
    )
