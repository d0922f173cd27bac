"""Balls and shells in two or more dimensions, and ellipses. Local."""

from collections.abc import Sequence
from math import gamma, pi

import numpy as np
import torch

from nedhpc.domains.piece import Piece, with_cells
from nedhpc.domains.shape import Shape
from nedhpc.errors import UsageError


class Shell(Shape):
    """The points x with inner < |x - centre| < outer, in two or more dimensions.

    Args:
        centre: centre, one number for each coordinate.
        inner: inner radius.
        outer: outer radius.
        name: name of the part that is the whole boundary; default: none.
        inner_name: name of the inner sphere, instead of `name`.
        outer_name: name of the outer sphere, instead of `name`.

    Raises:
        UsageError: the radii are not 0 < inner < outer, or there is only one coordinate.
    """

    is_plane = False
    """True if the shape has two coordinates only."""

    def __init__(
        self,
        centre: Sequence[float],
        inner: float,
        outer: float,
        name: str | None = None,
        inner_name: str | None = None,
        outer_name: str | None = None,
    ) -> None:
        if not 0 < inner < outer < np.inf:
            raise UsageError(
                f"{type(self).__name__}: needs radii 0 < inner < outer; it got inner = {inner}, "
                f"outer = {outer}"
            )
        self._build(centre, inner, outer, inner_name or name, outer_name or name)

    def _build(self, centre, inner, outer, inner_name, outer_name):
        if self.is_plane:
            _check_plane(type(self).__name__, centre)
        self.centre, self.inner, self.outer = np.array(centre, float), float(inner), float(outer)
        if self.centre.ndim != 1 or len(self.centre) < 2 or not np.isfinite(self.centre).all():
            raise UsageError(
                f"{type(self).__name__}: needs a centre of two or more finite numbers, not "
                f"{self.centre.tolist()}; in one dimension use nedhpc.Interval"
            )
        dim = len(self.centre)
        num_angles = dim - 1 if dim <= 3 else dim
        volume = pi ** (dim / 2) / gamma(dim / 2 + 1)
        interior = Piece(
            dim=dim,
            measure=volume * (outer**dim - inner**dim),
            unit_dim=num_angles + 1,
            place=self._between,
        )
        spheres = [(outer, 1.0, outer_name)] + ([(inner, -1.0, inner_name)] if inner else [])
        faces = [self._sphere(volume, num_angles, *sphere) for sphere in spheres]
        self._set(self.centre - outer, self.centre + outer, interior, faces)

    def _between(self, unit_NK):
        dim = len(self.centre)
        share_N1 = unit_NK[:, :1]
        radius_N1 = (self.inner**dim + share_N1 * (self.outer**dim - self.inner**dim)) ** (1 / dim)
        return self.centre + radius_N1 * directions(unit_NK[:, 1:], dim)

    def _sphere(self, volume, num_angles, radius, sign, name):
        dim = len(self.centre)
        piece = Piece(
            dim=dim - 1,
            measure=dim * volume * radius ** (dim - 1),
            unit_dim=num_angles,
            place=lambda unit_NK: self.centre + radius * directions(unit_NK, dim),
            outward=lambda x_ND: sign * (x_ND - self.centre) / self._radius(x_ND)[:, None],
            gap=lambda x_ND: np.abs(self._radius(x_ND) - radius),
            name=name,
        )
        return with_cells(piece)

    def _radius(self, x_ND):
        return np.sqrt(((x_ND - self.centre) ** 2).sum(1))

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        radius_N = self._radius(x_ND)
        return (radius_N < self.outer) & ((radius_N > self.inner) | (self.inner == 0))

    def _levels(self, x_ND):
        """Level functions of the outer and of the inner sphere."""
        square = (x_ND - torch.as_tensor(self.centre).to(x_ND)).square().sum(1)
        return 1 - square / self.outer**2, square / self.outer**2 - (self.inner / self.outer) ** 2

    def level(self, x_ND: torch.Tensor) -> torch.Tensor:
        """(1 - |x|^2 / outer^2) (|x|^2 - inner^2) / outer^2, relative to the centre."""
        outer, inner = self._levels(x_ND)
        return outer * inner if self.inner else outer

    def distance(self, x_ND: torch.Tensor, part: str) -> torch.Tensor:
        """`level` for "boundary"; one of its factors for a sphere that has a name of its own."""
        if part in self.names and len(self._faces_of(part)) < len(self.faces):
            return self._levels(x_ND)[0 if self.faces[0].name == part else 1]
        return super().distance(x_ND, part)


class Ball(Shell):
    """The points x with |x - centre| < radius, in two or more dimensions.

    Args:
        centre: centre, one number for each coordinate.
        radius: radius.
        name: name of the boundary; default: none.

    Raises:
        UsageError: the radius is not positive, or there is only one coordinate.
    """

    def __init__(self, centre: Sequence[float], radius: float, name: str | None = None) -> None:
        if not 0 < radius < np.inf:
            raise UsageError(f"{type(self).__name__}: radius = {radius}; it must be positive")
        self._build(centre, 0.0, radius, None, name)


class Disk(Ball):
    """The disk |x - centre| < radius in two dimensions: `Disk([0.5, 0.5], 0.1, name="hole")`."""

    is_plane = True


class Annulus(Shell):
    """The ring inner < |x - centre| < outer in two dimensions; arguments as for Shell."""

    is_plane = True


def _check_plane(kind, centre):
    if np.shape(centre) != (2,):
        raise UsageError(f"{kind}: needs a centre (x, y), not {centre}; use nedhpc.Ball or Shell")


class Ellipse(Shape):
    """The ellipse with semi-axes a and b, of which a is turned by `angle` from the x axis.

    Args:
        centre: centre (x, y).
        axes: semi-axes (a, b).
        angle: angle in radians, counterclockwise.
        name: name of the boundary; default: none.

    Raises:
        UsageError: the centre is not (x, y), or an axis is not positive.
    """

    def __init__(
        self,
        centre: Sequence[float],
        axes: Sequence[float],
        angle: float = 0.0,
        name: str | None = None,
    ) -> None:
        self.centre, self.axes = np.array(centre, float), np.array(axes, float)
        _check_plane("Ellipse", centre)
        if self.axes.shape != (2,) or not (np.isfinite(self.axes) & (self.axes > 0)).all():
            raise UsageError(f"Ellipse: axes = {self.axes.tolist()}; needed are two positive ones")
        c, s = np.cos(angle), np.sin(angle)
        self.turn_22 = np.array([[c, -s], [s, c]])
        a, b = self.axes
        interior = Piece(dim=2, measure=float(pi * a * b), place=self._within)
        face = with_cells(
            Piece(
                dim=1,
                measure=float(self._length(2 * pi)),
                place=self._on_ellipse,
                outward=self._normal,
                gap=lambda x_ND: np.abs(np.sqrt(self._square(x_ND)) - 1) * min(self.axes),
                name=name,
            )
        )
        half = np.hypot(self.turn_22[:, 0] * a, self.turn_22[:, 1] * b)
        self._set(self.centre - half, self.centre + half, interior, [face])

    def _global(self, local_N2):
        return self.centre + (local_N2[:, None] * self.turn_22).sum(2)

    def _local(self, x_N2):
        return ((x_N2 - self.centre)[:, :, None] * self.turn_22).sum(1)

    def _square(self, x_N2):
        return ((self._local(x_N2) / self.axes) ** 2).sum(1)

    def _within(self, unit_N2):
        return self._global(np.sqrt(unit_N2[:, :1]) * directions(unit_N2[:, 1:], 2) * self.axes)

    def _length(self, angle):
        """Length of the arc from the point (0, b) to the parameter `angle`, clockwise."""
        from scipy.special import ellipeinc

        a, b = self.axes
        return a * ellipeinc(angle, 1 - (b / a) ** 2)

    def _on_ellipse(self, unit_N1):
        """Newton's method for the parameter at which the arc has its share of the length."""
        a, b = self.axes
        wanted = unit_N1[:, 0] * self._length(2 * pi)
        table = np.linspace(0, 2 * pi, 1025)
        angle = np.interp(wanted, self._length(table), table)
        for _ in range(4):
            speed = np.hypot(a * np.cos(angle), b * np.sin(angle))
            angle = angle - (self._length(angle) - wanted) / speed
        return self._global(np.stack([a * np.sin(angle), b * np.cos(angle)], 1))

    def _normal(self, x_N2):
        slope_N2 = self._local(x_N2) / self.axes**2
        slope_N2 = slope_N2 / np.sqrt((slope_N2**2).sum(1, keepdims=True))
        return (slope_N2[:, None] * self.turn_22).sum(2)

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        return self._square(x_ND) < 1

    def level(self, x_ND: torch.Tensor) -> torch.Tensor:
        """1 - (x / a)^2 - (y / b)^2 in the axes of the ellipse."""
        centre, turn, axes = (
            torch.as_tensor(v).to(x_ND) for v in (self.centre, self.turn_22, self.axes)
        )
        return 1 - ((x_ND - centre) @ turn / axes).square().sum(1)


def directions(unit_NK: np.ndarray, dim: int) -> np.ndarray:
    """Even unit vectors (N, dim) from the unit cube, of dim - 1 numbers up to three dimensions.

    In more dimensions there are `dim` numbers: normally distributed vectors, scaled to length 1.
    """
    if dim == 2:
        angle_N = 2 * pi * unit_NK[:, 0]
        return np.stack([np.cos(angle_N), np.sin(angle_N)], 1)
    if dim == 3:
        z_N, angle_N = 1 - 2 * unit_NK[:, 0], 2 * pi * unit_NK[:, 1]
        radius_N = np.sqrt(np.maximum(1 - z_N**2, 0))
        return np.stack([radius_N * np.cos(angle_N), radius_N * np.sin(angle_N), z_N], 1)
    from scipy.special import ndtri

    vector = ndtri(np.clip(unit_NK, 1e-12, 1 - 1e-12))
    length = np.sqrt((vector**2).sum(1, keepdims=True))
    return vector / np.maximum(length, 1e-12)
