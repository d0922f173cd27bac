"""Gram matrix G = A^T A and Cholesky: fast, but it squares the condition number.

If G + damping is not positive definite to rounding, the solve falls back to the eigenvectors of G
with a cutoff, and its info says so.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from nedhpc.parallel.comm import total, tree_reduce
from nedhpc.rows.base import RowOperator
from nedhpc.solvers.base import LeastSquares
from nedhpc.solvers.cost import Cost, Size
from nedhpc.solvers.definite import SemidefiniteMatrix


@dataclass(slots=True)
class GramState:
    """Rows, their right-hand side, and G on rank 0 (None elsewhere)."""

    A: RowOperator
    b_N: torch.Tensor | None
    G: SemidefiniteMatrix | None


class Gram(LeastSquares):
    """G summed over ranks and kept on rank 0.

    Cost O(N_local P^2 + P^3); memory 3 P^2 and the rows that are formed at once.
    """

    name = "gram"
    fallback_note = (
        "G is not positive definite to rounding: eigenvectors with a cutoff instead of Cholesky"
    )

    @classmethod
    def cost(cls, size: Size) -> Cost:
        P = size.num_parameters
        return Cost(
            2 * size.block_bytes + 8 * 3 * P**2 + size.other_bytes,
            2 * size.local_rows * P**2 + 22 * P**3,
        )

    def init(self, A: RowOperator, b_N: torch.Tensor | None) -> GramState:
        G = None
        for _, block in A.blocks():
            if G is None:
                G = (block.T @ block).double()
            else:
                G.addmm_(block.T.double(), block.double())
        if self.comm.size > 1:
            G = tree_reduce(self.comm, G.cpu().numpy(), np.add)
        if self.comm.rank:
            return GramState(A, b_N, None)
        G = torch.as_tensor(G, device=A.example.device)
        return GramState(A, b_N, SemidefiniteMatrix(G, self.rtol, always_cholesky=True))

    def solve_rows(self, state, damping=0.0):
        A, b = state.A, state.b_N
        x, info = self.solve_params(state, self.pull(A, b), damping)
        squares = [float(part.double().square().sum()) for part in (A.matvec(x) - b, b)]
        residual, norm = np.sqrt(total(self.comm, squares))
        relative = float(residual / norm) if norm > 0 else 0.0
        return x, replace(info, residual=float(residual), projection_error=relative)

    def solve_params(self, state, b_P, damping=0.0):
        x = facts = None
        if self.comm.rank == 0 and state.G.finite:
            b = torch.as_tensor(b_P, dtype=torch.float64, device=state.G.K.device)
            x = state.G.solve(b.unsqueeze(1), damping).squeeze(1)
            left = state.G.K @ x + damping * x - b
            facts = state.G.facts(damping, float(left.norm()), np.nan)
        x, info = self.share(x, facts, state.A.num_columns)
        return state.A.tensor(x), info
