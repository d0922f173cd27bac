"""Rows in the variables y = R_M theta, in which the metric M = R_M^T R_M is the identity."""

from collections.abc import Iterator

import torch

from nedhpc.rows.base import RowOperator
from nedhpc.rows.held import right_solve


class MetricRows(RowOperator):
    """A R_M^-1 for rows A that are not held. Only products and blocks form anything."""

    def __init__(self, rows: RowOperator, R_M: torch.Tensor):
        self.rows, self.R_M = rows, R_M
        self.columns, self.layout = rows.columns, rows.layout
        self.example, self.num_rows = rows.example, rows.num_rows

    def matvec(self, v_P: torch.Tensor) -> torch.Tensor:
        return self.rows.matvec(_solve(self.R_M, v_P, upper=True))

    def rmatvec(self, w_N: torch.Tensor) -> torch.Tensor:
        return _solve(self.R_M.T, self.rows.rmatvec(w_N), upper=False)

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        for part, A in self.rows.blocks():
            yield part, right_solve(A, self.R_M)

    def column_blocks(self, width: int) -> Iterator[torch.Tensor]:
        """Yields A (R_M^-1)[:, part].

        Each block costs all rows of A, because a column of A R_M^-1 needs all columns of A to its
        left.
        """
        first = self.columns.start
        for part in self.column_parts(width):
            unit = self.R_M.new_zeros(self.num_columns, part.stop - part.start)
            unit[part.start - first : part.stop - first].fill_diagonal_(1)
            inverse = torch.linalg.solve_triangular(self.R_M, unit, upper=True)
            yield torch.cat([A @ inverse for _, A in self.rows.blocks()])

    def in_metric(self, R_M: torch.Tensor) -> "MetricRows":
        return MetricRows(self, R_M)


def _solve(R_PP: torch.Tensor, v_P: torch.Tensor, upper: bool) -> torch.Tensor:
    return torch.linalg.solve_triangular(R_PP, v_P.unsqueeze(1), upper=upper).squeeze(1)
