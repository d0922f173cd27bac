"""Rows that are held as a matrix."""

from collections.abc import Iterator
from typing import Any

import torch

from nedhpc.rows.base import RowOperator


class HeldRows(RowOperator):
    """The matrix A_NP. Products cost O(N P); memory 8 N P bytes."""

    def __init__(self, A_NP: torch.Tensor, columns: slice, layout: Any):
        self.A_NP, self.columns, self.layout = A_NP, columns, layout
        self.example, self.num_rows = A_NP, len(A_NP)

    def matvec(self, v_P: torch.Tensor) -> torch.Tensor:
        return self.A_NP @ v_P

    def rmatvec(self, w_N: torch.Tensor) -> torch.Tensor:
        return self.A_NP.T @ w_N

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        yield slice(0, self.num_rows), self.A_NP

    def column_blocks(self, width: int) -> Iterator[torch.Tensor]:
        first = self.columns.start
        for part in self.column_parts(width):
            yield self.A_NP[:, part.start - first : part.stop - first]

    def in_metric(self, R_M: torch.Tensor) -> "HeldRows":
        return HeldRows(right_solve(self.A_NP, R_M), self.columns, self.layout)


def dense(A_NP: torch.Tensor) -> HeldRows:
    """Rows from any matrix (N, P)."""
    return HeldRows(A_NP, slice(0, A_NP.shape[1]), None)


def right_solve(A_NP: torch.Tensor, R_PP: torch.Tensor) -> torch.Tensor:
    """A R^-1 for an upper triangle R. Cost O(N P^2)."""
    return torch.linalg.solve_triangular(R_PP, A_NP, upper=True, left=False)
