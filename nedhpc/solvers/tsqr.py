"""Tall-skinny QR: each rank's rows to a triangle, triangles merged along a binary tree, one SVD on rank 0.

min |A x - b|^2 + damping |x|^2 with A = Q R = Q U S V^T: b enters as an extra column of the factorised rows, so the
condition number is never squared and x is accurate up to cond(A) = 1 / rtol (Demmel et al., arXiv:0808.2664).
"""

import numpy as np
import torch

from nedhpc.parallel.comm import broadcast, tree_reduce
from nedhpc.solvers.base import Factorisation, SolveInfo


def local_triangle(A, b_N=None):
    """R of a thin QR of this rank's rows [A, b], block by block. Local."""
    R = None
    for part, block in A.blocks():
        rows = block if b_N is None else torch.cat([block, b_N[part].unsqueeze(1)], 1)
        R = _triangle(rows if R is None else torch.cat([R, rows]))
    return R


def merge(comm, R):
    """R of all ranks' triangles, on rank 0; None elsewhere. Collective on comm."""
    if comm.size == 1:
        return R
    like = R
    tensor = lambda x: torch.as_tensor(x, dtype=like.dtype, device=like.device)
    R = tree_reduce(
        comm,
        R.cpu().numpy(),
        lambda upper, lower: _triangle(tensor(np.concatenate([upper, lower]))).cpu().numpy(),
    )
    return None if R is None else tensor(R)


def _triangle(rows):
    return torch.linalg.qr(rows, mode="r").R


class Tsqr(Factorisation):
    """SVD of the R factor of rows A (Tangent), b_N (optional) spread over ranks. Collective on comm.

    Cost O(N_local P^2 + P^3 (log ranks + SVD)); memory P^2 and the rows that the Tangent holds or one block of them.
    """

    name = "tsqr"

    def __init__(self, comm, A, b_N, rtol):
        self.comm, self.A, self.num_parameters, self._tensor = comm, A, A.num_columns, A.tensor
        R = merge(comm, local_triangle(A, b_N))
        if comm.rank == 0:
            P = self.num_parameters
            self.R = R[:P, :P]
            # NaN or infinity: LAPACK's SVD would raise on rank 0 alone; a zero spectrum with NaN right-hand side agrees.
            self.finite = bool(torch.isfinite(R).all())
            safe = self.R if self.finite else torch.zeros_like(self.R)
            self.U, s, self.Vh = torch.linalg.svd(safe, full_matrices=False)
            self.s = s
            self.cutoff = rtol * float(s[0]) if len(s) else 0.0
            self.kept = s > self.cutoff
            if b_N is not None:
                self.c = R[:P, P]
                self.rho2 = float(R[P, P] ** 2) if len(R) > P else 0.0
                self.beta = self.U.T @ self.c

    def solve_rows(self, damping=0.0):
        x = info = None
        if self.comm.rank == 0:
            s = self.s
            y = torch.where(self.kept, s / (s * s + damping), 0) * self.beta
            x = self.Vh.T @ y
            residual = (self.U @ (s * y) - self.c).square().sum() + self.rho2
            norm2 = self.c.square().sum() + self.rho2
            info = self._info(
                damping, residual.sqrt(), (residual / norm2).sqrt() if norm2 > 0 else residual
            )
        return self._share(x, info)

    def solve_params(self, b_P, damping=0.0):
        x = info = None
        if self.comm.rank == 0:
            b = self._tensor(b_P)
            x = self._normal(b, damping)
            # One step of refinement: corrected semi-normal equations (Bjorck 1987).
            x = x + self._normal(b - self.R.T @ (self.R @ x) - damping * x, damping)
            info = self._info(
                damping, (self.R.T @ (self.R @ x) + damping * x - b).norm(), torch.nan
            )
        return self._share(x, info)

    def _normal(self, b, damping):
        """(A^T A + damping)^+ b; a damping above the cutoff also divides the part of b outside the kept span."""
        s, y = self.s, self.Vh @ b
        x = self.Vh.T @ (torch.where(self.kept, 1 / (s * s + damping), 0) * y)
        return (
            x
            if damping <= self.cutoff**2
            else x + (b - self.Vh.T @ torch.where(self.kept, y, 0)) / damping
        )

    def _info(self, damping, residual, projection_error):
        s = self.s
        seen = s[self.kept]
        return [
            float((self.kept & (s * s >= damping)).sum()),
            float(s[0]) if len(s) else 0.0,
            float(seen[-1]) if len(seen) else 0.0,
            float(residual),
            float(projection_error),
        ]

    def _share(self, x, info):
        """Rank 0's solution and info on every rank, one broadcast."""
        P = self.num_parameters
        packed = np.empty(P + 5)
        if self.comm.rank == 0:
            packed[:P] = x.double().cpu().numpy() if self.finite else np.nan
            packed[P:] = info
        broadcast(self.comm, packed)
        return self._tensor(packed[:P]), SolveInfo(
            self.name, int(packed[P]), *map(float, packed[P + 1 :])
        )
