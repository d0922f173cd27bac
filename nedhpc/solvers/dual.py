"""The dual (kernel, minSR) form for P > N: x = A^T (A A^T + damping)^-1 b, an N x N problem.

K = A A^T is summed over blocks of columns on rank 0, so that beside N^2 only one block of all ranks' rows is held there. Rows that are
outer products zbar_n h_n^T by layer (and zbar_n for its bias) are not formed: K is the sum over layers of
(zbar_n . zbar_m)(h_n . h_m + 1), at the cost of the layers' widths in the place of P (Novak et al., arXiv:2206.08720). Cholesky of
K + damping for each damping; where that is not positive definite to rounding (always so without damping), the eigenvectors of K
with a cutoff, and info says so.
"""

import numpy as np
import torch

from nedhpc.parallel import broadcast, total, tree_reduce
from nedhpc.solvers.base import Factorisation, SolveInfo

COLUMN_BYTES = 2**28
"""A block of columns of all ranks' rows, on rank 0."""
DUAL_RTOL = 1e-15
"""Eigenvalues of A A^T below this share of the largest are rounding."""
STRIP = 128
"""Columns of A A^T formed at once; what lies above them is its mirror image."""
MAX_REFINEMENTS = 3
NOTE = "A A^T + damping is not positive definite to rounding: eigenvectors with a cutoff instead of Cholesky"


class Dual(Factorisation):
    """K = A A^T on rank 0. Collective on comm. Cost O(N^2 P), by factors O(N^2 sum of widths), and N^3 / 3 for each damping; memory
    3 N^2, what the rows hold and a block of columns."""

    name = "dual"

    def __init__(self, comm, A, b_N, rtol):
        self.comm, self.A, self.b_N = comm, A, b_N
        self.counts = comm.allgather(A.num_rows)
        self.N = sum(self.counts)
        self.cutoff = max(DUAL_RTOL, rtol**2)
        self.spectrum = self.damping = self.L = None
        self.K = torch.zeros(self.N, self.N, dtype=torch.float64, device=A.like.device) if comm.rank == 0 else None
        if A.factored:
            self._add_layers()
        else:
            for block in A.column_blocks(max(1, COLUMN_BYTES // (8 * self.N))):
                block = self._gather(block)
                if block is not None:
                    _add_lower(self.K, block)
        self.b = None if b_N is None else self._gather(b_N.unsqueeze(1))
        if comm.rank == 0:
            for start in range(0, self.N, STRIP):
                stop = start + STRIP
                self.K[start:stop, stop:] = self.K[stop:, start:stop].T
            self.finite = bool(torch.isfinite(self.K.sum()))

    def _add_layers(self):
        layers, point_N = self.A.factors()
        first = sum(self.comm.allgather(len(layers[0][1]))[:self.comm.rank])
        point_N = self._gather((first + point_N).unsqueeze(1))
        for z_bar, h in layers:
            z_bar, h = self._gather(z_bar), self._gather(h)
            if z_bar is not None and z_bar.shape[1]:
                _add_lower(self.K, z_bar, 1 + h @ h.T, point_N.squeeze(1).long())

    def _gather(self, x_NK):
        """All ranks' rows on rank 0, in rank order."""
        if self.comm.size == 1:
            return x_NK.double()
        stacked = tree_reduce(self.comm, x_NK.double().cpu().numpy(), lambda a, b: np.concatenate([a, b]))
        return None if stacked is None else torch.as_tensor(stacked, device=x_NK.device)

    def solve_rows(self, damping=0.0):
        return self._solve(self.b, damping)

    def solve_pulled(self, b_N, damping=0.0):
        return self._solve(self._gather(b_N.unsqueeze(1)), damping)

    def _solve(self, b, damping):
        """x = A^T y, (K + damping) y = b; with b (N, 1) on rank 0. Collective."""
        packed = np.full(self.N + 6, np.nan)
        if self.comm.rank == 0 and self.finite:
            if self._cholesky(damping):
                y = torch.cholesky_solve(b, self.L)
                y += torch.cholesky_solve(b - self.K @ y - damping * y, self.L)
            else:
                y = self._eigen(b, lambda values: 1 / (values + damping))
            left, norm = float((self.K @ y - b).norm()), float(b.norm())
            packed[:self.N] = y.squeeze(1).cpu().numpy()
            packed[self.N:] = [*self._facts(damping), left, left / norm if norm else 0.0]
        broadcast(self.comm, packed)
        return self._primal(packed)

    def solve_params(self, b_P, damping=0.0):
        """By Woodbury x = (b - A^T (K + damping)^-1 A b) / damping, refined while that lowers the residual; by eigenvectors
        x = A^T (K + damping)^+ K^+ A b + the part of b outside the rows' span / damping."""
        b_P = self.A.tensor(b_P)
        by_cholesky = np.zeros(1)
        if self.comm.rank == 0 and self.finite:
            by_cholesky[0] = self._cholesky(damping)
        if not broadcast(self.comm, by_cholesky)[0]:
            return self._solve_params_by_eigenvectors(b_P, damping)
        x, residual, norm = 0, b_P, np.inf
        for _ in range(1 + MAX_REFINEMENTS):
            pulled, info = self.solve_pulled(self.A.matvec(residual), damping)
            trial = x + (residual - pulled) / damping
            left = b_P - damping * trial - self.A.tensor(total(self.comm, self.A.rmatvec(self.A.matvec(trial)).double().cpu().numpy()))
            if float(left.norm()) > 0.5 * norm:  # it has met rounding
                break
            x, residual, norm = trial, left, float(left.norm())
        return x, SolveInfo(self.name, info.effective_rank, info.sigma_max, info.sigma_min, norm, float("nan"), info.note)

    def _solve_params_by_eigenvectors(self, b_P, damping):
        Ab = self._gather(self.A.matvec(b_P).unsqueeze(1))
        packed, inside = np.full((2, self.N + 6), np.nan)
        if self.comm.rank == 0 and self.finite:
            packed[:self.N] = self._eigen(Ab, lambda values: 1 / (values * (values + damping))).squeeze(1).cpu().numpy()
            inside[:self.N] = self._eigen(Ab, lambda values: 1 / values).squeeze(1).cpu().numpy()
            packed[self.N:] = inside[self.N:] = [*self._facts(damping), np.nan, np.nan]
        broadcast(self.comm, packed)
        x, info = self._primal(packed)
        if damping > 0:
            broadcast(self.comm, inside)
            x = x + (b_P - self._primal(inside)[0]) / damping
        return x, info

    def _cholesky(self, damping):
        """Whether K + damping is positive definite to rounding; its factor is then in L. Rank 0 alone."""
        if self.damping != damping:
            self.damping, self.L = damping, None
            if damping == 0:
                return False
            damped = self.K.clone()
            damped.diagonal().add_(damping)
            L, failed = torch.linalg.cholesky_ex(damped)
            pivots = L.diagonal()
            # A pivot at the level of rounding is a zero that rounding made positive.
            if not failed and pivots.min() ** 2 > self.N * np.finfo(float).eps * pivots.max() ** 2:
                self.L = L
        return self.L is not None

    def _eigen(self, b, f):
        """V f(values) V^T b over the eigenvalues of K above the cutoff. Rank 0 alone."""
        if self.spectrum is None:
            values, V = torch.linalg.eigh(self.K)
            self.spectrum = values, V, values > self.cutoff * values[-1]
        values, V, kept = self.spectrum
        return V @ (torch.where(kept, f(values), 0).unsqueeze(1) * (V.T @ b))

    def _facts(self, damping):
        """Effective rank, largest and smallest singular value, whether Cholesky failed. Rank 0 alone."""
        if self.L is not None:
            pivots = self.L.diagonal()
            return [self.N, float(pivots.max()), float(pivots.min()), 0]
        values, _, kept = self.spectrum
        seen = values[kept].sqrt()
        return [int((kept & (values >= damping)).sum()), float(seen[-1]) if len(seen) else 0.0, float(seen[0]) if len(seen) else 0.0,
                float(damping > 0)]

    def _primal(self, packed):
        start = sum(self.counts[:self.comm.rank])
        y = self.A.tensor(packed[start:start + self.A.num_rows])
        x = total(self.comm, self.A.rmatvec(y).double().cpu().numpy())
        rank, sigma_max, sigma_min, failed, left, relative = packed[self.N:]
        note = NOTE if failed == 1 else ""
        return self.A.tensor(x), SolveInfo(self.name, 0 if np.isnan(rank) else int(rank), float(sigma_max), float(sigma_min),
                                           float(left), float(relative), note)


def _add_lower(K, block, G=None, point_N=None):
    """Add block block^T to K, entry (n, m) times G[point_N[n], point_N[m]], by strips of columns down from the diagonal."""
    for start in range(0, len(block), STRIP):
        part = slice(start, start + STRIP)
        lower = K[start:, part]
        if G is None:
            lower.addmm_(block[start:], block[part].T)
        else:
            lower.addcmul_(block[start:] @ block[part].T, G[point_N[start:]][:, point_N[part]])
