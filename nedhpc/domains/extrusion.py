"""Shapes drawn along an axis: extrusions and cylinders. Local."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from nedhpc.domains.ball import Disk
from nedhpc.domains.lifted import lifted
from nedhpc.domains.piece import Piece
from nedhpc.domains.rfunctions import both
from nedhpc.domains.shape import Shape
from nedhpc.errors import UsageError

ENDS = ("bottom", "top")


class Extrusion(Shape):
    """The points (x, z) with x in a shape and low < z < high; z is one more coordinate.

        nedhpc.Extrusion(nedhpc.Polygon([[0, 0], [1, 0], [0, 1]], name="wall"), 0, 2)

    Args:
        base: a shape, whose names the sides keep.
        low: lower end.
        high: upper end.
        sides: names of the ends, by "bottom" and "top".

    Raises:
        UsageError: not low < high, `sides` names no end, or the base has time or parts that are
            not on its boundary.
    """

    def __init__(
        self, base: Shape, low: float, high: float, sides: Mapping[str, str] | None = None
    ) -> None:
        if not -np.inf < low < high < np.inf:
            raise UsageError(f"Extrusion: needs finite low < high, not {low} and {high}")
        if base.coordinates[-1] == "t" or set(base.parts) - base.names > {"interior", "boundary"}:
            raise UsageError(
                "Extrusion: the base must be a shape of space; first extrude it, then call "
                "with_part and with_points, and nedhpc.InTime"
            )
        self.base, self.rounding = base, base.rounding
        names = _end_names("Extrusion", sides)
        faces = [
            replace(lifted(face, low, high, face.name), is_periodic=face.is_periodic)
            for face in base.faces
        ]
        faces += [self._end(z, sign, name) for z, sign, name in zip((low, high), (-1, 1), names)]
        bounds = [*base.low, low], [*base.high, high]
        self._set(*bounds, lifted(base.interior, low, high), faces)

    def _end(self, z, sign, name) -> Piece:
        base = self.base

        def outward(x_ND):
            n_ND = np.zeros_like(x_ND)
            n_ND[:, -1] = sign
            return n_ND

        def gap(x_ND):
            beyond_N = np.min([face.gap(x_ND[:, :-1]) for face in base.faces], axis=0)
            beyond_N = np.where(base.inside(x_ND[:, :-1]), 0.0, beyond_N)
            return np.hypot(beyond_N, x_ND[:, -1] - z)

        return replace(lifted(base.interior, z, z, name), outward=outward, gap=gap)

    @property
    def periods(self) -> tuple[float | None, ...]:
        return (*self.base.periods, None)

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        z_N = x_ND[:, -1]
        return self.base.inside(x_ND[:, :-1]) & (z_N > self.low[-1]) & (z_N < self.high[-1])

    def reentrant_corners(self) -> list[tuple[np.ndarray, float]]:
        """The corners of the base, which are edges."""
        return self.base.reentrant_corners()

    def level(self, x_ND: torch.Tensor) -> torch.Tensor:
        low, high = float(self.low[-1]), float(self.high[-1])
        along = 4 * (x_ND[:, -1] - low) * (high - x_ND[:, -1]) / (high - low) ** 2
        return both([self.base.level(x_ND[:, :-1]), along])

    def distance(self, x_ND: torch.Tensor, part: str) -> torch.Tensor:
        """As in Shape; and that of the base for a name that only the base has."""
        ends = {face.name for face in self.faces[-2:]}
        if part in self.base.names and part not in ends:
            return self.base.distance(x_ND[:, :-1], part)
        return super().distance(x_ND, part)


def _end_names(kind, sides):
    for key in sides or {}:
        if key not in ENDS:
            raise UsageError(f"{kind}: sides[{key!r}]: allowed are {', '.join(ENDS)}")
    return [(sides or {}).get(key) for key in ENDS]


class Cylinder(Shape):
    """The cylinder around the line from `start` to `end`, in three dimensions.

    Args:
        start: centre of the bottom (x, y, z).
        end: centre of the top.
        radius: radius.
        name: name of the curved side; default: none.
        sides: names of the ends, by "bottom" and "top".

    Raises:
        UsageError: start and end are equal or not (x, y, z), or the radius is not positive.
    """

    def __init__(
        self,
        start: Sequence[float],
        end: Sequence[float],
        radius: float,
        name: str | None = None,
        sides: Mapping[str, str] | None = None,
    ) -> None:
        self.start = np.array(start, float)
        if self.start.shape != (3,) or np.shape(end) != (3,):
            raise UsageError(f"Cylinder: needs start and end (x, y, z), not {start}, {end}")
        axis = np.array(end, float) - self.start
        length = float(np.linalg.norm(axis))
        if not 0 < length < np.inf or not 0 < radius < np.inf:
            raise UsageError(
                f"Cylinder: needs start other than end and a positive radius; it got {start}, "
                f"{end}, {radius}"
            )
        axis = axis / length
        # Rows: two directions across the cylinder, and its axis.
        across = np.eye(3)[np.abs(axis).argmin()]
        first = np.cross(axis, across) / np.linalg.norm(np.cross(axis, across))
        self.frame_33 = np.stack([first, np.cross(axis, first), axis])
        _end_names("Cylinder", sides)
        self.straight = Extrusion(Disk([0, 0], radius, name), 0.0, length, sides)
        half = radius * np.sqrt(1 - np.minimum(axis**2, 1))
        low = np.minimum(self.start, end) - half
        high = np.maximum(self.start, end) + half
        self._set(
            low, high, self._moved(self.straight.interior), map(self._moved, self.straight.faces)
        )

    def _moved(self, piece: Piece) -> Piece:
        """The piece at its place; all of its points are accepted."""
        frame, outward, gap = self.frame_33, piece.outward, piece.gap
        turned = lambda x_N3: (x_N3[:, :, None] * frame).sum(1)
        return Piece(
            dim=piece.dim,
            measure=piece.measure,
            unit_dim=piece.unit_dim,
            place=lambda unit_NK: self.start + turned(piece.place(unit_NK)),
            outward=outward and (lambda x_N3: turned(outward(self._local(x_N3)))),
            gap=lambda x_N3: gap(self._local(x_N3)),
            name=piece.name,
        )

    def _local(self, x_N3):
        return ((x_N3 - self.start)[:, None] * self.frame_33).sum(2)

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        return self.straight.inside(self._local(x_ND))

    def level(self, x_ND: torch.Tensor) -> torch.Tensor:
        start, frame = (torch.as_tensor(v).to(x_ND) for v in (self.start, self.frame_33))
        return self.straight.level((x_ND - start) @ frame.T)
