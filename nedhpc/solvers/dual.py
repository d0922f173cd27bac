"""The dual (kernel, minSR) form for P > N: x = A^T (A A^T + damping)^-1 b, an N x N problem.

K = A A^T is summed over blocks of columns on rank 0, so that rank 0 holds N^2 numbers and one block
of all ranks' rows.

Factored rows are sums over layers and channels c of outer products zbar_nc h_nc^T. They need not be
formed: K_nm is the sum over layers and pairs of channels of (zbar_nc . zbar_mc')(h_nc . h_mc'),
which costs the layers' widths instead of P (Novak et al., arXiv:2206.08720, for values). With
derivatives this pays if most rows are values, as on a boundary, and if the layers are wide.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch

from nedhpc.parallel.comm import broadcast, tree_reduce
from nedhpc.rows.base import Factors, RowOperator
from nedhpc.solvers.base import LeastSquares
from nedhpc.solvers.cost import Cost, Size
from nedhpc.solvers.definite import SemidefiniteMatrix

COLUMN_BYTES = 2**28
"""Bytes of a block of columns of all ranks' rows, on rank 0."""
STRIP = 128
"""Number of columns of the lower triangle of A A^T that are formed at once."""
MAX_REFINEMENTS = 3


@dataclass(slots=True)
class DualState:
    """Rows on every rank; K and b on rank 0, None elsewhere."""

    A: RowOperator
    counts: list[int]
    """Number of rows of each rank."""
    K: SemidefiniteMatrix | None
    b_N1: torch.Tensor | None

    @property
    def num_rows(self) -> int:
        return sum(self.counts)


class Dual(LeastSquares):
    """K = A A^T on rank 0.

    Each damping needs a Cholesky factorisation of K + damping. If that is not positive definite to
    rounding, and always without damping, the eigenvectors of K with a cutoff are used. Cost
    O(N^2 P), or O((N C)^2 sum of widths) with factored rows, and N^3 / 3 for each damping; memory
    3 N^2, the rows, and a block of columns.
    """

    name = "dual"
    fallback_note = (
        "A A^T + damping is not positive definite to rounding: eigenvectors with a cutoff instead "
        "of Cholesky"
    )

    @classmethod
    def cost(cls, size: Size) -> Cost:
        N, P = size.num_rows, size.num_parameters
        rows = size.held_bytes or COLUMN_BYTES
        if size.dense_metric:
            # Rows that are not held are formed whole, a chunk at a time, before they change
            # variables.
            rows = max(rows, size.block_bytes)
        return Cost(2 * rows + 8 * 3 * N**2 + size.other_bytes, N**2 * P + 9 * N**3)

    def init(self, A: RowOperator, b_N: torch.Tensor | None) -> DualState:
        counts = self.comm.allgather(A.num_rows)
        terms = A.factors()
        K = self._from_columns(A, sum(counts)) if terms is None else self._from_factors(terms)
        if K is not None:
            K = SemidefiniteMatrix(K, self.rtol, always_cholesky=False)
        return DualState(A, counts, K, None if b_N is None else self._gather(b_N.unsqueeze(1)))

    def _from_columns(self, A, num_rows):
        """K on rank 0 from all ranks' rows, by blocks of columns; None elsewhere."""
        K = None
        if self.comm.rank == 0:
            K = torch.zeros(num_rows, num_rows, dtype=torch.float64, device=A.example.device)
        for block in A.column_blocks(max(1, COLUMN_BYTES // (8 * num_rows))):
            block = self._gather(block)
            if block is not None:
                _add_rows(K, block)
        if K is not None:
            _mirror(K)
        return K

    def _from_factors(self, terms):
        """K on rank 0 from the factors of all ranks' rows; None elsewhere.

        It has a block for each pair of terms. At the end its rows are reordered from the order of
        terms to that of ranks.
        """
        counts = np.array(self.comm.allgather([len(layers[0][0]) for layers in terms]))
        terms = [
            [(self._gather(z_bar), self._gather(h)) for z_bar, h in layers] for layers in terms
        ]
        if self.comm.rank:
            return None
        ends = np.cumsum(counts.sum(0))
        K = terms[0][0][0].new_zeros(ends[-1], ends[-1])
        part = [slice(end - n, end) for end, n in zip(ends, counts.sum(0), strict=True)]
        for a, b in itertools.combinations_with_replacement(range(len(terms)), 2):
            block = K[part[b], part[a]]
            _add_factors(block, terms[b], terms[a], lower=a == b)
            if a == b:
                _mirror(block)
            else:
                K[part[a], part[b]] = block.T
        if self.comm.size > 1:
            rank = np.concatenate([np.repeat(np.arange(self.comm.size), n) for n in counts.T])
            order = torch.as_tensor(np.argsort(rank, kind="stable"), device=K.device)
            K = K[order][:, order]
        return K

    def _gather(self, x_NK):
        """All ranks' rows on rank 0, float64, in rank order; None elsewhere. Collective on comm."""
        if self.comm.size == 1:
            return x_NK.double()
        stacked = tree_reduce(
            self.comm, x_NK.double().cpu().numpy(), lambda a, b: np.concatenate([a, b])
        )
        return None if stacked is None else torch.as_tensor(stacked, device=x_NK.device)

    def solve_rows(self, state, damping=0.0):
        return self._solve(state, state.b_N1, damping)

    def solve_pulled(self, state, b_N, damping=0.0):
        return self._solve(state, self._gather(b_N.unsqueeze(1)), damping)

    def _solve(self, state, b_N1, damping):
        """x = A^T y, where (K + damping) y = b and b is on rank 0."""
        y = facts = None
        if self.comm.rank == 0 and state.K.finite:
            y = state.K.solve(b_N1, damping, refine=True)
            # A x - b = K y - b.
            left, norm = float((state.K.K @ y - b_N1).norm()), float(b_N1.norm())
            facts = state.K.facts(damping, left, left / norm if norm else 0.0)
        return self._primal(state, y, facts)

    def solve_params(self, state, b_P, damping=0.0):
        """x = (b - A^T (K + damping)^-1 A b) / damping, by Woodbury's identity.

        If K + damping has no Cholesky factor, the eigenvectors of K are used instead.
        """
        b_P = state.A.tensor(b_P)
        by_cholesky = np.zeros(1)
        if self.comm.rank == 0 and state.K.finite:
            by_cholesky[0] = state.K.cholesky(damping) is not None
        if not broadcast(self.comm, by_cholesky)[0]:
            return self._solve_params_by_eigenvectors(state, b_P, damping)
        # If damping is small beside K, the difference loses digits by cancellation. Refine as long
        # as that lowers the residual.
        x, residual, norm = 0, b_P, np.inf
        for _ in range(1 + MAX_REFINEMENTS):
            pulled, info = self.solve_pulled(state, state.A.matvec(residual), damping)
            trial = x + (residual - pulled) / damping
            normal = state.A.tensor(self.pull(state.A, state.A.matvec(trial)))
            left = b_P - damping * trial - normal
            if float(left.norm()) > 0.5 * norm:  # only rounding is left
                break
            x, residual, norm = trial, left, float(left.norm())
        return x, replace(info, residual=norm, projection_error=float("nan"))

    def _solve_params_by_eigenvectors(self, state, b_P, damping):
        """x = A^T (K + damping)^+ K^+ A b + b_0 / damping.

        Here b_0 is the part of b outside the rows' span. Without damping it is left out.
        """
        Ab_N1 = self._gather(state.A.matvec(b_P).unsqueeze(1))
        y = inside = facts = None
        if self.comm.rank == 0 and state.K.finite:
            y = state.K.apply(lambda values: 1 / (values * (values + damping)), Ab_N1)
            inside = state.K.apply(lambda values: 1 / values, Ab_N1)
            facts = state.K.facts(damping, np.nan, np.nan)
        x, info = self._primal(state, y, facts)
        if damping > 0:
            x = x + (b_P - self._primal(state, inside, facts)[0]) / damping
        return x, info

    def _primal(self, state, y_N1, facts):
        """(A^T y, info) for rank 0's y; NaN if y is None."""
        y, info = self.share(None if y_N1 is None else y_N1.squeeze(1), facts, state.num_rows)
        start = sum(state.counts[: self.comm.rank])
        own = state.A.tensor(y[start : start + state.A.num_rows])
        return state.A.tensor(self.pull(state.A, own)), info


def _add_rows(K, A):
    """Add A A^T to the lower triangle of K, by strips of columns down from the diagonal."""
    for start in range(0, len(K), STRIP):
        K[start:, start : start + STRIP].addmm_(A[start:], A[start : start + STRIP].T)


def _add_factors(K: torch.Tensor, layers: Factors, other_layers: Factors, lower: bool):
    """Add sum_cc' (z_nc . z'_mc') (h_nc . h'_mc') over layers to K_nm, for two sets of rows.

    If `lower`, the two sets are the same, and only the lower triangle is computed.
    """
    for one, other in zip(layers, other_layers, strict=True):
        for start in range(0, K.shape[1], STRIP):
            below, strip = slice(start if lower else 0, None), slice(start, start + STRIP)
            block = K[below, strip]
            for z, h in zip(*(x[below].unbind(1) for x in one), strict=True):
                for z_strip, h_strip in zip(*(x[strip].unbind(1) for x in other), strict=True):
                    block.addcmul_(z @ z_strip.T, h @ h_strip.T)


def _mirror(K):
    """Copy the lower triangle to the upper."""
    for start in range(0, len(K), STRIP):
        K[start : start + STRIP, start + STRIP :] = K[start + STRIP :, start : start + STRIP].T
