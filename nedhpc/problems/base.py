"""A problem as a user writes it: a domain, energy terms on jets, and what the solution is if it is known.

    class MyProblem(nedhpc.Problem):
        domain = nedhpc.Box([0, 0], [1, 1])
        terms = [nedhpc.Residual("pde", on="interior", jets=("u", "lap_u")),
                 nedhpc.Residual("wall", on="boundary", jets=("u",))]
        def pde(self, x, j, c):  return -j.lap_u - self.f(x)
        def wall(self, x, j, c): return j.u

A term's method gets the points x (N, d), the jets j by name, each (N,), and the coefficients c by name; on the point set
"data" also the targets y (N, m). It returns (N,) or (N, k), each point's value depending on that point alone. Energy and
network code never sees a communicator.
"""

from dataclasses import dataclass, field

import numpy as np

from nedhpc.errors import UsageError


@dataclass(frozen=True, slots=True)
class Residual:
    """A term weight * sum_q w_q |r(x_q, j_q, c)|^2 / 2, with r the problem's method of this name."""

    name: str
    on: str = "interior"
    jets: tuple[str, ...] = ("u",)
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Density:
    """A term weight * sum_q w_q l(x_q, j_q, c), with l the problem's method of this name (Ritz energy, likelihood)."""

    name: str
    on: str = "interior"
    jets: tuple[str, ...] = ("u",)
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """A term -weight * sum_q w_q y_q . log softmax(z_q), with z the logits (N, k) that the problem's method of this name
    returns and y the targets (N, k) of the point set "data", one-hot or probabilities."""

    name: str
    on: str = "data"
    jets: tuple[str, ...] = ("u",)
    weight: float = 1.0


class Box:
    """The box [low_1, high_1] x ... x [low_d, high_d]; its point sets are "interior" and "boundary"."""

    point_sets = ("interior", "boundary")

    def __init__(self, low, high):
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        if self.low.ndim != 1 or self.low.shape != self.high.shape or not (self.low < self.high).all():
            raise UsageError(f"Box({low}, {high}): needs two lists of equal length with low < high in each coordinate")
        self.dim = len(self.low)
        self._faces = np.prod(self.high - self.low) / (self.high - self.low) if self.dim > 1 else np.ones(1)

    def measure(self, on):
        """|Omega| of a point set: volume, or surface (in one dimension the two ends count one each)."""
        return float(np.prod(self.high - self.low)) if on == "interior" else float(2 * self._faces.sum())

    def unit_dim(self, on):
        """Dimension of the unit cube that `place` maps onto the point set."""
        return self.dim

    def place(self, on, unit_NK):
        """Points of the set for points of the unit cube; on the boundary the first coordinate picks the face by area."""
        if on == "interior":
            return self.low + unit_NK * (self.high - self.low)
        edges = np.cumsum(np.repeat(self._faces, 2)) / (2 * self._faces.sum())
        face = np.minimum(np.searchsorted(edges, unit_NK[:, 0], side="right"), 2 * self.dim - 1)
        return self.place_on_face(face, unit_NK[:, 1:])

    def place_on_face(self, face_N, unit_NK):
        """Points on faces 2 i (x_i = low_i) and 2 i + 1 (x_i = high_i)."""
        x_ND = np.empty((len(face_N), self.dim))
        for face in range(2 * self.dim):
            here, axis = face_N == face, face // 2
            rest = [k for k in range(self.dim) if k != axis]
            x_ND[np.ix_(here, rest)] = self.low[rest] + unit_NK[here] * (self.high - self.low)[rest]
            x_ND[here, axis] = (self.low, self.high)[face % 2][axis]
        return x_ND


@dataclass(frozen=True, slots=True)
class DataSet:
    """Inputs x (N, d) and targets y (N, m), float64; `held_out` rows are never trained on."""

    x_ND: np.ndarray
    y_NM: np.ndarray
    held_out_x: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    held_out_y: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))


class Problem:
    """Base class of all problems; the options of a constructor are the keys of the config's [problem] table."""

    domain: Box
    outputs: tuple[str, ...] = ("u",)
    coefficients: dict[str, float] = {}
    """Trainable scalars beside theta, by name, with their initial values."""
    terms: list = []
    data: DataSet | None = None
    """Points with targets for terms on "data"."""

    @property
    def coordinates(self):
        """Names of the coordinates, as jets use them."""
        dim = self.domain.dim
        return ("x", "y", "z")[:dim] if dim <= 3 else tuple(f"x{i + 1}" for i in range(dim))

    def exact(self, x):
        """The solution at x (N, d) as (N,) or (N, m) where it is known."""
        return None

    def metrics(self, x, u, y):
        """{name: values (N,)} at points x (N, d) with network values u (N, m) and the reference y (N, m), held-out or exact.

        Their means over the evaluation set are reported as `name` beside the relative L2 error, over the training data as
        `train_name`.
        """
        return {}

    @property
    def has_exact(self):
        return type(self).exact is not Problem.exact

    @property
    def has_metrics(self):
        return type(self).metrics is not Problem.metrics
