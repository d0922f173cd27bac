"""Rows of a multilayer perceptron as sums of outer products by layer."""

import torch

from nedhpc.rows.base import Factors
from nedhpc.rows.streamed import StreamedRows


class FactoredRows(StreamedRows):
    """Streamed rows that `factors` also gives as sums of outer products, without forming them.

    `chunks` may yield chunks that are held.
    """

    def factors(self) -> list[Factors]:
        """`Chunk.factors` of all rows for each term. It costs one reverse sweep."""
        by_term = {}
        for chunk in self.chunks():
            by_term.setdefault(chunk.term, []).append(chunk.factors())
        return [
            [tuple(map(torch.cat, zip(*layer, strict=True))) for layer in zip(*parts, strict=True)]
            for parts in by_term.values()
        ]
