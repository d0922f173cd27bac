"""Matrix-free solves by PETSc's KSP: LSQR on the rows, or conjugate gradients.

LSQR solves for a row right-hand side, conjugate gradients for a parameter right-hand side. Both are
preconditioned by a randomised low-rank approximation of A^T A, the Nystroem one in A Omega. It is
formed from an orthonormal basis Q of A Omega as (Q^T A)^T (Q^T A). This is the same matrix, but A
is not squared first (Frangella, Tropp, Udell, arXiv:2110.02820, section 2; Halko, Martinsson,
Tropp, arXiv:0909.4061, algorithm 5.1).
"""

from dataclasses import dataclass

import numpy as np
import torch

from nedhpc.config import KrylovTable
from nedhpc.parallel.comm import broadcast, total, tree_reduce
from nedhpc.rows.base import RowOperator
from nedhpc.rows.held import dense
from nedhpc.solvers.base import LeastSquares, SolveInfo, to_numpy
from nedhpc.solvers.cost import FORWARD_COPIES, Cost, Size
from nedhpc.solvers.tsqr import local_triangle, merge

SEED = 2110_02820
"""Seed of the random test matrix, the same for every system, rank and number of ranks."""


class ParametersOnRankZero:
    """Where the KSP's parameter vectors live: all P entries on rank 0, none elsewhere."""

    def __init__(self, comm, A):
        self.comm, self.A = comm, A
        self.num_local = A.num_columns if comm.rank == 0 else 0

    def share(self, x):
        """Rank 0's parameter vector on every rank, as a tensor. Collective on comm."""
        x = np.array(x) if self.comm.rank == 0 else np.empty(self.A.num_columns)
        return self.A.tensor(broadcast(self.comm, x))

    def reduce(self, g_P):
        """The sum of g_P over ranks on rank 0, an empty array elsewhere. Collective on comm."""
        g = tree_reduce(self.comm, to_numpy(g_P), np.add)
        return np.zeros(0) if g is None else g


@dataclass(slots=True)
class LowRank:
    """s (r,) on every rank, V (P, r) on rank 0: A^T A is about V diag(s^2) V^T."""

    s: np.ndarray
    V: np.ndarray | None

    def inverse_root(self, damping):
        """The function v -> C^-1/2 v on rank 0, where C is close to A^T A + damping.

        C is s^2 + damping along V and s_min^2 + damping elsewhere (arXiv:2110.02820, eq. 1.3).
        A C^-1/2 has norm one, which PETSc's test |A^T r| < rtol |b| for LSQR needs. With C^-1 the
        condition number would be squared.
        """
        s, V = self.s, self.V
        least = (s[-1] ** 2 if len(s) else 0.0) + damping or 1.0
        change = np.sqrt(least / (s * s + damping)) - 1
        return lambda v: (v + V @ (change * (V.T @ v))) / np.sqrt(least) if len(v) else v


@dataclass(slots=True)
class KrylovState:
    """Rows, their right-hand side, and the preconditioner."""

    A: RowOperator
    b_N: torch.Tensor | None
    finite: bool
    low_rank: LowRank
    parameters: ParametersOnRankZero


class Krylov(LeastSquares):
    """Solves that use the rows A only in products.

    Cost: `rank` products A v and A^T w in init, and one of each in every iteration of a solve;
    memory: `rank` vectors of length P and of length N_local. If the iterations do not suffice, the
    solution is the last iterate and the info says so.
    """

    name = "krylov"

    def __init__(self, comm, rtol, settings=None):
        super().__init__(comm, rtol, settings or KrylovTable())

    @classmethod
    def cost(cls, size: Size) -> Cost:
        N, P = size.local_rows, size.num_parameters
        columns = 8 * 3 * min(size.rank, P) * (N + P)
        rows = 2 * size.held_bytes or FORWARD_COPIES * size.jet_bytes
        return Cost(
            rows + columns + size.other_bytes,
            8 * N * P * (size.rank + size.max_iterations),
        )

    def init(self, A: RowOperator, b_N: torch.Tensor | None) -> KrylovState:
        parameters = ParametersOnRankZero(self.comm, A)
        Y = self._image(A)
        vectors = [Y] if b_N is None else [Y, b_N]
        bad = total(self.comm, [sum(float((~v.isfinite()).sum()) for v in vectors)])[0]
        if bad:
            low_rank = LowRank(np.zeros(0), np.zeros((A.num_columns, 0)))
        else:
            low_rank = self._low_rank(A, Y, parameters)
        return KrylovState(A, b_N, bad == 0, low_rank, parameters)

    def _image(self, A):
        """A Omega, (N, rank), for a random matrix Omega."""
        P = A.num_columns
        rng = np.random.Generator(np.random.Philox(key=SEED))
        columns = [
            A.matvec(A.tensor(rng.standard_normal(P))).double()
            for _ in range(min(self.settings.rank, P))
        ]
        return torch.stack(columns, 1)

    def _low_rank(self, A, Y, parameters):
        """Approximate leading singular values and right singular vectors of A: those of Q^T A."""
        for _ in range(2):  # once is not enough if A Omega is singular to rounding
            Y = self._orthonormal(Y)
        B = [parameters.reduce(A.rmatvec(A.tensor(q))) for q in Y.unbind(1)]
        s, V = np.zeros(Y.shape[1]), None
        if self.comm.rank == 0:
            V, s, _ = np.linalg.svd(np.stack(B, 1), full_matrices=False)
        s = broadcast(self.comm, np.ascontiguousarray(s[: min(len(s), A.num_columns)]))
        return LowRank(s, V)

    def _orthonormal(self, Y):
        """Y R^+ with R^T R = Y^T Y, without the directions that are rounding error."""
        R, size = merge(self.comm, local_triangle(dense(Y))), Y.shape[1]
        W = np.zeros((size, size + 1))
        if self.comm.rank == 0:
            _, s, Vh = np.linalg.svd(R.cpu().numpy(), full_matrices=False)
            kept = s > 1e-14 * s[0] if len(s) and s[0] > 0 else s > np.inf
            W[:, : kept.sum()] = Vh[kept].T / s[kept]
            W[0, -1] = kept.sum()
        broadcast(self.comm, W)
        return Y @ torch.as_tensor(W[:, : int(W[0, -1])], device=Y.device)

    def solve_rows(self, state, damping=0.0):
        """LSQR on the rows [A; sqrt(damping) I] C^-1/2 does not square the condition number."""
        A, parameters, half = state.A, state.parameters, state.low_rank.inverse_root(damping)
        b, N, root = to_numpy(state.b_N), A.num_rows, np.sqrt(damping)
        own = parameters.num_local

        def mult(z):
            v = half(z)
            return np.concatenate([to_numpy(A.matvec(parameters.share(v))), root * v])

        def mult_transpose(w):
            return half(parameters.reduce(A.rmatvec(A.tensor(w[:N]))) + root * w[N:])

        operator = PythonMatrix(self.comm, N + own, own, mult, mult_transpose)
        x, note = self._solve(state, "lsqr", operator, np.concatenate([b, np.zeros(own)]), half)
        square = total(self.comm, [np.sum((to_numpy(A.matvec(x)) - b) ** 2), np.sum(b**2)])
        relative = (square[0] / square[1]) ** 0.5 if square[1] > 0 else 0.0
        return x, self._info(state, damping, square[0] ** 0.5, relative, note)

    def solve_params(self, state, b_P, damping=0.0):
        """Conjugate gradients on C^-1/2 (A^T A + damping) C^-1/2."""
        A, parameters, half = state.A, state.parameters, state.low_rank.inverse_root(damping)
        b, own = to_numpy(A.tensor(b_P)), parameters.num_local

        def mult(z):
            v = half(z)
            return half(parameters.reduce(A.rmatvec(A.matvec(parameters.share(v)))) + damping * v)

        operator = PythonMatrix(self.comm, own, own, mult)
        x, note = self._solve(state, "cg", operator, half(b[:own]), half)
        left = self.pull(A, A.matvec(x)) + damping * to_numpy(x) - b
        return x, self._info(state, damping, np.linalg.norm(left), float("nan"), note)

    def _solve(self, state, kind, operator, rhs, half):
        """(x on every rank, note) of one KSP, which is destroyed before this returns."""
        from nedhpc.parallel.petsc import PETSc

        settings = self.settings
        ksp = PETSc.KSP().create(self.comm)
        z, b = operator.mat.createVecs()
        try:
            b.getArray()[:] = rhs
            ksp.setType(kind)
            ksp.setOperators(operator.mat)
            ksp.setTolerances(rtol=settings.rtol, atol=1e-300, max_it=settings.max_iterations)
            ksp.pc.setType("none")
            ksp.solve(b, z)
            reason, iterations = ksp.getConvergedReason(), ksp.getIterationNumber()
            x = state.parameters.share(half(np.array(z.getArray(readonly=True))))
        finally:
            for petsc_object in (ksp, z, b, operator.mat):
                petsc_object.destroy()
        if not state.finite or reason == PETSc.KSP.ConvergedReason.DIVERGED_NANORINF:
            x = torch.full_like(x, torch.nan)
        note = ""
        if reason == PETSc.KSP.ConvergedReason.DIVERGED_MAX_IT:
            note = (
                f"krylov: {iterations} iterations did not reach solver.krylov.rtol = "
                f"{settings.rtol:g}; use more iterations, a higher rank or more damping"
            )
        return x, note

    def _info(self, state, damping, residual, projection_error, note):
        s = state.low_rank.s
        s = s[s > self.rtol * s[0]] if len(s) else s
        largest, least = (float(s[0]), float(s[-1])) if len(s) else (0.0, 0.0)
        rank = int((s * s >= damping).sum())
        return SolveInfo(
            self.name, rank, largest, least, float(residual), float(projection_error), note
        )


class PythonMatrix:
    """A PETSc Mat from two functions on local arrays."""

    def __init__(self, comm, num_rows, num_columns, mult, mult_transpose=None):
        from nedhpc.parallel.petsc import PETSc

        self._mult, self._mult_transpose = mult, mult_transpose
        sizes = ((num_rows, None), (num_columns, None))
        self.mat = PETSc.Mat().createPython(sizes, self, comm=comm)
        self.mat.setUp()

    def mult(self, mat, x, y):
        y.getArray()[:] = self._mult(np.array(x.getArray(readonly=True)))

    def multTranspose(self, mat, x, y):  # noqa: N802  PETSc's name
        y.getArray()[:] = self._mult_transpose(np.array(x.getArray(readonly=True)))
