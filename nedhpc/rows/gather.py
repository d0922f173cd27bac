"""One sweep over the chunks of this rank gives energy, gradient, residual and rows. Local.

The rows get the storage mode that fits in memory.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from nedhpc.rows.base import Chunk, RowOperator
from nedhpc.rows.factored import FactoredRows
from nedhpc.rows.held import HeldRows
from nedhpc.rows.streamed import StreamedRows

HOLD_BYTES = 2**29
"""If the rows of a rank are larger than this, they are recomputed chunk by chunk."""


class Sweep(NamedTuple):
    """The results of one sweep."""

    A: RowOperator
    r_N: torch.Tensor | None
    """Scaled residual; None if the last term is a density."""
    E_K: torch.Tensor
    """Energy for each term, float64."""
    g_P: torch.Tensor | int
    """Sum of the chunks' gradients; 0 if no chunk has a gradient seed."""


def gather(
    chunks: Callable[[], Iterable[Chunk]],
    columns: slice,
    num_points: int,
    num_terms: int = 1,
    factored: bool = False,
) -> Sweep:
    """Rows, residual, energy and gradient of all chunks.

    Cost O(N P) for each residual component. Memory: a chunk, and at most about HOLD_BYTES.

    Args:
        chunks: function that returns an iterable over the chunks, at least one; streamed rows call
            it again.
        columns: slice of the parameters (theta, c).
        num_points: number of points of all chunks; there are as many rows, or a multiple.
        num_terms: number of terms.
        factored: keep the rows as outer products; needs all columns.
    """
    store, sums = _Store(columns, num_points, factored), None
    for chunk in chunks():
        if sums is None:
            sums = _Sums(chunk, num_points, num_terms)
        sums.add(chunk)
        store.add(chunk)
    r_N = None if chunk.r is None else sums.r_N[: sums.num_residuals]
    return Sweep(store.rows(chunks, chunk), r_N, sums.E_K, sums.g_P)


class _Sums:
    """Energies, gradient and residual, accumulated chunk by chunk.

    The residual r_N is allocated once at the start, because small tensors kept alive between the
    chunks' large ones would fragment the heap, and the holes would grow with N.
    """

    def __init__(self, chunk, num_points, num_terms):
        theta_P = chunk.lin.theta_P
        self.E_K = torch.zeros(num_terms, dtype=torch.float64, device=theta_P.device)
        self.r_N = theta_P.new_empty(num_points)
        self.num_residuals = self.g_P = 0

    def add(self, chunk):
        self.E_K[chunk.term] += chunk.E
        if chunk.g_seed is not None:
            self.g_P = self.g_P + chunk.pull(chunk.g_seed)
        for r in chunk.r or ():
            end = self.num_residuals + len(r)
            if end > len(self.r_N):  # several components: double the space
                self.r_N = torch.cat([self.r_N, torch.empty_like(self.r_N), torch.empty_like(r)])
            self.r_N[self.num_residuals : end] = r
            self.num_residuals = end


class _Store:
    """The rows, or the chunks that stand for them, until they are larger than HOLD_BYTES."""

    def __init__(self, columns, num_points, factored):
        self.columns, self.factored = columns, factored
        self.row_bytes = 8 * (columns.stop - columns.start)
        self.num_rows = self.bytes = 0
        # If the rows of one component are already too many, none are formed in this sweep.
        too_large = not factored and self.row_bytes * num_points > HOLD_BYTES
        self.held = None if too_large else []

    def add(self, chunk):
        self.num_rows += chunk.num_rows
        self.bytes += chunk.lin.tape_bytes if self.factored else self.row_bytes * chunk.num_rows
        if self.bytes > HOLD_BYTES:
            self.held = None
        if self.held is not None:
            self.held += [chunk] if self.factored else chunk.all_rows(self.columns)

    def rows(self, chunks, chunk):
        layout, held = chunk.lin.network.layout, self.held
        if held is not None and not self.factored:
            return HeldRows(torch.cat(held), self.columns, layout)
        if held is not None:

            def chunks():
                return held

        mode = FactoredRows if self.factored else StreamedRows
        return mode(chunks, self.columns, layout, chunk.lin.theta_P, self.num_rows)
