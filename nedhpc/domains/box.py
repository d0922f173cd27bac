"""Boxes in space and in space-time. Local: nothing here communicates."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from nedhpc.domains.base import Part, grid_side, midpoints, space_coordinates
from nedhpc.domains.piece import Piece
from nedhpc.domains.rfunctions import both
from nedhpc.domains.shape import Shape
from nedhpc.errors import UsageError

MAX_CORNER_DIM, CORNER_POINTS, CORNER_GAP = 4, 5, 1e-6
"""For `corners`: dimensions at most, points along each free direction, gap to the other wall."""

ENDS = ("low", "high")
"""The walls across a coordinate are named by it and one of these words."""


class Box(Shape):
    """The box [low_1, high_1] x ... x [low_D, high_D]; its parts are "interior" and "boundary".

    Args:
        low: lower bounds, one for each coordinate.
        high: upper bounds.
        periodic: numbers 0, 1, ... of the coordinates in which the solution repeats itself; the
            walls across them are not part of the boundary, and a box that is periodic in all
            coordinates has no part "boundary".
        sides: names of some walls, by "x_low", "x_high", "y_low", ...; walls of one name are one
            part.

    Raises:
        UsageError: bounds are not finite or not low < high, `periodic` names no coordinate, or
            `sides` names no wall, or one across a periodic coordinate.
    """

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        periodic: Sequence[int] = (),
        sides: Mapping[str, str] | None = None,
    ) -> None:
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        self._check_bounds()
        self.periodic = tuple(periodic)
        if not set(self.periodic) <= set(range(self._num_space)):
            raise UsageError(
                f"{type(self).__name__}: periodic = {self.periodic}: allowed are the numbers of "
                f"the space coordinates, 0 .. {self._num_space - 1}"
            )
        size = self.high - self.low
        interior = Piece(
            dim=self.dim,
            measure=float(np.prod(size)),
            place=lambda unit_ND: self.low + unit_ND * size,
            cells=self._interior_cells,
            is_smooth=True,
        )
        names = self._names_of_walls(sides or {})
        every = [(axis, side) for axis in range(self._num_space) for side in (0, 1)]
        faces = [self._face(*wall, names.get(wall)) for wall in every]
        self._set(self.low, self.high, interior, faces)
        self._walls: dict[str, Walls] = {}
        walls = [wall for wall in every if wall[0] not in self.periodic]
        for name in dict.fromkeys(names.values()):
            mine = [wall for wall in walls if names.get(wall) == name]
            self._add_walls(name, mine)
        if walls:
            self._add_walls("boundary", walls)

    def _add_walls(self, name, sides):
        self._walls[name] = Walls(self.low, self.high, sides)
        self.parts[name] = self._walls[name].part()

    def _names_of_walls(self, sides: Mapping[str, str]) -> dict[tuple[int, int], str]:
        """{(axis, side): name} of the walls that have one."""
        axes = self.coordinates[: self._num_space]
        known = {f"{x}_{end}": (i, k) for i, x in enumerate(axes) for k, end in enumerate(ENDS)}
        for key in sides:
            if key not in known:
                raise UsageError(
                    f"{type(self).__name__}: sides[{key!r}]: allowed are {', '.join(known)}"
                )
            if known[key][0] in self.periodic:
                raise UsageError(
                    f"{type(self).__name__}: sides[{key!r}] = {sides[key]!r}: the domain is "
                    f"periodic in {axes[known[key][0]]}, and its ends are not part of the "
                    "boundary, so no condition can hold there; leave one of them out"
                )
        return {known[key]: name for key, name in sides.items()}

    def _face(self, axis: int, side: int, name: str | None) -> Piece:
        wall = Walls(self.low, self.high, [(axis, side)])
        free = np.arange(self.dim) != axis

        def gap(x_ND):
            beyond_ND = np.maximum(np.maximum(self.low - x_ND, x_ND - self.high), 0)[:, free]
            at = (self.low, self.high)[side][axis]
            return np.sqrt((beyond_ND**2).sum(1) + (x_ND[:, axis] - at) ** 2)

        return Piece(**vars(wall.part()), gap=gap, name=name, is_periodic=axis in self.periodic)

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        return np.all((x_ND > self.low) & (x_ND < self.high), axis=1)

    def level(self, x_ND: torch.Tensor) -> torch.Tensor:
        """The R-conjunction of 4 (x_i - low_i) (high_i - x_i) / (high_i - low_i)^2."""
        return both([self._across(x_ND, i) for i in self._walled])

    def _across(self, x_ND, i):
        low, high = float(self.low[i]), float(self.high[i])
        return 4 * (x_ND[:, i] - low) * (high - x_ND[:, i]) / (high - low) ** 2

    @property
    def periods(self) -> tuple[float | None, ...]:
        sizes = (self.high - self.low).tolist()
        return tuple(size if i in self.periodic else None for i, size in enumerate(sizes))

    def corners(self) -> list[tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]]]:
        """As in Domain, for each pair of walls; none in more than MAX_CORNER_DIM dimensions."""
        if self.dim > MAX_CORNER_DIM:
            return []
        sides = [(name, *side) for name, walls in self._walls.items() for side in walls.sides]
        return self._overlaps() + [
            ((a[0], self._edge(a, b)), (b[0], self._edge(b, a)))
            for a, b in itertools.combinations(sides, 2)
            if a[1] != b[1]
        ]

    def _edge(self, here, there):
        """Points on the wall `here`, beside the wall `there`."""
        free = [i for i in range(self.dim) if i not in (here[1], there[1])]
        cells = CORNER_POINTS ** len(free)
        unit_ND = np.empty((cells, self.dim))
        unit_ND[:, free] = midpoints(np.arange(cells), CORNER_POINTS, len(free)) if free else 0
        unit_ND[:, there[1]] = np.abs(there[2] - CORNER_GAP)
        wall = Walls(self.low, self.high, [here[1:]])
        return wall.place(np.delete(unit_ND, here[1], axis=1))

    def distance(self, x_ND: torch.Tensor, part: str) -> torch.Tensor:
        """prod_i 4 (x_i - low_i) (high_i - x_i) / (high_i - low_i)^2 over the walled coordinates i.

        It is zero on the part "boundary" and 1 at the box's centre. A named part has the product of
        2 |x_i - end_i| / (high_i - low_i) over its walls.
        """
        walls = self._walls.get(part)
        if part in self.names and walls and np.isclose(walls.areas.sum(), self.parts[part].measure):
            return walls.distance(x_ND)
        if part != "boundary" or part not in self.parts:
            return super().distance(x_ND, part)
        product = torch.ones_like(x_ND[:, 0])
        for i in self._walled:
            product = product * self._across(x_ND, i)
        return product

    @property
    def _num_space(self):
        return self.dim

    @property
    def _walled(self):
        return [i for i in range(self._num_space) if i not in self.periodic]

    def _interior_cells(self, count, start, stop):
        side = grid_side(count, self.dim)
        return self.parts["interior"].place(midpoints(np.arange(start, stop), side, self.dim))

    def _check_bounds(self):
        kind = type(self).__name__
        if self.low.ndim != 1 or self.low.shape != self.high.shape or not self.low.size:
            raise UsageError(
                f"{kind}: needs a lower and an upper bound for each coordinate; it got low = "
                f"{self.low.tolist()}, high = {self.high.tolist()}"
            )
        wrong = [
            f"{name}: low = {low}, high = {high}"
            for name, low, high in zip(self.coordinates, self.low, self.high)
            if not -np.inf < low < high < np.inf
        ]
        if wrong:
            raise UsageError(f"{kind}: needs finite low < high; coordinate {'; '.join(wrong)}")


class SpaceTime(Box):
    """The box [low, high] of space at the times [start, end]; the last coordinate is named t.

    Its parts are "interior", "boundary" (the walls of space at all times) and "initial", at which
    t = start.

    Args:
        low: lower bounds of the space coordinates.
        high: upper bounds of the space coordinates.
        end: last time.
        start: first time.
        periodic: numbers of the periodic space coordinates, as for Box.
        sides: names of some walls, as for Box.
    """

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        end: float,
        start: float = 0.0,
        periodic: Sequence[int] = (),
        sides: Mapping[str, str] | None = None,
    ) -> None:
        self._sides = sides
        super().__init__([*low, start], [*high, end], periodic, sides)
        self._add_walls("initial", [(self.dim - 1, 0)])

    @property
    def coordinates(self) -> tuple[str, ...]:
        return (*space_coordinates(self.dim - 1), "t")

    def between(self, start: float, end: float) -> "SpaceTime":
        low, high = self.low[:-1].tolist(), self.high[:-1].tolist()
        return SpaceTime(low, high, end, start, self.periodic, self._sides)

    def distance(self, x_ND: torch.Tensor, part: str) -> torch.Tensor:
        """(t - start) / (end - start) for "initial"; for "boundary" the product as in Box."""
        if part != "initial":
            return super().distance(x_ND, part)
        start, end = float(self.low[-1]), float(self.high[-1])
        return (x_ND[:, -1] - start) / (end - start)

    @property
    def _num_space(self):
        return self.dim - 1


class Walls:
    """Walls (axis, side) of a box: side 0 has x_axis = low_axis, side 1 has x_axis = high_axis."""

    def __init__(self, low_D, high_D, sides):
        self.low_D, self.size_D, self.sides = low_D, high_D - low_D, sides
        self.bounds: tuple[np.ndarray, np.ndarray] = (low_D, high_D)
        self.dim = len(low_D) - 1
        # Area of each wall: the product of the box's other edges, 1 for an end of an interval.
        self.areas = np.array([np.prod(np.delete(self.size_D, axis)) for axis, _ in sides])

    def part(self) -> Part:
        """The walls as one part; the ends of an interval are two isolated points."""
        return Part(
            dim=self.dim,
            measure=float(self.areas.sum()),
            place=self.place,
            # If there are several walls, the first coordinate of the unit cube chooses one.
            unit_dim=self.dim + (len(self.sides) > 1),
            outward=self.normal,
            cells=self.cells,
            num_points=len(self.sides) if self.dim == 0 else None,
            is_smooth=len(self.sides) == 1,
            faces=self._faces() if len(self.sides) > 1 else (),
        )

    def _faces(self):
        low_D, high_D = self.bounds
        return tuple(Walls(low_D, high_D, [side]).part() for side in self.sides)

    def distance(self, x_ND: torch.Tensor) -> torch.Tensor:
        """The product of 2 |x_i - end_i| / (high_i - low_i) over the walls, for points inside."""
        product = torch.ones_like(x_ND[:, 0])
        for axis, side in self.sides:
            sign, end = -1.0 if side else 1.0, float(self.bounds[side][axis])
            product = product * (sign * 2 * (x_ND[:, axis] - end) / float(self.size_D[axis]))
        return product

    def place(self, unit_NK):
        if len(self.sides) == 1:
            return self._on_wall(np.zeros(len(unit_NK), int), unit_NK)
        shares = np.cumsum(self.areas) / self.areas.sum()
        wall_N = np.searchsorted(shares, unit_NK[:, 0], side="right")
        # By rounding the last share may lie below 1.
        return self._on_wall(np.minimum(wall_N, len(shares) - 1), unit_NK[:, 1:])

    def cells(self, count, start, stop):
        """The same grid of side^dim cells on each wall, one wall after the other."""
        index_N = np.arange(start, stop)
        if self.dim == 0:
            return self._on_wall(index_N, np.empty((len(index_N), 0)))
        num_walls = len(self.sides)
        side, per_wall = grid_side(count, self.dim, num_walls), count // num_walls
        unit_NK = midpoints(index_N % per_wall, side, self.dim)
        return self._on_wall(index_N // per_wall, unit_NK)

    def normal(self, x_ND):
        """Normal +-e_axis of the wall nearest to each point, in units of the box's edges."""
        gap_NW = np.stack(
            [np.abs(x_ND[:, i] - self.bounds[side][i]) / self.size_D[i] for i, side in self.sides],
            1,
        )
        normal_WD = np.zeros((len(self.sides), len(self.low_D)), x_ND.dtype)
        for wall, (axis, side) in enumerate(self.sides):
            normal_WD[wall, axis] = 1.0 if side else -1.0
        return normal_WD[gap_NW.argmin(1)]

    def _on_wall(self, wall_N, unit_NK):
        """Points on the walls wall_N, for points unit_NK of the unit cube of a wall."""
        x_ND = np.empty((len(wall_N), len(self.low_D)))
        for wall, (axis, side) in enumerate(self.sides):
            here_N, free = wall_N == wall, np.arange(len(self.low_D)) != axis
            x_ND[here_N, axis] = self.bounds[side][axis]
            x_ND[np.ix_(here_N, free)] = self.low_D[free] + unit_NK[here_N] * self.size_D[free]
        return x_ND
