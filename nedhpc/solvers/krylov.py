"""Matrix-free: LSQR on the rows and conjugate gradients for a parameter right-hand side, by PETSc's KSP.

Both are preconditioned by a randomised low-rank approximation of A^T A, the Nystroem one in A Omega, formed from an orthonormal
basis Q of A Omega as (Q^T A)^T (Q^T A): the same matrix, without squaring A first (Frangella, Tropp, Udell, arXiv:2110.02820, section 2;
Halko, Martinsson, Tropp, arXiv:0909.4061, algorithm 5.1). Parameter vectors lie on rank 0, row vectors where their rows are.
"""

import numpy as np
import torch
from petsc4py import PETSc

from nedhpc.config import KrylovTable
from nedhpc.parallel.comm import broadcast, total, tree_reduce
from nedhpc.rows.tangent import dense
from nedhpc.solvers.base import Factorisation, SolveInfo
from nedhpc.solvers.tsqr import local_triangle, merge

SEED = 2110_02820
"""Of the random test matrix, the same for every system, rank and number of ranks."""


class Krylov(Factorisation):
    """Rows A known by products alone. Collective on comm.

    Cost of `rank` products A v and A^T w here, and of an A v and an A^T w an iteration of a solve; memory of `rank` columns, P and
    N_local long. Where the iterations do not suffice the solution is the last one, and the info says so.
    """

    name = "krylov"

    def __init__(self, comm, A, b_N, rtol, settings=KrylovTable()):
        self.comm, self.A, self.b_N, self.rtol, self.settings = comm, A, b_N, rtol, settings
        self.P = A.num_columns
        self.s, self.V = self._low_rank(min(settings.rank, self.P))

    def solve_rows(self, damping=0.0):
        b, N, root, half = (
            self._numpy(self.b_N),
            self.A.num_rows,
            np.sqrt(damping),
            self._half(damping),
        )

        def mult(z):
            v = half(z)
            return np.concatenate([self._numpy(self.A.matvec(self._share(v))), root * v])

        def mult_transpose(w):
            return half(self._reduce(self.A.rmatvec(self.A.tensor(w[:N]))) + root * w[N:])

        own = self._local(self.P)
        x, note = self._solve(
            "lsqr",
            _Operator(self.comm, N + own, own, mult, mult_transpose),
            np.concatenate([b, np.zeros(own)]),
            half,
        )
        square = total(self.comm, [np.sum((self._numpy(self.A.matvec(x)) - b) ** 2), np.sum(b**2)])
        return x, self._info(
            damping,
            square[0] ** 0.5,
            (square[0] / square[1]) ** 0.5 if square[1] > 0 else 0.0,
            note,
        )

    def solve_params(self, b_P, damping=0.0):
        b, half, own = self._numpy(self.A.tensor(b_P)), self._half(damping), self._local(self.P)

        def mult(z):
            v = half(z)
            return half(self._reduce(self.A.rmatvec(self.A.matvec(self._share(v)))) + damping * v)

        x, note = self._solve("cg", _Operator(self.comm, own, own, mult), half(b[:own]), half)
        normal = (
            total(self.comm, self._numpy(self.A.rmatvec(self.A.matvec(x))))
            + damping * self._numpy(x)
            - b
        )
        return x, self._info(damping, float(np.linalg.norm(normal)), float("nan"), note)

    def _half(self, damping):
        """v -> C^-1/2 v on rank 0, C close to A^T A + damping: (s^2 + damping) along V, (s_min^2 + damping) elsewhere
        (arXiv:2110.02820, equation 1.3).

        A C^-1/2 has norm one, as PETSc's test |A^T r| < rtol |b| for LSQR asks; C^-1 itself would have the condition number squared.
        """
        s, V = self.s, self.V
        least = (s[-1] ** 2 if len(s) else 0.0) + damping or 1.0
        change = np.sqrt(least / (s * s + damping)) - 1
        return lambda v: (v + V @ (change * (V.T @ v))) / np.sqrt(least) if len(v) else v

    def _solve(self, kind, operator, rhs, half):
        """(x on every rank, note) of one KSP, which lives no longer than this call."""
        ksp = PETSc.KSP().create(self.comm)
        z, b = operator.mat.createVecs()
        try:
            b.getArray()[:] = rhs
            ksp.setType(kind)
            ksp.setOperators(operator.mat)
            ksp.setTolerances(
                rtol=self.settings.rtol, atol=1e-300, max_it=self.settings.max_iterations
            )
            ksp.pc.setType("none")
            ksp.solve(b, z)
            reason, iterations = ksp.getConvergedReason(), ksp.getIterationNumber()
            solution = self._share(half(np.array(z.getArray(readonly=True))))
        finally:
            for thing in (ksp, z, b, operator.mat):
                thing.destroy()
        if not self.finite or reason == PETSc.KSP.ConvergedReason.DIVERGED_NANORINF:
            solution = torch.full_like(solution, torch.nan)
        note = ""
        if reason == PETSc.KSP.ConvergedReason.DIVERGED_MAX_IT:
            note = f"krylov: {iterations} iterations did not reach solver.krylov.rtol = {self.settings.rtol:g}; more iterations, a higher rank or more damping"
        return solution, note

    def _low_rank(self, rank):
        """Leading singular values and right singular vectors of A, approximately: those of Q^T A on rank 0, None elsewhere."""
        rng = np.random.Generator(np.random.Philox(key=SEED))
        Y = torch.stack(
            [
                self.A.matvec(self.A.tensor(rng.standard_normal(self.P))).double()
                for _ in range(rank)
            ],
            1,
        )
        bad = float((~torch.isfinite(Y)).sum()) + (
            0.0 if self.b_N is None else float((~torch.isfinite(self.b_N)).sum())
        )
        self.finite = total(self.comm, [bad])[0] == 0
        if not self.finite:
            return np.zeros(0), np.zeros((self.P, 0))
        for _ in range(2):  # the second time for orthogonality: A Omega may be singular to rounding
            Y = self._orthonormal(Y)
        B = [self._reduce(self.A.rmatvec(self.A.tensor(q))) for q in Y.unbind(1)]
        s = np.zeros(Y.shape[1])
        V = None
        if self.comm.rank == 0:
            V, s, _ = np.linalg.svd(np.stack(B, 1), full_matrices=False)
        s = broadcast(self.comm, np.ascontiguousarray(s[: min(len(s), self.P)]))
        return s, V

    def _orthonormal(self, Y):
        """Y R^+ with R^T R = Y^T Y, less the directions that are rounding."""
        R, size = merge(self.comm, local_triangle(dense(Y))), Y.shape[1]
        W = np.zeros((size, size + 1))
        if self.comm.rank == 0:
            _, s, Vh = np.linalg.svd(R.cpu().numpy(), full_matrices=False)
            kept = s > 1e-14 * s[0] if len(s) and s[0] > 0 else s > np.inf
            W[:, : kept.sum()] = Vh[kept].T / s[kept]
            W[0, -1] = kept.sum()
        broadcast(self.comm, W)
        return Y @ torch.as_tensor(W[:, : int(W[0, -1])], device=Y.device)

    def _info(self, damping, residual, projection_error, note):
        s = self.s[self.s > self.rtol * self.s[0]] if len(self.s) else self.s
        rank = int((s * s >= damping).sum())
        return SolveInfo(
            self.name,
            rank,
            float(s[0]) if len(s) else 0.0,
            float(s[-1]) if len(s) else 0.0,
            float(residual),
            float(projection_error),
            note,
        )

    def _local(self, n):
        return n if self.comm.rank == 0 else 0

    @staticmethod
    def _numpy(tensor):
        return tensor.double().cpu().numpy()

    def _share(self, x):
        """Rank 0's parameter vector on every rank."""
        return self.A.tensor(
            broadcast(self.comm, np.array(x) if self.comm.rank == 0 else np.empty(self.P))
        )

    def _reduce(self, g_P):
        """The sum over ranks on rank 0, nothing elsewhere."""
        g = tree_reduce(self.comm, self._numpy(g_P), np.add)
        return np.zeros(0) if g is None else g


class _Operator:
    """A PETSc Mat from two functions on local arrays."""

    def __init__(self, comm, num_rows, num_columns, mult, mult_transpose=None):
        self._mult, self._mult_transpose = mult, mult_transpose
        self.mat = PETSc.Mat().createPython(
            ((num_rows, None), (num_columns, None)), self, comm=comm
        )
        self.mat.setUp()

    def mult(self, mat, x, y):
        y.getArray()[:] = self._mult(np.array(x.getArray(readonly=True)))

    def multTranspose(self, mat, x, y):
        y.getArray()[:] = self._mult_transpose(np.array(x.getArray(readonly=True)))
