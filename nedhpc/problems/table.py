"""Tables of the user as functions of x: coefficients, sources, initial fields, references. Local.

    class Plate(nedhpc.Problem):
        domain = nedhpc.Box([0, 0], [1, 1])
        k = nedhpc.Table("conductivity.npz", inputs=("x", "y"), targets="k")
        reference = nedhpc.Table("comsol.csv", order="linear")

        @nedhpc.residual("interior")
        def pde(self, x, j):
            flux = (self.k.gradient(x) * j.grad_u).sum(1)
            return self.k(x) * j.lap_u + flux + 1

A run records the SHA-256 of what each table holds, and does not resume with another one.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nedhpc.errors import UsageError
from nedhpc.problems.array_files import read_grid
from nedhpc.problems.tables import ARRAYS, read_table, readable

Order = Literal["nearest", "linear", "cubic"]
Outside = Literal["refuse", "nearest", "extend"]


class Table:
    """A function of x that interpolates the values of a file. Local.

    The file is one that `nedhpc.read_table` reads: text (.csv .dat .txt .tsv), .parquet, arrays
    (.npz .npy .h5 .hdf5) or a mesh (.vtu .vtk), with a row for each point. If the points are all
    those of a grid, in any order, they are interpolated by tensor-product splines; if not, as
    scattered points. Arrays may also be a grid as it is: `inputs` names an axis (n_d,) for each
    coordinate, and the targets have the shape (n_1, ..., n_D), or (n_1, ..., n_D, M).

    Orders, with the error for a smooth function and distances h of the points:

        nearest  the value of the nearest point; h
        linear   linear splines on a grid, linear on Delaunay's simplices if scattered; h^2
        cubic    cubic splines on a grid; h^4. If scattered, radial functions |x - x_j|^3 for at
                 most 3000 points

    Args:
        path: the file; a relative path starts at the current folder.
        inputs: names of the coordinates' columns or arrays; default all that are not targets.
        targets: names of the columns or arrays of values, or how many of the last columns.
        order: of the interpolation.
        outside: what a point outside the table gets: "refuse", an error; "nearest", the value at
            the nearest point of the table; "extend", the outermost polynomial.
        **options: `separator`, `decimal`, `header` and `missing` of `nedhpc.read_table`.

    Raises:
        UsageError: the file cannot be read, a point appears twice, or there are too few or too many
            points for the order.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        inputs: Sequence[str] = (),
        targets: int | str | Sequence[str] = 1,
        order: Order = "cubic",
        outside: Outside = "refuse",
        **options: Any,
    ):
        self.path, self.order, self.outside = Path(path), order, outside
        for key, value, allowed in (("order", order, Order), ("outside", outside, Outside)):
            if value not in allowed.__args__:
                raise UsageError(
                    f"{self}: {key} = {value!r}; allowed are {', '.join(allowed.__args__)}"
                )
        inputs = [inputs] if isinstance(inputs, str) else list(inputs)
        targets = [targets] if isinstance(targets, str) else targets
        found = None
        if self.path.suffix.lower() in ARRAYS and inputs and not isinstance(targets, int):
            with readable(str(self.path)):
                found = read_grid(self.path, inputs, targets)
        if found is None:
            self.points, self.values = read_table(path, inputs=inputs, targets=targets, **options)
            found = as_grid(self.points, self.values)
        else:
            axes, values = found
            mesh = np.meshgrid(*axes, indexing="ij")
            self.points = np.stack([a.ravel() for a in mesh], 1)
            self.values = values.reshape(len(self.points), -1)
        self.names: tuple[str, ...] = () if isinstance(targets, int) else tuple(targets)
        """Names of the values, if `targets` gives them."""
        with readable(str(self.path)):
            self._interpolant = self._make(found)

    points: np.ndarray
    """All points of the table, (N, D) float64."""
    values: np.ndarray
    """Its values, (N, M) float64."""

    def __repr__(self) -> str:
        return f"nedhpc.Table({str(self.path)!r})"

    @property
    def dim(self) -> int:
        """D, the number of coordinates."""
        return self.points.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        """The values at points, differentiable in x.

        Args:
            x: points (N, D) on any device.

        Returns:
            (N,), or (N, M) for several targets, with the dtype of x.

        Raises:
            UsageError: x has another number of coordinates, or a point lies outside the table.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise UsageError(
                f"{self} has {self.dim} coordinates and is called with points of shape "
                f"{tuple(x.shape)}; needed is (N, {self.dim}): choose the columns, e.g. x[:, :2]"
            )
        value_NM = self._values(x.double()).to(x.dtype)
        return value_NM[:, 0] if value_NM.shape[1] == 1 else value_NM

    def gradient(self, x: Tensor) -> Tensor:
        """The first derivatives at points x (N, D): (N, D), or (N, M, D) for several targets.

        They are differentiable in x if x is. Order nearest has zeros.
        """
        again = x.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            value = self(x)
            columns = value.unsqueeze(1).unbind(1) if value.ndim == 1 else value.unbind(1)
            found = [_derivative(column, x, again) for column in columns]
        return found[0] if value.ndim == 1 else torch.stack(found, 1)

    def covers(self, x: Tensor) -> Tensor:
        """True for the points x (N, D) that lie inside the table, (N,)."""
        return self._interpolant.is_inside(x.double())

    def digest(self) -> str:
        """SHA-256 of the points and values that were read, and of how they are interpolated."""
        found = hashlib.sha256(f"{self.order} {self.outside} {self.names}".encode())
        for array in (self.points, self.values):
            found.update(f"{array.shape}".encode())
            found.update(np.ascontiguousarray(array, np.float64).tobytes())
        return found.hexdigest()

    def _values(self, x_ND: Tensor) -> Tensor:
        interpolant = self._interpolant
        if self.outside == "extend":
            return interpolant.value(x_ND)
        inside_N = interpolant.is_inside(x_ND)
        if bool(inside_N.all()):
            return interpolant.value(x_ND)
        if self.outside == "refuse":
            point = ", ".join(f"{v:.6g}" for v in x_ND.detach()[~inside_N][0].tolist())
            bounds = zip(self.points.min(0), self.points.max(0), strict=True)
            covers = " x ".join(f"[{low:.6g}, {high:.6g}]" for low, high in bounds)
            raise UsageError(
                f"{self}: {int((~inside_N).sum())} of {len(x_ND)} points lie outside the table, "
                f"the first is ({point}); the table covers points in {covers}. Use a larger table "
                "or a smaller domain, or say what holds outside: outside = 'nearest' or 'extend'"
            )
        moved_ND = torch.where(inside_N.unsqueeze(1), x_ND, interpolant.nearest(x_ND))
        return interpolant.value(moved_ND)

    def _make(self, grid):
        # scipy takes long to import, and few problems have tables.
        from nedhpc.problems import interpolants

        if grid is not None:
            if self.order == "nearest":
                return interpolants.GridNearest(*grid)
            return interpolants.GridSpline(*grid, interpolants.DEGREES[self.order])
        if len(np.unique(self.points, axis=0)) < len(self.points):
            raise UsageError("a point appears twice; remove one of its rows")
        kinds = {
            "nearest": interpolants.ScatteredNearest,
            "linear": interpolants.ScatteredLinear,
            "cubic": interpolants.ScatteredCubic,
        }
        if self.outside == "extend" and self.order == "linear":
            raise UsageError(
                "outside = 'extend' needs points on a grid or order = 'cubic', since linear pieces "
                "end at the outermost scattered points; use outside = 'nearest'"
            )
        return kinds[self.order](self.points, self.values)


def _derivative(value_N: Tensor, x_ND: Tensor, again: bool) -> Tensor:
    if not value_N.requires_grad:
        return torch.zeros_like(x_ND)
    grad = torch.autograd.grad(
        value_N.sum(), x_ND, create_graph=again, retain_graph=True, allow_unused=True
    )[0]
    return torch.zeros_like(x_ND) if grad is None else grad


def as_grid(x_ND: np.ndarray, y_NM: np.ndarray) -> tuple[list[np.ndarray], np.ndarray] | None:
    """(axes, values (n_1, ..., n_D, M)) if the points are those of a grid, in any order; else None.

    Args:
        x_ND: points.
        y_NM: values.
    """
    axes, places = zip(*(np.unique(x, return_inverse=True) for x in x_ND.T), strict=True)
    shape = tuple(map(len, axes))
    if np.prod(shape, dtype=float) != len(x_ND) or min(shape) < 2:
        return None
    flat_N = np.ravel_multi_index(places, shape)
    if len(np.unique(flat_N)) < len(x_ND):
        return None
    values = np.empty_like(y_NM)
    values[flat_N] = y_NM
    return list(axes), values.reshape(*shape, -1)


def tables_of(problem: object) -> Iterator[tuple[str, Table]]:
    """(attribute, Table) of each table of a problem, its class and base classes, by name."""
    found = {}
    for attributes in [*(vars(cls) for cls in reversed(type(problem).__mro__)), vars(problem)]:
        found |= {name: t for name, t in attributes.items() if isinstance(t, Table)}
    yield from sorted(found.items())


def digests(problem: object) -> dict[str, str]:
    """{"table:attribute": SHA-256} of the tables of a problem."""
    return {f"table:{name}": table.digest() for name, table in tables_of(problem)}
