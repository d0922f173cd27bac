"""A domain is a set of named parts. Sampling knows geometry only through the parts. Local.

Shapes (shape.py) can be combined and need no class. Any other domain is one class that sets `low`,
`high` and `parts`. Here `place` covers a square, and `keep` accepts the points in the disk:

    class Disk(nedhpc.Domain):
        def __init__(self, centre, radius):
            self.centre, self.radius = np.asarray(centre, float), radius
            self.low, self.high = self.centre - radius, self.centre + radius
            area = np.pi * radius**2
            interior = nedhpc.Part(dim=2, measure=area, place=self.square, keep=self.inside)
            self.parts = {"interior": interior}

        def square(self, unit_ND):
            return self.low + 2 * self.radius * unit_ND

        def inside(self, x_ND):
            return ((x_ND - self.centre) ** 2).sum(1) < self.radius**2
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from nedhpc.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Part:
    """A subset of a domain that can carry points: the interior, a boundary, a wall, a curve.

    The fields are numpy functions of points, row by row: one point's result must not depend on the
    other points, so that the sample does not depend on the number of ranks.
    """

    dim: int
    """Dimension of the part; 0: isolated points."""
    measure: float
    """Volume, area or length, in units of the coordinates; an isolated point counts one."""
    place: Callable[[np.ndarray], np.ndarray]
    """Maps the unit cube, (N, unit_dim), evenly to a set that contains the part, (N, D)."""
    unit_dim: int | None = None
    """Dimension of the unit cube; `dim` if not given."""
    keep: Callable[[np.ndarray], np.ndarray] | None = None
    """Tells which of the placed points lie on the part, bool (N,); None: all of them do."""
    outward: Callable[[np.ndarray], np.ndarray] | None = None
    """Outward unit normals (N, D) at points (N, D) of the part; None: it has none."""
    partner: Callable[[np.ndarray], np.ndarray] | None = None
    """Periodic partners (N, D) of points (N, D) of the part; None: it has none."""
    cells: Callable[[int, int, int], np.ndarray] | None = None
    """Computes `grid` from its arguments; None: the part has no even grid."""
    num_points: int | None = None
    """Number of isolated points if dim is 0."""
    weight_N: np.ndarray | None = None
    """Quadrature weights of isolated points, (num_points,), of sum `measure`; None: equal ones."""
    is_smooth: bool = False
    """True if `place` is smooth, with unit_dim = dim.

    Then integrals over the part have a Gauss rule if it accepts all points.
    """
    faces: tuple["Part", ...] = ()
    """Smooth pieces that make up the part, if there are several, e.g. the walls of a box."""
    is_quadrature: bool = False
    """True if the points are the nodes of integrals (sampling/quadrature.py)."""

    def __post_init__(self):
        if self.unit_dim is None:
            object.__setattr__(self, "unit_dim", self.dim)

    @property
    def accepts_all(self) -> bool:
        """True if every point of the unit cube gives a point of the part."""
        return self.keep is None

    def points(self, unit_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Candidate points of the part. Local.

        Args:
            unit_NK: points of the unit cube, (N, unit_dim) float64.

        Returns:
            (x_ND, accepted_N): candidates, float64, and which of them lie on the part, bool. If
            unit_NK is evenly distributed on the cube, so are the accepted points on the part.
        """
        x_ND = self.place(unit_NK)
        return x_ND, np.ones(len(x_ND), bool) if self.keep is None else self.keep(x_ND)

    def normal(self, x_ND):
        """Outward unit normals at points of the part. Local.

        Args:
            x_ND: points, (N, D), a numpy array or a torch tensor.

        Returns:
            (N, D), of the same kind, dtype and device as x_ND.

        Raises:
            UsageError: the part has no normals; the interior has none.
        """
        if self.outward is None:
            raise UsageError(
                "this part of the domain has no normals; leave n out of the term's signature, or "
                "set the term on a part of the boundary"
            )
        return _same_kind(self.outward, x_ND)

    def image(self, x_ND):
        """Periodic partners of points of the part. Local.

        Args:
            x_ND: points, (N, D), a numpy array or a torch tensor.

        Returns:
            (N, D), of the same kind, dtype and device as x_ND; None if the part has no partners.
        """
        return None if self.partner is None else _same_kind(self.partner, x_ND)

    def every_point(self) -> np.ndarray:
        """All points of a part that consists of isolated points (dim = 0), (num_points, D)."""
        count = self.num_points or 0
        return self.grid(count, 0, count)

    def grid(self, count: int, start: int, stop: int) -> np.ndarray:
        """Points start..stop of an even grid of `count` points, or of the isolated points. Local.

        Args:
            count: number of points of the whole grid.
            start: index of the first point.
            stop: one more than the index of the last point.

        Returns:
            (stop - start, D) float64.

        Raises:
            UsageError: there is no even grid on the part, or none of `count` points.
        """
        if self.cells is None:
            raise UsageError(
                "rule 'grid' needs a part that an even grid fits on, such as a box or its walls; "
                "use rule = 'sobol'"
            )
        return self.cells(count, start, stop)


class Domain:
    """Base class of all domains. Each has bounds and parts; one part is named "interior"."""

    low: np.ndarray
    """Lower bounds of the coordinates, (D,) float64."""
    high: np.ndarray
    """Upper bounds of the coordinates, (D,) float64."""
    parts: dict[str, Part]
    """Parts by name."""

    @property
    def dim(self) -> int:
        """D, the number of coordinates."""
        return len(self.low)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates, as jets use them."""
        return space_coordinates(self.dim)

    @property
    def periods(self) -> tuple[float | None, ...]:
        """Period of each coordinate; None if it is not periodic."""
        return (None,) * self.dim

    @property
    def boundary_pieces(self) -> tuple[str | None, ...]:
        """Names of the pieces of "boundary"; None: a piece without a name. Empty if not known."""
        return ()

    def between(self, start: float, end: float) -> "Domain | None":
        """The same domain at the times from start to end; None if it has no time. Local."""
        return None

    def corners(self) -> list[tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]]]:
        """Points at which two parts of the boundary meet; none if that is not known. Local.

        Returns:
            Pairs ((part, x_ND), (other part, other x_ND)). Row by row, both are the same point,
            but each was moved along its own part by a share of 1e-6 away from the other part.
        """
        return []

    def reentrant_corners(self) -> list[tuple[np.ndarray, float]]:
        """Corners of the boundary that point into the domain; none if that is not known. Local.

        Returns:
            Pairs (point, angle): the first coordinates of a corner, which holds for all values of
            the others, and the angle inside the domain, in radians, greater than pi.
        """
        return []

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        """Tells which of the points between low and high belong to the domain. Local.

        Args:
            x_ND: points, (N, D) float64.

        Returns:
            bool (N,); all true if the interior rejects no points, unless a subclass knows better.
        """
        keep = self.parts["interior"].keep
        return np.ones(len(x_ND), bool) if keep is None else keep(x_ND)

    def distance(self, x_ND: torch.Tensor, part: str) -> torch.Tensor:
        """A smooth function that is zero on the part and positive elsewhere in the domain. Local.

        Args:
            x_ND: torch tensor (N, D); the result is differentiable in it.
            part: name of the part.

        Returns:
            (N,) torch tensor, dimensionless.

        Raises:
            UsageError: this domain has no such function for the part.
        """
        raise UsageError(
            f"{type(self).__name__}: there is no distance function for the part {part!r}; impose "
            "this condition by a term on the part, or give the domain a method distance(x, part)"
        )


def space_coordinates(dim: int) -> tuple[str, ...]:
    """Names of space coordinates: x, y, z, or x1, x2, ... in more than three dimensions."""
    return ("x", "y", "z")[:dim] if dim <= 3 else tuple(f"x{i + 1}" for i in range(dim))


def midpoints(index_N: np.ndarray, side: int, dim: int) -> np.ndarray:
    """Midpoints (N, dim) of cells of a grid of side^dim cells on the unit cube.

    Args:
        index_N: numbers of the cells, int (N,).
        side: number of cells along each direction.
        dim: dimension of the cube.
    """
    return (np.stack(np.unravel_index(index_N, (side,) * dim), 1) + 0.5) / side


def grid_side(count: int, dim: int, num_faces: int = 1) -> int:
    """Number of cells along each direction of a grid on faces of equal dimension.

    Args:
        count: number of cells on all faces.
        dim: dimension of a face.
        num_faces: number of faces.

    Raises:
        UsageError: count is not num_faces * side^dim. The message names the nearest counts that
            are.
    """
    side = max(1, round((count / num_faces) ** (1 / dim)))
    if num_faces * side**dim != count:
        sides = (max(1, side - 1), side, side + 1)
        near = dict.fromkeys(num_faces * k**dim for k in sides)
        factor = "" if num_faces == 1 else f"{num_faces} times "
        raise UsageError(
            f"rule 'grid' needs {factor}a whole number to the power {dim}; near it: "
            f"{', '.join(map(str, near))}; or rule = 'sobol'"
        )
    return side


def _same_kind(function, x_ND):
    if isinstance(x_ND, np.ndarray):
        return function(x_ND)
    return x_ND.new_tensor(function(x_ND.detach().cpu().numpy()))
