"""Energy x metric -> the parameter ODE M(theta) theta_dot = -g(theta), on a sample frozen within a step.

Metric rows B with M = B^T B + eps I: `l2` sqrt(w) du/dtheta (arXiv:2302.10424), `h1` adds the gradient of u, `energy` B = A (the
energy's own scaled rows), `euclidean` M = I. Collectives: all methods of Flow are collective on its comm.
"""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from nedhpc.ansatz import jets
from nedhpc.errors import NonFiniteError
from nedhpc.parallel.comm import broadcast, total
from nedhpc.parallel.phases import Phases
from nedhpc.solvers import SOLVERS
from nedhpc.solvers.tsqr import local_triangle, merge


@dataclass(slots=True)
class Linearised:
    """The damped Gauss-Newton system at theta in the variables y = R_M theta, in which the metric is the identity."""

    theta_P: torch.Tensor
    rows: object
    factorisation: object
    R_M: torch.Tensor | None
    energy: float
    E_K: np.ndarray = field(repr=False)
    A_start: torch.Tensor | None = None
    """A times the direction that descent starts from, where it is not zero."""


class Flow:
    """The descent flow of `energy` in `metric`; set `.sample` before use and only between steps."""

    def __init__(self, comm, energy, metric, metric_eps, solver, rtol, krylov, factored):
        self.comm, self.energy, self.metric, self.eps = comm, energy, metric, metric_eps
        self.solver, self.rtol = SOLVERS.get(solver), rtol
        if solver == "krylov":
            self.solver = partial(self.solver, settings=krylov)
        self.factored = factored
        """The solver, `dual` in metric euclidean, takes rows by their factors."""
        self.sample = None
        self.phases = Phases()
        problem = energy.problem
        sets = dict.fromkeys(term.on for term in problem.terms if term.on in ("interior", "data"))
        names = tuple(problem.outputs) + (
            tuple(f"grad_{u}" for u in problem.outputs) if metric == "h1" else ()
        )
        self.metric_layouts = {
            on: jets.parse(names, problem.outputs, problem.coordinates) for on in sets
        }
        self.rows_are_metric = metric == "energy" or metric == "l2" and is_misfit(energy)

    def energies(self, theta_P):
        """Energy by term (K,), numpy, the same on every rank."""
        return self.evaluate(theta_P)[0]

    def evaluate(self, theta_P, base_P=None):
        """(E_K, r_N): energy by term as `energies`, and this rank's scaled residual seen from base_P (None for a density)."""
        with self.phases("energy"):
            E_K, r_N = self.energy.evaluate(theta_P, self.sample, base_P)
            return total(self.comm, E_K.cpu().numpy()), r_N

    def gradient(self, theta_P):
        """(g_P, E_K) summed over ranks."""
        with self.phases("rows"):
            g_P, E_K = self.energy.gradient(theta_P, self.sample)
            both = total(self.comm, torch.cat([g_P.double(), E_K]).cpu().numpy())
        return self._like(both[: len(g_P)], theta_P), both[len(g_P) :]

    def velocity(self, theta_P):
        """theta_dot = -M^+ g, and the solver's info (None in metric euclidean).

        Where the descent direction is known point by point (rows of the energy are rows of the metric) it is the least-squares
        solution argmin |A theta_dot + r|^2 + eps |theta_dot|^2, at full accuracy.
        """
        if self.metric == "euclidean":
            g_P, E_K = self.gradient(theta_P)
            self._check(E_K, "the energy or its gradient")
            return -g_P, None
        if self.rows_are_metric and self.energy.has_row_residual:
            rows = self._rows(theta_P)
            with self.phases("solve"):
                solution = self.solver(self.comm, rows.A, -rows.r_N, self.rtol).solve_rows(self.eps)
            return self._checked(*solution)
        g_P, _ = self.gradient(theta_P)
        B = self._metric_rows(theta_P)
        with self.phases("solve"):
            solution = self.solver(self.comm, B, None, self.rtol).solve_params(-g_P, self.eps)
        return self._checked(*solution)

    def _checked(self, theta_dot, info):
        self._check(theta_dot.sum().item(), "theta_dot")
        return theta_dot, info

    @staticmethod
    def _check(values, what):
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"{what} is not finite; the likely cause is a time step dt beyond the flow's stability limit, or a "
                "problem function that divides by zero or takes a root or log of a negative number"
            )

    def linearise(self, theta_P, start_P=None):
        """Factorise the Gauss-Newton system of a step at theta, of the departure from a direction start_P."""
        rows = self._rows(theta_P)
        E_K = total(self.comm, rows.E_K.cpu().numpy())
        self._check(E_K, "the energy")
        A, R_M = rows.A, None
        if self.metric != "euclidean":
            B = A if self.metric == "energy" else self._metric_rows(theta_P)
            with self.phases("solve"):
                R_M = self._metric_triangle(B)
                A = A.in_metric(R_M)
        A_start = None if start_P is None else rows.A.matvec(start_P)
        b_N = None if rows.r_N is None else -rows.r_N if start_P is None else -rows.r_N - A_start
        with self.phases("solve"):
            factorisation = self.solver(self.comm, A, b_N, self.rtol)
        return Linearised(theta_P, rows, factorisation, R_M, float(E_K.sum()), E_K, A_start)

    def implicit(self, theta_P, theta_dot_P):
        """F = M(theta) theta_dot + g(theta), (P,), the same on every rank; not finite where the energy is not. Cost O(N P)."""
        with self.phases("rows"):
            g_P, _ = self.energy.gradient(theta_P, self.sample)
        if self.metric == "euclidean":
            return theta_dot_P + self._sum(g_P)
        B = self._metric_rows(theta_P)
        with self.phases("rows"):
            return self.eps * theta_dot_P + self._sum(g_P + B.rmatvec(B.matvec(theta_dot_P)))

    def jacobian(self, system, shift, x_P):
        """(shift M + A^T A) x, the Gauss-Newton Jacobian of `implicit`: it leaves out d(M theta_dot)/dtheta and r d2r/dtheta2."""
        A = system.rows.A
        with self.phases("solve"):
            M_x = x_P if system.R_M is None else system.R_M.T @ (system.R_M @ x_P)
            return shift * M_x + self._sum(A.rmatvec(A.matvec(x_P)))

    def solve_jacobian(self, system, shift, b_P):
        """(shift M + A^T A)^-1 b, and the solver's info."""
        with self.phases("solve"):
            y, info = system.factorisation.solve_params(self._to_y(system, b_P), shift)
            return self._to_theta(system, y), info

    def descent(self, system, damping):
        """delta with (A^T A + damping M) delta = -g (- A^T A start), its norm in M, and info."""
        with self.phases("solve"):
            if system.rows.r_N is not None:
                y, info = system.factorisation.solve_rows(damping)
            else:
                g_P = (
                    system.rows.g_P
                    if system.A_start is None
                    else system.rows.g_P + system.rows.A.rmatvec(system.A_start)
                )
                y, info = system.factorisation.solve_params(
                    -self._to_y(system, self._sum(g_P)), damping
                )
            return self._to_theta(system, y), float(y.norm()), info

    @staticmethod
    def norm(system, v_P):
        """|v| in M."""
        return float((v_P if system.R_M is None else system.R_M @ v_P).norm())

    def line(self, system, delta_P):
        """What `correction` compares with: the residual r + A delta on the tangent space, of a density the gradient g + A^T A delta."""
        rows = system.rows
        A_delta = rows.A.matvec(delta_P)
        return (
            self._sum(rows.g_P + rows.A.rmatvec(A_delta))
            if rows.r_N is None
            else rows.r_N + A_delta
        )

    def correction(self, system, theta_P, r_N, line, damping):
        """c = -(A^T A + damping M)^+ A^T (r(theta) - line), and |c| in M: what brings the step to theta back to the line."""
        g_P = self.gradient(theta_P)[0] if r_N is None else None
        with self.phases("solve"):
            if r_N is None:
                y, _ = system.factorisation.solve_params(self._to_y(system, line - g_P), damping)
            else:
                y, _ = system.factorisation.solve_pulled(line - r_N, damping)
            return self._to_theta(system, y), float(y.norm())

    def _rows(self, theta_P):
        with self.phases("rows"):
            return self.energy.rows(theta_P, self.sample, factored=self.factored)

    def _metric_rows(self, theta_P):
        if self.metric == "energy":
            return self._rows(theta_P).A
        with self.phases("rows"):
            return self.energy.metric_rows(theta_P, self.sample, self.metric_layouts)

    def _metric_triangle(self, B):
        """R_M of [B; sqrt(eps) I] on every rank."""
        R = merge(self.comm, local_triangle(B))
        if self.comm.rank == 0:
            R = torch.linalg.qr(
                torch.cat(
                    [
                        R,
                        np.sqrt(self.eps)
                        * torch.eye(B.num_columns, dtype=R.dtype, device=R.device),
                    ]
                ),
                mode="r",
            ).R
        R = np.empty((B.num_columns,) * 2) if R is None else R.double().cpu().numpy()
        return B.tensor(broadcast(self.comm, np.ascontiguousarray(R)))

    @staticmethod
    def _to_theta(system, y):
        return (
            y
            if system.R_M is None
            else torch.linalg.solve_triangular(system.R_M, y.unsqueeze(1), upper=True).squeeze(1)
        )

    @staticmethod
    def _to_y(system, g_P):
        """R_M^-T g: a gradient in the variables y."""
        return (
            g_P
            if system.R_M is None
            else torch.linalg.solve_triangular(system.R_M.T, g_P.unsqueeze(1), upper=False).squeeze(
                1
            )
        )

    def _sum(self, x_P):
        return self._like(total(self.comm, x_P.double().cpu().numpy()), x_P)

    @staticmethod
    def _like(array, tensor):
        return torch.as_tensor(array, dtype=tensor.dtype, device=tensor.device)


def is_misfit(energy):
    """Whether every term's residual is u minus a target on the metric's own points: dr/dj = I on a probe, weight 1.

    Then the L2 descent direction is known point by point. A function of the problem alone, so the same on every rank.
    """
    problem = energy.problem
    if not energy.is_least_squares or problem.coefficients:
        return False
    for term, layout in zip(problem.terms, energy.layouts):
        if term.on not in ("interior", "data") or term.weight != 1 or layout.num_channels != 1:
            return False
        outputs = len(problem.outputs)
        x = torch.as_tensor(
            problem.domain.place(
                "interior", np.random.default_rng(0).random((8, problem.domain.dim))
            )
        )
        j = torch.as_tensor(np.random.default_rng(1).random((8, 1, outputs))).requires_grad_()
        y = torch.zeros(8, outputs, dtype=x.dtype) if term.on == "data" else None
        value = energy._call(term, x, layout.view(j), x.new_zeros(8, 0), y)
        if value.shape[1] != outputs:
            return False
        for i in range(outputs):
            seed = torch.zeros_like(j)
            seed[:, 0, i] = 1
            if not torch.equal(
                torch.autograd.grad(value[:, i].sum(), j, retain_graph=True)[0], seed
            ):
                return False
    return True
