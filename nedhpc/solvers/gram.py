"""Gram matrix G = A^T A and Cholesky: fast, at the price of a squared condition number.

Where G + damping is not positive definite to rounding, the solve falls back to the eigenvectors of G with a cutoff, and
its info says so.
"""

import numpy as np
import torch

from nedhpc.parallel.comm import broadcast, total, tree_reduce
from nedhpc.solvers.base import Factorisation, SolveInfo

GRAM_RTOL = 1e-15
"""Eigenvalues of G below this share of the largest are rounding: singular values below 3e-8 cannot be seen."""


class Gram(Factorisation):
    """G summed over ranks and kept on rank 0. Collective on comm. Cost O(N_local P^2 + P^3), memory P^2 and what the rows hold."""

    name = "gram"

    def __init__(self, comm, A, b_N, rtol):
        self.comm, self.A, self.b_N, G = comm, A, b_N, None
        for _, block in A.blocks():
            G = (
                (block.T @ block).double()
                if G is None
                else G.addmm_(block.T.double(), block.double())
            )
        if comm.size > 1:
            G = tree_reduce(comm, G.cpu().numpy(), np.add)
        self.G = torch.as_tensor(G, device=A.like.device) if comm.rank == 0 else None
        self.cutoff = max(GRAM_RTOL, rtol**2)
        self.spectrum = None

    def solve_rows(self, damping=0.0):
        rhs_P = total(self.comm, self.A.rmatvec(self.b_N).double().cpu().numpy())
        x, info = self._solve(rhs_P, damping)
        residual = self.A.matvec(x) - self.b_N
        square = total(
            self.comm,
            [float(residual.double().square().sum()), float(self.b_N.double().square().sum())],
        )
        relative = float(np.sqrt(square[0] / square[1])) if square[1] > 0 else 0.0
        return x, SolveInfo(self.name, *info[:3], float(np.sqrt(square[0])), relative, info[4])

    def solve_params(self, b_P, damping=0.0):
        x, info = self._solve(
            np.asarray(b_P.double().cpu().numpy() if torch.is_tensor(b_P) else b_P), damping
        )
        return x, SolveInfo(self.name, *info[:4], float("nan"), info[4])

    def _solve(self, rhs_P, damping):
        P = len(rhs_P)
        packed = np.full(P + 5, np.nan)
        if self.comm.rank == 0 and bool(torch.isfinite(self.G).all()):
            rhs = torch.as_tensor(rhs_P, device=self.G.device)
            damped = self.G + damping * torch.eye(P, dtype=self.G.dtype, device=self.G.device)
            L, failed = torch.linalg.cholesky_ex(damped)
            pivots = L.diagonal()
            # A pivot at the level of rounding is a zero that rounding made positive.
            if not failed and pivots.min() ** 2 > P * np.finfo(float).eps * pivots.max() ** 2:
                x = torch.cholesky_solve(rhs.unsqueeze(1), L).squeeze(1)
                info = [P, float(pivots.max()), float(pivots.min()), 0]
            else:
                if self.spectrum is None:
                    self.spectrum = torch.linalg.eigh(self.G)
                values, V = self.spectrum
                kept = values > self.cutoff * values[-1]
                x = V @ (torch.where(kept, 1 / (values + damping), 0) * (V.T @ rhs))
                seen = values[kept].sqrt()
                info = [
                    int(kept.sum()),
                    float(seen[-1]) if len(seen) else 0,
                    float(seen[0]) if len(seen) else 0,
                    1,
                ]
            packed[:P] = x.cpu().numpy()
            packed[P:] = [*info[:3], float((damped @ x - rhs).norm()), info[3]]
        broadcast(self.comm, packed)
        note = (
            "G is not positive definite to rounding: eigenvectors with a cutoff instead of Cholesky"
            if packed[-1] == 1
            else ""
        )
        rank = 0 if np.isnan(packed[P]) else int(packed[P])
        x = self.A.tensor(packed[:P])
        return x, (rank, float(packed[P + 1]), float(packed[P + 2]), float(packed[P + 3]), note)
