"""The linear system (A^T A + damping M) delta = -g of an implicit step at one theta.

It is factorised once for any damping. A are the energy's scaled rows, M = R_M^T R_M is the metric.
In the variables y = R_M theta the metric is the identity and the rows are A R_M^-1. So a solver
only needs to add a multiple of the identity: (R_M^-T A^T A R_M^-1 + damping) y = -R_M^-T g. In the
metric euclidean R_M is None, and y = theta.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from nedhpc.parallel.comm import broadcast, total
from nedhpc.solvers.base import SolveInfo
from nedhpc.solvers.tsqr import local_triangle, merge


@dataclass(slots=True)
class System:
    """The system of `flow` at theta. All methods but `norm` are collective on the flow's comm."""

    flow: object = field(repr=False)
    """The flow, of which comm, phases, solver and gradient(theta, t) are used."""
    theta_P: torch.Tensor
    t: float
    rows: object
    """The energy's rows A and residual r_N (None if a term is a density) at theta."""
    state: object
    """The flow's solver state for the rows A R_M^-1 and their right-hand side."""
    R_M: torch.Tensor | None
    E_K: np.ndarray = field(repr=False)
    A_start: torch.Tensor | None = None
    """The product of A and `start`, (N,), if the step corrects a direction `start`; else None."""

    @property
    def energy(self) -> float:
        """Energy at theta on the flow's sample."""
        return float(self.E_K.sum())

    def descent(self, damping: float) -> tuple[torch.Tensor, float, SolveInfo]:
        """delta with (A^T A + damping M) delta = -g - A^T A start.

        Args:
            damping: 1 / dt for a linearly implicit Euler step.

        Returns:
            delta (P,), its norm in M, and the solver's info.
        """
        solver, rows = self.flow.solver, self.rows
        with self.flow.phases("solve"):
            if rows.r_N is not None:
                # Least squares on the rows: it does not square the condition number.
                y, info = solver.solve_rows(self.state, damping)
            else:
                # A density has no residual by rows; only its gradient is known.
                g_P = rows.g_P
                if self.A_start is not None:
                    g_P = g_P + rows.A.rmatvec(self.A_start)
                y, info = solver.solve_params(self.state, -self._to_y(self._sum(g_P)), damping)
            return self._to_theta(y), float(y.norm()), info

    def norm(self, v_P: torch.Tensor) -> float:
        """|v| in M. Local."""
        return float((v_P if self.R_M is None else self.R_M @ v_P).norm())

    def predicted_residual(self, delta_P: torch.Tensor) -> torch.Tensor:
        """The residual that the linear model predicts after delta: r + A delta, (N,) of this rank.

        For a density, which has no residual by rows, it is the gradient g + A^T A delta, (P,), the
        same on every rank.
        """
        rows = self.rows
        A_delta = rows.A.matvec(delta_P)
        if rows.r_N is None:
            return self._sum(rows.g_P + rows.A.rmatvec(A_delta))
        return rows.r_N + A_delta

    def correction(
        self, theta_P: torch.Tensor, r_N: torch.Tensor | None, predicted, damping: float
    ) -> tuple[torch.Tensor, float]:
        """The simplified Newton step c towards the predicted residual.

        c = -(A^T A + damping M)^+ A^T (r(theta) - predicted).

        Args:
            theta_P: parameters after the step so far, (P,).
            r_N: this rank's residual there; None for a density, whose gradient is then computed.
            predicted: what `predicted_residual` returned.
            damping: that of the step.

        Returns:
            c (P,) and its norm in M.
        """
        flow = self.flow
        g_P = flow.gradient(theta_P, self.t)[0] if r_N is None else None
        with flow.phases("solve"):
            if r_N is None:
                b_P = self._to_y(predicted - g_P)
                y, _ = flow.solver.solve_params(self.state, b_P, damping)
            else:
                y, _ = flow.solver.solve_pulled(self.state, predicted - r_N, damping)
            return self._to_theta(y), float(y.norm())

    def apply(self, shift: float, x_P: torch.Tensor) -> torch.Tensor:
        """(shift M + A^T A) x, (P,).

        The matrix is the Gauss-Newton Jacobian of the flow's residual F = M theta_dot + g. The
        exact Jacobian has two more parts, d(M theta_dot)/dtheta and r d2r/dtheta2.
        """
        A = self.rows.A
        with self.flow.phases("solve"):
            M_x = x_P if self.R_M is None else self.R_M.T @ (self.R_M @ x_P)
            return shift * M_x + self._sum(A.rmatvec(A.matvec(x_P)))

    def solve(self, shift: float, b_P: torch.Tensor) -> tuple[torch.Tensor, SolveInfo]:
        """(shift M + A^T A)^-1 b, (P,), and the solver's info."""
        with self.flow.phases("solve"):
            y, info = self.flow.solver.solve_params(self.state, self._to_y(b_P), shift)
            return self._to_theta(y), info

    def _to_theta(self, y_P):
        """R_M^-1 y: a step in the variables y as a step of theta."""
        if self.R_M is None:
            return y_P
        return torch.linalg.solve_triangular(self.R_M, y_P.unsqueeze(1), upper=True).squeeze(1)

    def _to_y(self, g_P):
        """R_M^-T g: a gradient with respect to theta as one with respect to y."""
        if self.R_M is None:
            return g_P
        return torch.linalg.solve_triangular(self.R_M.T, g_P.unsqueeze(1), upper=False).squeeze(1)

    def _sum(self, x_P):
        return summed(self.flow.comm, x_P)


def summed(comm, x_P: torch.Tensor) -> torch.Tensor:
    """Sum of x over the ranks, with the dtype and device of x. Collective on comm.

    It is computed in float64 and in a fixed order.
    """
    return as_tensor(total(comm, x_P.double().cpu().numpy()), x_P)


def as_tensor(array: np.ndarray, template: torch.Tensor) -> torch.Tensor:
    """The array as a tensor with the dtype and device of `template`. Local."""
    return torch.as_tensor(array, dtype=template.dtype, device=template.device)


def metric_triangle(comm, B, eps: float | np.ndarray) -> torch.Tensor:
    """The upper triangle R_M (P, P) with R_M^T R_M = B^T B + eps I. Collective on comm.

    It is the R of a QR factorisation of [B; sqrt(eps) I], which does not square B's condition
    number as B^T B would. It is the same on every rank. Cost O(N P^2 + P^3).

    Args:
        comm: communicator of the ranks that hold rows.
        B: this rank's rows, a RowOperator.
        eps: Tikhonov parameter; or one for each column, (P,), on the diagonal in the place of I.
    """
    P = B.num_columns
    # Each rank reduces its own rows to a triangle; rank 0 gets the triangle of all.
    R = merge(comm, local_triangle(B))
    if comm.rank == 0:
        R = torch.linalg.qr(torch.cat([R, B.tensor(np.sqrt(eps) * np.eye(P))]), mode="r").R
    R = np.empty((P, P)) if R is None else R.double().cpu().numpy()
    return B.tensor(broadcast(comm, np.ascontiguousarray(R)))
