"""Damped solves with a symmetric positive semidefinite matrix on one rank. Local.

A solve uses Cholesky, or eigenvectors with a cutoff. This is the common part of `gram` (A^T A) and
`dual` (A A^T). Both square the condition number, so an eigenvalue below EIGEN_RTOL times the
largest is rounding error, i.e. a singular value below 3e-8 times the largest.
"""

from collections.abc import Callable

import numpy as np
import torch

EIGEN_RTOL = 1e-15
"""Eigenvalues below this share of the largest are rounding error."""


class SemidefiniteMatrix:
    """K (n, n) float64, solved for any damping. Factors are computed on demand and kept.

    Cost n^3 / 3 for each new damping, about 9 n^3 once if eigenvectors are needed; memory 3 n^2.

    Args:
        K: the matrix; it is not changed.
        rtol: singular values below rtol times the largest are cut off. They are the square roots
            of K's eigenvalues.
        always_cholesky: try Cholesky without damping too. If False, eigenvectors are used then, and
            the solution has the least norm.
    """

    def __init__(self, K: torch.Tensor, rtol: float, always_cholesky: bool):
        self.K, self.cutoff = K, max(EIGEN_RTOL, rtol**2)
        self.always_cholesky = always_cholesky
        self.finite = bool(torch.isfinite(K.sum()))
        self._damping = self._L = self._spectrum = None

    def cholesky(self, damping: float) -> torch.Tensor | None:
        """L of K + damping = L L^T.

        It is None if K + damping is not positive definite to rounding. It is also None if damping
        is 0 and Cholesky shall not be tried then.
        """
        if self._damping != damping:
            self._damping, self._L = damping, None
            if damping == 0 and not self.always_cholesky:
                return None
            damped = self.K.clone()
            damped.diagonal().add_(damping)
            L, failed = torch.linalg.cholesky_ex(damped)
            pivots = L.diagonal()
            # A pivot at the level of rounding is a zero that rounding errors have made positive.
            eps = np.finfo(float).eps
            if not failed and pivots.min() ** 2 > len(L) * eps * pivots.max() ** 2:
                self._L = L
        return self._L

    def solve(self, b_NK: torch.Tensor, damping: float, refine: bool = False) -> torch.Tensor:
        """Solve (K + damping) x = b by Cholesky, else on the eigenvectors above the cutoff.

        Args:
            b_NK: right-hand sides, (n, k).
            damping: >= 0.
            refine: with Cholesky, refine the solution once.
        """
        L = self.cholesky(damping)
        if L is None:
            return self.apply(lambda values: 1 / (values + damping), b_NK)
        y = torch.cholesky_solve(b_NK, L)
        if refine:
            y += torch.cholesky_solve(b_NK - self.K @ y - damping * y, L)
        return y

    def apply(self, f: Callable[[torch.Tensor], torch.Tensor], b_NK: torch.Tensor) -> torch.Tensor:
        """f(K) b = V f(values) V^T b over the eigenvalues above the cutoff."""
        values, V, kept = self.spectrum()
        return V @ (torch.where(kept, f(values), 0).unsqueeze(1) * (V.T @ b_NK))

    def spectrum(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(values, V, kept): ascending eigenvalues, eigenvectors, and a mask by the cutoff."""
        if self._spectrum is None:
            values, V = torch.linalg.eigh(self.K)
            self._spectrum = values, V, values > self.cutoff * values[-1]
        return self._spectrum

    def facts(self, damping: float, residual: float, projection_error: float) -> list[float]:
        """`base.Facts` of a solve. If Cholesky was used, pivots replace the singular values."""
        L = self.cholesky(damping)
        if L is not None:
            pivots = L.diagonal()
            rank, largest, least, fell_back = len(L), pivots.max(), pivots.min(), 0.0
        else:
            values, _, kept = self.spectrum()
            rank, seen = int((kept & (values >= damping)).sum()), values[kept].sqrt()
            largest, least = (seen[-1], seen[0]) if len(seen) else (0.0, 0.0)
            fell_back = float(damping > 0 or self.always_cholesky)
        return [rank, float(largest), float(least), residual, projection_error, fell_back]
