"""Interpolation of tables in torch: tensor-product splines on grids, and scattered points. Local.

scipy makes the spline coefficients, the triangulation and the tree; torch evaluates them on the
device of the points, row by row, so that values do not depend on how points are split. Values are
differentiable in x. Shapes: N points in D coordinates, M values at each point, float64.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from scipy.linalg import solve
from scipy.spatial import Delaunay, KDTree
from torch import Tensor

from nedhpc.errors import UsageError

DEGREES = {"linear": 1, "cubic": 3}
"""Degree of the splines by the order of a table."""
MAX_RADIAL = 3000
"""Most scattered points of order cubic: each value is a sum over all of them."""
RADIAL_NUMBERS = 2**22
"""Distances that are computed at once, so that they fit into memory."""
TOLERANCE = 1e-9
"""Share of the table's size by which a point may lie outside, since bounds are rounded."""
SMALLEST = 1e-30
"""Added to a squared distance, so that its power 3/2 has all derivatives at zero."""


class Interpolant(Protocol):
    """Values at points, and which points the table covers."""

    def value(self, x_ND: Tensor) -> Tensor:
        """The values (N, M); outside the table they are extended, if there is a formula."""
        ...

    def is_inside(self, x_ND: Tensor) -> Tensor:
        """True for the points that the table covers, (N,)."""
        ...

    def nearest(self, x_ND: Tensor) -> Tensor:
        """The points of the table's region that are nearest to x, (N, D)."""
        ...


class Arrays:
    """Constant tensors, copied to a device at the first use there."""

    def __init__(self, **arrays: np.ndarray):
        self._copies = {torch.device("cpu"): {k: torch.as_tensor(a) for k, a in arrays.items()}}

    def on(self, x: Tensor) -> dict[str, Tensor]:
        """The tensors by name, on the device of x."""
        if x.device not in self._copies:
            cpu = self._copies[torch.device("cpu")]
            self._copies[x.device] = {name: a.to(x.device) for name, a in cpu.items()}
        return self._copies[x.device]


class Box:
    """The region of a grid: the box of its axes.

    Args:
        axes: increasing coordinates of the grid along each direction.
    """

    def __init__(self, axes: Sequence[np.ndarray]):
        low_D, high_D = (np.array([axis[end] for axis in axes]) for end in (0, -1))
        self._bounds = Arrays(low_D=low_D, high_D=high_D, slack_D=TOLERANCE * (high_D - low_D))

    def is_inside(self, x_ND: Tensor) -> Tensor:
        b = self._bounds.on(x_ND)
        low_D, high_D = b["low_D"] - b["slack_D"], b["high_D"] + b["slack_D"]
        return ((x_ND >= low_D) & (x_ND <= high_D)).all(1)

    def nearest(self, x_ND: Tensor) -> Tensor:
        b = self._bounds.on(x_ND)
        return x_ND.clamp(b["low_D"], b["high_D"])


class GridNearest(Box):
    """The value at the nearest grid point; its derivatives are zero.

    Args:
        axes: as Box.
        values: (n_1, ..., n_D, M).
    """

    def __init__(self, axes: Sequence[np.ndarray], values: np.ndarray):
        super().__init__(axes)
        self._middles = [Arrays(t=(axis[1:] + axis[:-1]) / 2) for axis in axes]
        self._shape, self._values = (
            values.shape[:-1],
            Arrays(v=values.reshape(-1, values.shape[-1])),
        )

    def value(self, x_ND: Tensor) -> Tensor:
        flat_N = torch.zeros(len(x_ND), dtype=torch.long, device=x_ND.device)
        for d, middles in enumerate(self._middles):
            index_N = torch.searchsorted(middles.on(x_ND)["t"], x_ND[:, d].detach().contiguous())
            flat_N = flat_N * self._shape[d] + index_N
        return self._values.on(x_ND)["v"][flat_N]


class GridSpline(Box):
    """The tensor-product spline through a grid; cubic ones have scipy's not-a-knot ends.

    The error of a smooth function falls as h^2 (linear) and h^4 (cubic) with the distance h of grid
    points. A value costs O(M (degree + 1)^D).

    Args:
        axes: as Box.
        values: (n_1, ..., n_D, M).
        degree: of the polynomials along each direction.

    Raises:
        UsageError: an axis has fewer than degree + 1 points.
    """

    def __init__(self, axes: Sequence[np.ndarray], values: np.ndarray, degree: int):
        super().__init__(axes)
        few = min(map(len, axes))
        if few <= degree:
            raise UsageError(
                f"a grid axis has {few} point{'s'[: few != 1]}; order = "
                f"{'linear' if degree == 1 else 'cubic'!r} needs at least {degree + 1}; use a "
                "lower order"
            )
        self._degree, self._knots = degree, []
        for d, axis in enumerate(axes):
            spline = make_interp_spline(axis, np.moveaxis(values, d, 0), k=degree)
            self._knots.append(Arrays(t=spline.t))
            values = np.moveaxis(spline.c, 0, d)
        self._shape = values.shape[:-1]
        self._values = Arrays(c=np.ascontiguousarray(values).reshape(-1, values.shape[-1]))

    def value(self, x_ND: Tensor) -> Tensor:
        num, k = len(x_ND), self._degree
        flat = torch.zeros(num, dtype=torch.long, device=x_ND.device)
        weights = []
        for d, knots in enumerate(self._knots):
            first_N, w_KN = basis(x_ND[:, d], knots.on(x_ND)["t"], k)
            weights.append(w_KN)
            index_NK = first_N.unsqueeze(1) + torch.arange(k + 1, device=x_ND.device)
            flat = flat.unsqueeze(-1) * self._shape[d] + index_NK.view(num, *(1,) * d, k + 1)
        c = self._values.on(x_ND)["c"][flat]
        for d in reversed(range(len(weights))):
            # Sums term by term: a value does not depend on the other points, not even in rounding.
            terms = [
                w_N.view(num, *(1,) * (d + 1)) * c.select(d + 1, i)
                for i, w_N in enumerate(weights[d])
            ]
            c = sum(terms[1:], terms[0])
        return c


def basis(x_N: Tensor, t: Tensor, degree: int) -> tuple[Tensor, list[Tensor]]:
    """The B-splines that are not zero at x, by Cox and de Boor's recurrence.

    Outside the knots they are those of the outermost interval, which extends its polynomial.
    Reference: Piegl and Tiller, The NURBS Book, algorithm A2.2.

    Args:
        x_N: points.
        t: knots.
        degree: of the splines.

    Returns:
        Number of the first B-spline at each point, (N,), and the degree + 1 values, each (N,).
    """
    i = torch.searchsorted(t, x_N.detach().contiguous(), right=True) - 1
    i = i.clamp(degree, len(t) - degree - 2)
    found = [torch.ones_like(x_N)]
    for j in range(1, degree + 1):
        saved, row = torch.zeros_like(x_N), []
        for r in range(j):
            low, high = t[i + r + 1 - j], t[i + r + 1]
            part = found[r] / (high - low)
            row.append(saved + (high - x_N) * part)
            saved = (x_N - low) * part
        found = [*row, saved]
    return i - degree, found


class Hull:
    """The region of scattered points: their convex hull, by scipy's Delaunay triangulation.

    Args:
        x_ND: points in at least two coordinates, not all on a plane.

    Raises:
        UsageError: there is no triangulation.
    """

    def __init__(self, x_ND: np.ndarray):
        low_D = x_ND.min(0)
        size_D = np.maximum(np.ptp(x_ND, axis=0), np.finfo(float).tiny)
        self._place = Arrays(low_D=low_D, size_D=size_D, x_ND=x_ND)
        self._tree = KDTree((x_ND - low_D) / size_D)
        try:
            self._mesh = Delaunay((x_ND - low_D) / size_D)
        except (ValueError, RuntimeError) as error:  # QhullError is a RuntimeError
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"its scattered points cannot be triangulated: {reason}") from None

    def scaled(self, x_ND: Tensor) -> Tensor:
        """Coordinates between 0 and 1."""
        place = self._place.on(x_ND)
        return (x_ND - place["low_D"]) / place["size_D"]

    def simplex(self, x_ND: Tensor) -> Tensor:
        """The number of the simplex that holds each point, (N,); -1 outside."""
        s_ND = self.scaled(x_ND.detach()).cpu().numpy()
        found = self._mesh.find_simplex(s_ND, tol=TOLERANCE)
        return torch.as_tensor(found.astype(np.int64), device=x_ND.device)

    def is_inside(self, x_ND: Tensor) -> Tensor:
        return self.simplex(x_ND) >= 0

    def nearest_row(self, x_ND: Tensor) -> Tensor:
        """The number of the nearest point of the table, (N,)."""
        row_N = self._tree.query(self.scaled(x_ND.detach()).cpu().numpy())[1]
        return torch.as_tensor(np.asarray(row_N, np.int64), device=x_ND.device)

    def nearest(self, x_ND: Tensor) -> Tensor:
        return self._place.on(x_ND)["x_ND"][self.nearest_row(x_ND)]


class ScatteredNearest(Hull):
    """The value at the nearest point, in coordinates scaled to the same size; derivatives are zero.

    Args:
        x_ND: points.
        y_NM: values.
    """

    def __init__(self, x_ND: np.ndarray, y_NM: np.ndarray):
        super().__init__(x_ND)
        self._values = Arrays(y=y_NM)

    def value(self, x_ND: Tensor) -> Tensor:
        return self._values.on(x_ND)["y"][self.nearest_row(x_ND)]


class ScatteredLinear(Hull):
    """Linear on each simplex of the triangulation; the error of a smooth function falls as h^2.

    Args:
        x_ND: points.
        y_NM: values.
    """

    def __init__(self, x_ND: np.ndarray, y_NM: np.ndarray):
        super().__init__(x_ND)
        dim = x_ND.shape[1]
        corners = self._mesh.simplices
        # The rows of transform[:, :D] map s - (last corner) to barycentric coordinates.
        to_weights, y = self._mesh.transform[:, :dim], y_NM[corners]
        slope = np.einsum("sbm,sbd->smd", y[:, :dim] - y[:, dim:], to_weights)
        last = self._mesh.points[corners[:, dim]]
        flat = ~np.isfinite(slope).all((1, 2))  # simplices without a volume
        slope[flat] = 0
        self._pieces = Arrays(y=y[:, dim], slope=slope, last=last)

    def value(self, x_ND: Tensor) -> Tensor:
        p, simplex_N = self._pieces.on(x_ND), self.simplex(x_ND)
        away_ND = self.scaled(x_ND) - p["last"][simplex_N]
        slope_NMD = p["slope"][simplex_N]
        terms = [away_ND[:, d : d + 1] * slope_NMD[:, :, d] for d in range(away_ND.shape[1])]
        return sum(terms, p["y"][simplex_N])


class ScatteredCubic(Hull):
    """The smoothest interpolant: sum_j c_j |x - x_j|^3 and a linear polynomial, in any dimension.

    The interpolant has two continuous derivatives. It costs a dense solution at the start and a sum
    over all points for each value. Reference: Wendland, Scattered Data Approximation, 2004.

    Args:
        x_ND: at most MAX_RADIAL points.
        y_NM: values.

    Raises:
        UsageError: there are too many points.
    """

    def __init__(self, x_ND: np.ndarray, y_NM: np.ndarray):
        super().__init__(x_ND)
        if len(x_ND) > MAX_RADIAL:
            raise UsageError(
                f"it has {len(x_ND)} scattered points; order = 'cubic' is for at most {MAX_RADIAL} "
                "of them, or for points on a grid; use order = 'linear', or resample it on a grid"
            )
        s_ND = self._mesh.points
        powers = np.linalg.norm(s_ND[:, None] - s_ND[None], axis=2) ** 3
        poly = np.hstack([np.ones((len(s_ND), 1)), s_ND])
        corner = np.zeros((poly.shape[1],) * 2)
        matrix = np.block([[powers, poly], [poly.T, corner]])
        right = np.vstack([y_NM, np.zeros((poly.shape[1], y_NM.shape[1]))])
        c = solve(matrix, right, assume_a="sym")
        self._sum = Arrays(s=s_ND, c=c[: len(s_ND)], poly=c[len(s_ND) :])

    def value(self, x_ND: Tensor) -> Tensor:
        a, s_ND = self._sum.on(x_ND), self.scaled(x_ND)
        parts = s_ND.split(max(1, RADIAL_NUMBERS // len(a["s"])))
        return torch.cat([self._value(a, part) for part in parts])

    @staticmethod
    def _value(a: dict[str, Tensor], s_ND: Tensor) -> Tensor:
        squares = [(s_ND[:, d : d + 1] - a["s"][:, d]).square() for d in range(s_ND.shape[1])]
        powers = (sum(squares[1:], squares[0]) + SMALLEST) ** 1.5
        return powers @ a["c"] + a["poly"][0] + s_ND @ a["poly"][1:]
