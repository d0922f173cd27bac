"""A domain that is only known by points with weights, e.g. the nodes of a mesh. Local."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from nedhpc.domains.base import Domain
from nedhpc.domains.isolated import isolated
from nedhpc.errors import UsageError

NEAR = 2.0
"""A point is inside if a point of the cloud is nearer than this, in units of their distance."""


class PointCloud(Domain):
    """Points with quadrature weights, by the name of the part that they lie on.

        nedhpc.PointCloud({"interior": (x, w), "boundary": (x_b, w_b, n_b)})

    All points are used in every draw, so that [sampling] sets no number of them.

    Args:
        parts: {name: (points (N, D), weights (N,))}, or with outward unit normals (N, D) as a third
            array. Weights of None give each point the weight 1. One part is "interior".

    Raises:
        UsageError: there is no part "interior", an array has a wrong shape, a weight is not
            positive, or the points do not span all coordinates.
    """

    def __init__(self, parts: Mapping[str, Sequence[ArrayLike | None]]) -> None:
        if "interior" not in parts:
            raise UsageError("PointCloud: needs a part 'interior', e.g. {'interior': (x, w)}")
        dim = np.array(parts["interior"][0], float, ndmin=2).shape[-1]
        self.parts = {}
        for name, arrays in parts.items():
            x_ND, weight_N, n_ND = [*arrays, None, None][:3]
            where = f"PointCloud: the part {name!r}"
            if x_ND is None:
                raise UsageError(f"{where} has no points")
            self.parts[name] = isolated(x_ND, weight_N, dim, where, n_ND)
        every = np.concatenate([part.every_point() for part in self.parts.values()])
        self.low, self.high = every.min(0), every.max(0)
        flat = np.flatnonzero(self.low == self.high)
        if len(flat):
            raise UsageError(
                f"PointCloud: all points have {self.coordinates[flat[0]]} = {self.low[flat[0]]}; "
                "they must span all coordinates"
            )
        self._find_spacing()

    def _find_spacing(self):
        from scipy.spatial import KDTree

        self._tree = KDTree(self.parts["interior"].every_point())
        nearest = self._tree.query(self._tree.data, k=min(2, self._tree.n))[0]
        self._spacing = float(np.median(nearest.reshape(self._tree.n, -1)[:, -1]))

    def inside(self, x_ND: np.ndarray) -> np.ndarray:
        """True if a point of the interior's cloud is near: that is all that is known."""
        return self._tree.query(x_ND)[0] <= NEAR * self._spacing
