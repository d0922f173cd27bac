"""The operator that all rows are, and the linearised chunk that they are computed from. Local."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

Factors = list[tuple[torch.Tensor, torch.Tensor]]
"""(zbar (N, C, H), h (N, C, I)) for each layer; see `Chunk.factors`."""


@dataclass(slots=True)
class Chunk:
    """One term on one chunk of points, linearised.

    Row n of component k is seeds[k][n] contracted with the jets' Jacobian.
    """

    term: int
    """Index of the term."""
    lin: Any
    """The network's linearisation at the chunk's points."""
    seeds: list[tuple[torch.Tensor, torch.Tensor]]
    """Cotangents (j_NCM, c_NQ) of jets and coefficients by component, times sqrt(weight w)."""
    r: list[torch.Tensor] | None = None
    """Scaled residual (N,) for each component; None for a density."""
    E: torch.Tensor | float = 0.0
    """The chunk's part of the term's energy."""
    g_seed: tuple[torch.Tensor, torch.Tensor] | None = None
    """The seed of the gradient of a density, scaled by weight w."""
    slope_IP: torch.Tensor | None = None
    """Derivatives of I integrals, (I, P), the same on every rank; None if there are none.

    The last I columns of the coefficients' seeds belong to the integrals then.
    """

    @property
    def num_rows(self) -> int:
        return len(self.lin.x_ND) * len(self.seeds)

    def component_rows(self, k: int, columns: slice) -> torch.Tensor:
        """Rows of component k for a slice of the columns (theta, c), as (N, number of columns).

        It costs one reverse sweep.
        """
        j_seed, c_seed = self.seeds[k]
        P = self.lin.theta_P.numel()
        A = j_seed.new_empty(len(j_seed), columns.stop - columns.start)
        # The network's columns come first, then the coefficients', whose seeds are the rows
        # themselves.
        network = slice(columns.start, min(columns.stop, P))
        if network.start < network.stop:
            self.lin.rows(j_seed, A[:, : network.stop - network.start], network)
        if columns.stop > P:
            first = max(P, columns.start)
            A[:, first - columns.start :] = c_seed[:, first - P : columns.stop - P]
        if self.slope_IP is not None:
            A.addmm_(c_seed[:, -len(self.slope_IP) :], self.slope_IP[:, columns])
        return A

    def all_rows(self, columns: slice) -> list[torch.Tensor]:
        """`component_rows` of each component."""
        return [self.component_rows(k, columns) for k in range(len(self.seeds))]

    def factors(self) -> Factors:
        """The rows as sums of outer products, sum_c zbar[n, c] h[n, c]^T for each layer.

        The coefficients form a layer which has only a bias, so that h = 1.
        """
        j_seeds, c_seeds = zip(*self.seeds, strict=True)
        c_seed = torch.cat(c_seeds)
        factors = self.lin.factors(torch.stack(j_seeds))
        if c_seed.shape[1]:
            factors = [*factors, (c_seed.unsqueeze(1), c_seed.new_ones(len(c_seed), 1, 1))]
        return factors

    def pull(self, seed: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """sum_n seed[n] . d (jets, c)[n] / d (theta, c), (P,)."""
        j_bar, c_bar = self.lin.vjp(seed[0]), seed[1].sum(0)
        if self.slope_IP is None:
            return torch.cat([j_bar, c_bar])
        own, i_bar = c_bar.tensor_split([-len(self.slope_IP)])
        return torch.cat([j_bar, own]) + i_bar @ self.slope_IP

    def push(self, v_P: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The derivatives along v of the jets, (N, C, M), and of coefficients and integrals."""
        P = self.lin.theta_P.numel()
        c_dot = v_P[P:]
        if self.slope_IP is not None:
            c_dot = torch.cat([c_dot, self.slope_IP @ v_P])
        return self.lin.jvp(v_P[:P]), c_dot


class RowOperator(ABC):
    """Rows A of one rank as a linear operator. Local.

    Attributes:
        columns: slice of the parameters (theta, c) that A's columns stand for.
        layout: the network's parameter blocks, for blocks of columns; None: columns may be split
            anywhere.
        example: a tensor with the dtype and the device of the rows.
        num_rows: number of rows on this rank.
    """

    columns: slice
    layout: Any
    example: torch.Tensor
    num_rows: int

    @property
    def num_columns(self) -> int:
        return self.columns.stop - self.columns.start

    def tensor(self, x: Any) -> torch.Tensor:
        """x with the dtype and on the device of the rows."""
        return torch.as_tensor(x, dtype=self.example.dtype, device=self.example.device)

    @abstractmethod
    def matvec(self, v_P: torch.Tensor) -> torch.Tensor:
        """A v, (N,)."""

    @abstractmethod
    def rmatvec(self, w_N: torch.Tensor) -> torch.Tensor:
        """A^T w for this rank's rows, (P,); a sum over the ranks gives the product of all rows."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yields (slice of rows, these rows of A (n, P)) until all rows are done."""

    @abstractmethod
    def column_blocks(self, width: int) -> Iterator[torch.Tensor]:
        """Yields A[:, part] for the parts of `column_parts`.

        If the rows are not held, each block costs one reverse sweep.
        """

    def factors(self) -> list[Factors] | None:
        """`Chunk.factors` of all rows for each term.

        None if the rows are not kept as outer products.
        """
        return None

    @abstractmethod
    def in_metric(self, R_M: torch.Tensor) -> "RowOperator":
        """The rows A R_M^-1 in the variables y = R_M theta.

        In these variables the metric M = R_M^T R_M is the identity.
        """

    def column_parts(self, width: int) -> Iterator[slice]:
        """Slices of about `width` columns, the same on every rank for any storage modes."""
        return aligned(self.columns, self.layout, width)


def aligned(columns: slice, layout: Any, width: int) -> Iterator[slice]:
    """Split columns into slices of at most `width` columns, or of one output unit if that is wider.

    A weight block is split only between output units, because a reverse sweep yields whole units.

    Args:
        columns: slice of the parameters (theta, c).
        layout: the network's parameter blocks; None: columns may be split anywhere.
        width: largest number of columns.
    """
    if layout is None:
        ends = range(columns.start + 1, columns.stop + 1)
    else:
        ends = [
            end
            for block in layout
            for end in range(block.offset + block.shape[-1], block.end + 1, block.shape[-1])
        ]
        ends += range(layout[-1].end + 1, columns.stop + 1)  # coefficients
    start = last = columns.start
    for end in ends:
        if end - start > width and last > start:
            yield slice(start, last)
            start = last
        last = end
    yield slice(start, last)
