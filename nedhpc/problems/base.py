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
    """The box [low_1, high_1] x ... x [low_d, high_d]; its point sets are "interior" and "boundary".

    A point set is a list of faces, each a box [low, high] of its own in which some coordinates are fixed.
    """

    point_sets = ("interior", "boundary")

    def __init__(self, low, high):
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        if (
            self.low.ndim != 1
            or self.low.shape != self.high.shape
            or not (self.low < self.high).all()
        ):
            raise UsageError(
                f"{type(self).__name__}: needs low < high in each coordinate; it got low = {low}, high = {high}"
            )
        self.dim = len(self.low)

    @property
    def coordinates(self):
        """Names of the coordinates, as jets use them."""
        return space_coordinates(self.dim)

    def faces(self, on):
        """[(low, high)] of the faces of a point set."""
        return [(self.low, self.high)] if on == "interior" else self._walls(range(self.dim))

    def _walls(self, axes):
        """The faces x_i = low_i and x_i = high_i of the given axes."""
        return [
            (
                np.where(np.arange(self.dim) == axis, side, self.low),
                np.where(np.arange(self.dim) == axis, side, self.high),
            )
            for axis in axes
            for side in (self.low[axis], self.high[axis])
        ]

    def face_dim(self, on):
        """Dimension of the faces of a point set."""
        low, high = self.faces(on)[0]
        return int((low < high).sum())

    def _areas(self, on):
        """Area of each face; a point counts one."""
        return np.array([np.prod((high - low)[low < high]) for low, high in self.faces(on)])

    def measure(self, on):
        """|Omega| of a point set: volume, or surface (in one dimension the two ends count one each)."""
        return float(self._areas(on).sum())

    def unit_dim(self, on):
        """Dimension of the unit cube that `place` maps onto the point set."""
        return self.face_dim(on) + (len(self.faces(on)) > 1)

    def place(self, on, unit_NK):
        """Points of the set for points of the unit cube; of several faces the first coordinate picks one by area."""
        areas = self._areas(on)
        if len(areas) == 1:
            return self.place_on_face(on, np.zeros(len(unit_NK), int), unit_NK)
        face = np.minimum(
            np.searchsorted(np.cumsum(areas) / areas.sum(), unit_NK[:, 0], side="right"),
            len(areas) - 1,
        )
        return self.place_on_face(on, face, unit_NK[:, 1:])

    def place_on_face(self, on, face_N, unit_NK):
        """Points on the faces of the given numbers."""
        x_ND = np.empty((len(face_N), self.dim))
        for face, (low, high) in enumerate(self.faces(on)):
            here, free = face_N == face, low < high
            x_ND[here] = low
            x_ND[np.ix_(here, free)] += unit_NK[here] * (high - low)[free]
        return x_ND


class SpaceTime(Box):
    """The box [low, high] of space for times [start, end]; the last coordinate is named t.

    Its point sets are "interior", "boundary" (the walls of space at all times) and "initial" (t = start).
    """

    point_sets = ("interior", "boundary", "initial")

    def __init__(self, low, high, end, start=0.0):
        super().__init__([*low, start], [*high, end])

    @property
    def coordinates(self):
        return (*space_coordinates(self.dim - 1), "t")

    def faces(self, on):
        walls = self._walls(range(self.dim))
        return {
            "interior": [(self.low, self.high)],
            "boundary": walls[:-2],
            "initial": walls[-2:-1],
        }[on]


def space_coordinates(dim):
    return ("x", "y", "z")[:dim] if dim <= 3 else tuple(f"x{i + 1}" for i in range(dim))


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
        return self.domain.coordinates

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
