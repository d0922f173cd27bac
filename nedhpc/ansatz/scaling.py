"""Scaled variables: a network sees coordinates and gives outputs of size one. Local.

The network v works on xi = (x - centre) / half, which lies in [-1, 1] for each coordinate, and the
solution is u = offset + size v. Jets, rows and coefficients stay those of u(x), in the user's
units, because the two maps are the first and the last layer of the ansatz.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from nedhpc.ansatz.algebra import Channels
from nedhpc.ansatz.jets import JetLayout
from nedhpc.errors import NotAStateError

NAMES = ("centre", "half", "offset", "size")


@dataclass(frozen=True, eq=False, slots=True)
class Scaling:
    """The affine maps of coordinates and outputs, float64."""

    centre_D: np.ndarray
    half_D: np.ndarray
    """Half the range of each coordinate; 1 for one that is not scaled."""
    offset_M: np.ndarray
    size_M: np.ndarray

    @classmethod
    def identity(cls, dim: int, num_outputs: int) -> Self:
        """The scaling that changes nothing: D = dim, M = num_outputs."""
        return cls(np.zeros(dim), np.ones(dim), np.zeros(num_outputs), np.ones(num_outputs))

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], dim: int, num_outputs: int) -> Self:
        """The scaling that `arrays` returned; the identity if there are none.

        Raises:
            NotAStateError: the arrays, which come from a checkpoint, do not fit.
        """
        if not arrays:
            return cls.identity(dim, num_outputs)
        lengths = dict(zip(NAMES, (dim, dim, num_outputs, num_outputs), strict=True))
        if {name: len(np.atleast_1d(array)) for name, array in arrays.items()} != lengths:
            raise NotAStateError(
                "the checkpoint's scaling does not fit to "
                f"{dim} coordinates and {num_outputs} outputs"
            )
        if not (np.atleast_1d(arrays["half"]) > 0).all():
            raise NotAStateError("the checkpoint's scaling has a range of zero")
        return cls(*(np.atleast_1d(arrays[name]) for name in NAMES))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, as a checkpoint stores them."""
        both = zip(NAMES, (self.centre_D, self.half_D, self.offset_M, self.size_M), strict=True)
        return dict(both)

    @property
    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """(offset_M, size_M)."""
        return self.offset_M, self.size_M

    def outputs(self, offset_M: np.ndarray, size_M: np.ndarray) -> Self:
        """The same coordinates with other offsets and sizes of the outputs."""
        return type(self)(self.centre_D, self.half_D, offset_M, size_M)

    def unit(self, x_ND: np.ndarray) -> np.ndarray:
        """Scaled coordinates of points, (N, D)."""
        return (x_ND - self.centre_D) / self.half_D

    def coordinates(self, x_ND: torch.Tensor, layout: JetLayout) -> Channels:
        """Jets of xi: its value, the constant first derivatives 1 / half_i, and zeros."""
        centre_D, half_D = (_like(x_ND, v) for v in (self.centre_D, self.half_D))
        slopes = torch.diag(1 / half_D)
        first = [slopes[a[0]].unsqueeze(0) if len(a) == 1 else None for a in layout.derivatives[1:]]
        return [(x_ND - centre_D) / half_D, *first, *([None] * len(layout.sums))]

    def sized(self, channels: Channels) -> Channels:
        """Jets of u = offset + size v from those of v."""
        like = channels[0]
        size_M = _like(like, self.size_M)
        value, *derivatives = (None if v is None else v * size_M for v in channels)
        return [value + _like(like, self.offset_M), *derivatives]


def _like(x: torch.Tensor, array: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(array, dtype=x.dtype, device=x.device)
