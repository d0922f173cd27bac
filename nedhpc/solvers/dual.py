"""The dual (kernel, minSR) form for P > N: x = A^T (A A^T + damping)^+ b, an N x N problem.

A A^T is summed over blocks of columns on rank 0, so that beside N^2 only one block of all ranks' rows is held there.
"""

import numpy as np
import torch

from nedhpc.parallel import broadcast, total, tree_reduce
from nedhpc.solvers.base import Factorisation, SolveInfo

COLUMN_BYTES = 2**28
"""A block of columns of all ranks' rows, on rank 0."""
DUAL_RTOL = 1e-15
"""Eigenvalues of A A^T below this share of the largest are rounding."""


class Dual(Factorisation):
    """Eigenvectors of A A^T on rank 0. Collective on comm. Cost O(N^2 P + N^3), memory 3 N^2, what the rows hold and a block of columns."""

    name = "dual"

    def __init__(self, comm, A, b_N, rtol):
        self.comm, self.A, self.b_N = comm, A, b_N
        self.counts = comm.allgather(A.num_rows)
        self.N = sum(self.counts)
        K = None
        for block in A.column_blocks(max(1, COLUMN_BYTES // (8 * self.N))):
            block = self._gather(block)
            if block is not None:
                K = block @ block.T if K is None else K.addmm_(block, block.T)
        b = None if b_N is None else self._gather(b_N.unsqueeze(1))
        if comm.rank == 0:
            self.finite = bool(torch.isfinite(K).all())
            self.values, self.V = torch.linalg.eigh(K if self.finite else torch.zeros_like(K))
            self.values = self.values.clamp(min=0)
            self.kept = self.values > max(DUAL_RTOL, rtol**2) * self.values[-1]
            self.beta = None if b is None else self.V.T @ b.squeeze(1)

    def _gather(self, x_NK):
        """All ranks' rows on rank 0, in rank order."""
        if self.comm.size == 1:
            return x_NK.double()
        stacked = tree_reduce(self.comm, x_NK.double().cpu().numpy(), lambda a, b: np.concatenate([a, b]))
        return None if stacked is None else torch.as_tensor(stacked, device=x_NK.device)

    def solve_rows(self, damping=0.0):
        packed = np.full(self.N + 5, np.nan)
        if self.comm.rank == 0 and self.finite:
            w = torch.where(self.kept, 1 / (self.values + damping), 0) * self.beta
            left = self.values * w - self.beta
            norm = float(self.beta.norm())
            packed[:self.N] = (self.V @ w).cpu().numpy()
            packed[self.N:] = [*self._spectrum(damping), float(left.norm()), float(left.norm()) / norm if norm else 0.0]
        broadcast(self.comm, packed)
        return self._primal(packed)

    def solve_params(self, b_P, damping=0.0):
        """x = A^T (K + damping)^+ K^+ A b + the part of b outside the rows' span / damping."""
        b_P = self.A.tensor(b_P)
        Ab = self._gather(self.A.matvec(b_P).unsqueeze(1))
        packed = np.full(self.N + 5, np.nan)
        if self.comm.rank == 0 and self.finite:
            # Woodbury: (A^T A + d)^-1 = (1 - A^T (K + d)^-1 A) / d; its small difference cancels, so for the span of
            # the rows use the eigenvectors: 1 / (lambda (lambda + d)).
            w = torch.where(self.kept, 1 / (self.values * (self.values + damping)), 0) * (self.V.T @ Ab.squeeze(1))
            packed[:self.N] = (self.V @ w).cpu().numpy()
            packed[self.N:] = [*self._spectrum(damping), 0.0, np.nan]
        broadcast(self.comm, packed)
        x, info = self._primal(packed)
        if damping > 0:
            projected = self._project(b_P)
            x = x + (b_P - projected) / damping
        return x, info

    def _project(self, b_P):
        """b_P on the span of the rows. Collective."""
        Ab = self._gather(self.A.matvec(b_P).unsqueeze(1))
        packed = np.full(self.N + 5, np.nan)
        if self.comm.rank == 0 and self.finite:
            packed[:self.N] = (self.V @ (torch.where(self.kept, 1 / self.values, 0) * (self.V.T @ Ab.squeeze(1)))).cpu().numpy()
            packed[self.N:] = 0
        broadcast(self.comm, packed)
        return self._primal(packed)[0]

    def _spectrum(self, damping):
        seen = self.values[self.kept].sqrt()
        rank = int((self.kept & (self.values >= damping)).sum())
        return [rank, float(seen[-1]) if len(seen) else 0.0, float(seen[0]) if len(seen) else 0.0]

    def _primal(self, packed):
        start = sum(self.counts[:self.comm.rank])
        y = self.A.tensor(packed[start:start + self.A.num_rows])
        x = total(self.comm, self.A.rmatvec(y).double().cpu().numpy())
        rank = 0 if np.isnan(packed[self.N]) else int(packed[self.N])
        info = SolveInfo(self.name, rank, *map(float, packed[self.N + 1:]))
        return self.A.tensor(x), info
