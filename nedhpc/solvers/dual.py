"""The dual (kernel, minSR) form for P > N: x = A^T (A A^T + damping)^-1 b, an N x N problem.

K = A A^T is summed over blocks of columns on rank 0, so that beside N^2 only one block of all ranks' rows is held there. Rows that are
by layer sums over channels of outer products zbar_nc h_nc^T need not be formed: K is the sum over layers and pairs of channels of
(zbar_nc . zbar_mc')(h_nc . h_mc'), at the cost of the layers' widths in the place of P (Novak et al., arXiv:2206.08720, for values;
with derivatives it pays where most rows are values, as on a boundary, and layers are wide). Cholesky of K + damping for each damping;
where that is not positive definite to rounding (always so without damping), the eigenvectors of K with a cutoff, and info says so.
"""

import itertools

import numpy as np
import torch

from nedhpc.parallel.comm import broadcast, total, tree_reduce
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
    """K = A A^T on rank 0. Collective on comm. Cost O(N^2 P), by factors O((N C)^2 sum of widths), and N^3 / 3 for each damping; memory
    3 N^2, what the rows hold and a block of columns."""

    name = "dual"

    def __init__(self, comm, A, b_N, rtol):
        self.comm, self.A, self.b_N = comm, A, b_N
        self.counts = comm.allgather(A.num_rows)
        self.N = sum(self.counts)
        self.cutoff = max(DUAL_RTOL, rtol**2)
        self.spectrum = self.damping = self.L = None
        self.K = (
            torch.zeros(self.N, self.N, dtype=torch.float64, device=A.like.device)
            if comm.rank == 0
            else None
        )
        if A.factored:
            self._sum_by_factors()
        else:
            for block in A.column_blocks(max(1, COLUMN_BYTES // (8 * self.N))):
                block = self._gather(block)
                if block is not None:
                    _add_rows(self.K, block)
            if comm.rank == 0:
                _mirror(self.K)
        if comm.rank == 0:
            self.finite = bool(torch.isfinite(self.K.sum()))
        self.b = None if b_N is None else self._gather(b_N.unsqueeze(1))

    def _sum_by_factors(self):
        """K in blocks of a pair of terms, then from the terms' order of rows to the ranks'."""
        terms = self.A.factors()
        counts = np.array(self.comm.allgather([len(layers[0][0]) for layers in terms]))
        terms = [
            [(self._gather(z_bar), self._gather(h)) for z_bar, h in layers] for layers in terms
        ]
        if self.comm.rank:
            return
        ends = np.cumsum(counts.sum(0))
        part = [slice(end - n, end) for end, n in zip(ends, counts.sum(0))]
        for a, b in itertools.combinations_with_replacement(range(len(terms)), 2):
            block = self.K[part[b], part[a]]
            for one, other in zip(terms[b], terms[a]):
                _add_factors(block, one, other, lower=a == b)
            if a == b:
                _mirror(block)
            else:
                self.K[part[a], part[b]] = block.T
        if self.comm.size > 1:
            rank = np.concatenate([np.repeat(np.arange(self.comm.size), n) for n in counts.T])
            order = torch.as_tensor(np.argsort(rank, kind="stable"), device=self.K.device)
            self.K = self.K[order][:, order]

    def _gather(self, x_NK):
        """All ranks' rows on rank 0, in rank order."""
        if self.comm.size == 1:
            return x_NK.double()
        stacked = tree_reduce(
            self.comm, x_NK.double().cpu().numpy(), lambda a, b: np.concatenate([a, b])
        )
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
            packed[: self.N] = y.squeeze(1).cpu().numpy()
            packed[self.N :] = [*self._facts(damping), left, left / norm if norm else 0.0]
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
            left = (
                b_P
                - damping * trial
                - self.A.tensor(
                    total(self.comm, self.A.rmatvec(self.A.matvec(trial)).double().cpu().numpy())
                )
            )
            if float(left.norm()) > 0.5 * norm:  # it has met rounding
                break
            x, residual, norm = trial, left, float(left.norm())
        return x, SolveInfo(
            self.name,
            info.effective_rank,
            info.sigma_max,
            info.sigma_min,
            norm,
            float("nan"),
            info.note,
        )

    def _solve_params_by_eigenvectors(self, b_P, damping):
        Ab = self._gather(self.A.matvec(b_P).unsqueeze(1))
        packed, inside = np.full((2, self.N + 6), np.nan)
        if self.comm.rank == 0 and self.finite:
            packed[: self.N] = (
                self._eigen(Ab, lambda values: 1 / (values * (values + damping)))
                .squeeze(1)
                .cpu()
                .numpy()
            )
            inside[: self.N] = self._eigen(Ab, lambda values: 1 / values).squeeze(1).cpu().numpy()
            packed[self.N :] = inside[self.N :] = [*self._facts(damping), np.nan, np.nan]
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
        return [
            int((kept & (values >= damping)).sum()),
            float(seen[-1]) if len(seen) else 0.0,
            float(seen[0]) if len(seen) else 0.0,
            float(damping > 0),
        ]

    def _primal(self, packed):
        start = sum(self.counts[: self.comm.rank])
        y = self.A.tensor(packed[start : start + self.A.num_rows])
        x = total(self.comm, self.A.rmatvec(y).double().cpu().numpy())
        rank, sigma_max, sigma_min, failed, left, relative = packed[self.N :]
        note = NOTE if failed == 1 else ""
        return self.A.tensor(x), SolveInfo(
            self.name,
            0 if np.isnan(rank) else int(rank),
            float(sigma_max),
            float(sigma_min),
            float(left),
            float(relative),
            note,
        )


def _add_rows(K, A):
    """Add A A^T to the lower triangle of K, by strips of columns down from the diagonal."""
    for start in range(0, len(K), STRIP):
        K[start:, start : start + STRIP].addmm_(A[start:], A[start : start + STRIP].T)


def _add_factors(K, one, other, lower):
    """Add sum_cc' (z_nc . z'_mc') (h_nc . h'_mc') to K_nm, from (z (N, C, H), h (N, C, I)) of two sets of rows; to its lower
    triangle where they are one set."""
    for start in range(0, K.shape[1], STRIP):
        below, strip = slice(start if lower else 0, None), slice(start, start + STRIP)
        block = K[below, strip]
        for z, h in zip(*(x[below].unbind(1) for x in one)):
            for z_strip, h_strip in zip(*(x[strip].unbind(1) for x in other)):
                block.addcmul_(z @ z_strip.T, h @ h_strip.T)


def _mirror(K):
    """The upper triangle from the lower."""
    for start in range(0, len(K), STRIP):
        K[start : start + STRIP, start + STRIP :] = K[start + STRIP :, start : start + STRIP].T
