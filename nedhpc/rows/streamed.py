"""Rows that are recomputed chunk by chunk, so that the number of points does not bound memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from nedhpc.rows.base import Chunk, RowOperator
from nedhpc.rows.metric import MetricRows


class StreamedRows(RowOperator):
    """Rows of the chunks that `chunks()` yields. They need the memory of one chunk only.

    Each product computes them again.

    Args:
        chunks: function that returns an iterable over all chunks of this rank; it is called for
            each product.
        columns, layout, example, num_rows: see `RowOperator`.
    """

    def __init__(
        self,
        chunks: Callable[[], Iterable[Chunk]],
        columns: slice,
        layout: Any,
        example: torch.Tensor,
        num_rows: int,
    ):
        self.chunks, self.columns, self.layout = chunks, columns, layout
        self.example, self.num_rows = example, num_rows

    def matvec(self, v_P: torch.Tensor) -> torch.Tensor:
        """A v by one forward sweep.

        The jets' derivative along v is contracted with the seed of each component.
        """
        Av_N, start = v_P.new_empty(self.num_rows), 0
        for chunk in self.chunks():
            j_dot, c_dot = chunk.push(v_P)
            for j_seed, c_seed in chunk.seeds:
                Av_N[start : start + len(j_seed)] = (j_seed * j_dot).sum((1, 2)) + c_seed @ c_dot
                start += len(j_seed)
        return Av_N

    def rmatvec(self, w_N: torch.Tensor) -> torch.Tensor:
        """A^T w by one reverse sweep, after the components' seeds are summed with weights w."""
        g_P, start = 0, 0
        for chunk in self.chunks():
            j_bar = c_bar = 0
            for j_seed, c_seed in chunk.seeds:
                w = w_N[start : start + len(j_seed), None]
                j_bar, c_bar = j_bar + j_seed * w.unsqueeze(2), c_bar + c_seed * w
                start += len(w)
            g_P = g_P + chunk.pull((j_bar, c_bar))
        return g_P

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        start = 0
        for chunk in self.chunks():
            for k in range(len(chunk.seeds)):
                A = chunk.component_rows(k, self.columns)
                yield slice(start, start + len(A)), A
                start += len(A)

    def column_blocks(self, width: int) -> Iterator[torch.Tensor]:
        for part in self.column_parts(width):
            yield torch.cat([A for chunk in self.chunks() for A in chunk.all_rows(part)])

    def in_metric(self, R_M: torch.Tensor) -> MetricRows:
        return MetricRows(self, R_M)
