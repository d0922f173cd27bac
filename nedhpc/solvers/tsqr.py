"""Tall-skinny QR of all ranks' rows along a binary tree, then one SVD on rank 0.

Each rank reduces its rows to a triangle, and the triangles are merged. If A = Q R = Q U S V^T, then
min |A x - b|^2 + damping |x|^2 has the solution x = V S / (S^2 + damping) U^T Q^T b. The vector b
is an extra column of the rows, which gives Q^T b without Q. So the condition number is never
squared, and x is accurate up to cond(A) = 1 / rtol (Demmel et al., arXiv:0808.2664, section 2).

The SVD serves every damping. The alternative is a QR of [R; sqrt(damping) I] for each of the first
three dampings, and an SVD only after those. It is slower, because a ptc step tries about three
dampings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nedhpc.parallel.comm import tree_reduce
from nedhpc.rows.base import RowOperator
from nedhpc.solvers.base import LeastSquares
from nedhpc.solvers.cost import Cost, Size

if TYPE_CHECKING:  # importing MPI initialises it, and commands that only read need none
    from mpi4py import MPI


def local_triangle(A: RowOperator, b_N: torch.Tensor | None = None) -> torch.Tensor:
    """R of a thin QR of this rank's rows [A, b], (min(N, P + 1), P + 1), block by block.

    Local. Cost O(N P^2).
    """
    R = None
    for part, block in A.blocks():
        rows = block if b_N is None else torch.cat([block, b_N[part].unsqueeze(1)], 1)
        R = _triangle(rows if R is None else torch.cat([R, rows]))
    return R


def merge(comm: MPI.Comm, R: torch.Tensor) -> torch.Tensor | None:
    """R of all ranks' triangles, on rank 0; None elsewhere. Collective on comm.

    Cost O(P^3 log ranks).
    """
    if comm.size == 1:
        return R

    def tensor(x):
        return torch.as_tensor(x, dtype=R.dtype, device=R.device)

    def combine(upper, lower):
        return _triangle(tensor(np.concatenate([upper, lower]))).cpu().numpy()

    merged = tree_reduce(comm, R.cpu().numpy(), combine)
    return None if merged is None else tensor(merged)


def _triangle(rows):
    return torch.linalg.qr(rows, mode="r").R


def _svd(R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U, s, Vh of R.

    If there are fewer rows than columns, R^T is first reduced to a triangle, because LAPACK's own
    reduction was measured to take 1.3 to 1.7 times as long.
    """
    if len(R) >= R.shape[1]:
        return torch.linalg.svd(R, full_matrices=False)
    Q, L = torch.linalg.qr(R.T)
    U, s, Wh = torch.linalg.svd(L.T, full_matrices=False)
    return U, s, Wh @ Q.T


@dataclass(slots=True)
class Spectrum:
    """The SVD of R and b = Q (c, rho), on rank 0. c stands for the part of b in the range of A."""

    R: torch.Tensor
    finite: bool
    """True if no entry of [R, c] is NaN or infinite."""
    U: torch.Tensor
    s: torch.Tensor
    Vh: torch.Tensor
    cutoff: float
    kept: torch.Tensor
    """Mask of the singular values above the cutoff."""
    c: torch.Tensor | None
    beta: torch.Tensor | None
    """U^T c."""
    rho2: float
    """rho^2 = |b|^2 - |c|^2."""


@dataclass(slots=True)
class TsqrState:
    """Rows, and the spectrum on rank 0 (None elsewhere)."""

    A: RowOperator
    spectrum: Spectrum | None


class Tsqr(LeastSquares):
    """SVD of the R factor of all ranks' rows.

    Cost O(N_local P^2 + P^3 (log ranks + SVD)); memory 8 P^2 and the rows that are formed at once.
    """

    name = "tsqr"

    @classmethod
    def cost(cls, size: Size) -> Cost:
        P, N = size.num_parameters, size.local_rows
        rank, local = min(P, size.num_rows), min(P, N)
        # The rows, with b beside them, by columns for LAPACK, and in LAPACK: four copies.
        return Cost(
            4 * size.block_bytes + 8 * 8 * P**2 + size.other_bytes,
            2 * N * P * local + 4 * P * rank**2 + 22 * rank**3,
        )

    def init(self, A: RowOperator, b_N: torch.Tensor | None) -> TsqrState:
        P = A.num_columns
        triangle = merge(self.comm, local_triangle(A, b_N))
        if self.comm.rank:
            return TsqrState(A, None)
        R = triangle[:P, :P]
        # With NaN or infinity LAPACK's SVD would raise an error on rank 0 only. A spectrum of zeros
        # lets all ranks return NaN.
        finite = bool(torch.isfinite(triangle).all())
        U, s, Vh = _svd(R if finite else torch.zeros_like(R))
        cutoff = self.rtol * float(s[0]) if len(s) else 0.0
        c = beta = None
        rho2 = 0.0
        if b_N is not None:
            c = triangle[:P, P]
            beta = U.T @ c
            rho2 = float(triangle[P, P] ** 2) if len(triangle) > P else 0.0
        return TsqrState(A, Spectrum(R, finite, U, s, Vh, cutoff, s > cutoff, c, beta, rho2))

    def solve_rows(self, state, damping=0.0):
        x = facts = None
        if self.comm.rank == 0:
            f = state.spectrum
            # x = V y and A x - b = Q (U S y - c) - (part of b outside the columns' span).
            y = torch.where(f.kept, f.s / (f.s * f.s + damping), 0) * f.beta
            x = f.Vh.T @ y
            residual2 = float((f.U @ (f.s * y) - f.c).square().sum() + f.rho2)
            norm2 = float(f.c.square().sum() + f.rho2)
            relative = (residual2 / norm2) ** 0.5 if norm2 > 0 else residual2
            facts = self._facts(f, damping, residual2**0.5, relative)
        return self._shared(state, x, facts)

    def solve_params(self, state, b_P, damping=0.0):
        """x = (A^T A + damping)^+ b_P, refined once.

        A^T A squares the condition number; the refinement regains most of the lost accuracy.
        """
        x = facts = None
        if self.comm.rank == 0:
            f, b = state.spectrum, state.A.tensor(b_P)

            def left(x):
                return b - f.R.T @ (f.R @ x) - damping * x

            # Corrected semi-normal equations (Bjorck, Linear Algebra Appl. 88, 1987, section 3).
            x = self._normal(f, b, damping)
            x = x + self._normal(f, left(x), damping)
            facts = self._facts(f, damping, float(left(x).norm()), np.nan)
        return self._shared(state, x, facts)

    @staticmethod
    def _normal(f, b, damping):
        """(A^T A + damping)^+ b.

        If damping is above the cutoff, the part of b outside the kept span is divided by it.
        """
        y = f.Vh @ b
        x = f.Vh.T @ (torch.where(f.kept, 1 / (f.s * f.s + damping), 0) * y)
        if damping > f.cutoff**2:
            x = x + (b - f.Vh.T @ torch.where(f.kept, y, 0)) / damping
        return x

    @staticmethod
    def _facts(f, damping, residual, projection_error):
        seen = f.s[f.kept]
        return [
            float((f.kept & (f.s * f.s >= damping)).sum()),
            float(f.s[0]) if len(f.s) else 0.0,
            float(seen[-1]) if len(seen) else 0.0,
            residual,
            projection_error,
            0.0,
        ]

    def _shared(self, state, x, facts):
        if x is not None and not state.spectrum.finite:
            x = torch.full_like(x, torch.nan)
        x, info = self.share(x, facts, state.A.num_columns)
        return state.A.tensor(x), info
