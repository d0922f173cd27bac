"""Any domain of space times an interval of time. Local."""

import numpy as np
import torch

from nedhpc.domains.base import Domain, Part
from nedhpc.domains.isolated import isolated
from nedhpc.domains.lifted import lifted
from nedhpc.domains.shape import sample
from nedhpc.errors import UsageError

GAP = 1e-6
"""How far the points of `corners` are away from a corner, as a share of the domain."""


class InTime(Domain):
    """A domain of space at the times [start, end]; the last coordinate is named t.

        nedhpc.InTime(nedhpc.Disk([0, 0], 1), end=2)

    It has the parts of the domain, at all times, and "initial", at which t = start. For a box,
    nedhpc.SpaceTime is the same with more points in common, and it has even grids.

    Args:
        space: the domain of space.
        end: last time.
        start: first time.

    Raises:
        UsageError: not start < end, or the domain has time already.
    """

    def __init__(self, space: Domain, end: float, start: float = 0.0) -> None:
        if not -np.inf < start < end < np.inf:
            raise UsageError(f"InTime: needs finite start < end, not {start} and {end}")
        if space.coordinates[-1] == "t" or "initial" in space.parts:
            raise UsageError("InTime: the domain has a time, or a part named 'initial', already")
        self.space = space
        self.low = np.append(space.low, float(start))
        self.high = np.append(space.high, float(end))
        self.parts: dict[str, Part] = {
            name: lifted(part, start, end, name) for name, part in space.parts.items()
        }
        self.parts["initial"] = _first(space.parts["interior"], start)

    @property
    def coordinates(self) -> tuple[str, ...]:
        return (*self.space.coordinates, "t")

    @property
    def periods(self) -> tuple[float | None, ...]:
        return (*self.space.periods, None)

    @property
    def boundary_pieces(self) -> tuple[str | None, ...]:
        return self.space.boundary_pieces

    def between(self, start: float, end: float) -> "InTime":
        return InTime(self.space, end, start)

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        return self.space.inside(x_ND[:, :-1])

    def corners(self) -> list[tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]]]:
        """The corners of space at all times, and the boundary of space at the start."""
        start, length = self.low[-1], self.high[-1] - self.low[-1]
        found = []
        for pair in self.space.corners():
            times = [start + share * length for share in (0.25, 0.75)]
            found.append(tuple((on, np.concatenate([_at(x, t) for t in times])) for on, x in pair))
        size = float(np.linalg.norm(self.space.high - self.space.low))
        for name, part in self.space.parts.items():
            if part.outward is not None:
                x_ND = sample(part)
                within_ND = x_ND - GAP * size * part.normal(x_ND)
                beside = (name, _at(x_ND, start + GAP * length))
                found.append((beside, ("initial", _at(within_ND, start))))
        return found

    def reentrant_corners(self) -> list[tuple[np.ndarray, float]]:
        return self.space.reentrant_corners()

    def distance(self, x_ND: torch.Tensor, part: str) -> torch.Tensor:
        """(t - start) / (end - start) for "initial"; that of space for its parts."""
        if part != "initial":
            return self.space.distance(x_ND[:, :-1], part)
        start, end = float(self.low[-1]), float(self.high[-1])
        return (x_ND[:, -1] - start) / (end - start)


def _first(interior: Part, start: float) -> Part:
    """The interior at the first time."""
    if interior.dim:
        return lifted(interior, start, start, "initial")
    x_ND = _at(interior.every_point(), start)
    return isolated(x_ND, interior.weight_N, x_ND.shape[1], "the part 'initial'")


def _at(x_ND, t):
    return np.column_stack([x_ND, np.full(len(x_ND), float(t))])
