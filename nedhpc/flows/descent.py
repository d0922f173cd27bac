"""The descent flow M(theta) theta_dot = -g(theta), which energy and metric define.

The sample is fixed within a step.
"""

import numpy as np
import torch

from nedhpc.errors import NonFiniteError
from nedhpc.flows import diagnosis
from nedhpc.flows.energy import Energy, Linear
from nedhpc.flows.integrals import integrated
from nedhpc.flows.metrics import Metric
from nedhpc.flows.system import System, as_tensor, metric_triangle, summed
from nedhpc.parallel.comm import total
from nedhpc.parallel.phases import Phases
from nedhpc.solvers.base import SolveInfo


class Flow:
    """The flow M theta_dot = -g of an energy E with g = dE/dtheta and the metric M = B^T B + eps I.

    Set `sample` before the first use, and change it between steps only. All methods are collective
    on comm.

    Every method takes the time t, because a stepper does not know which kind of flow it steps: an
    evolution equation may depend on t. This flow does not (it is autonomous), so it ignores t.

    Args:
        comm: the communicator of the ranks that share the sample.
        energy: the energy on this rank's share.
        metric: the metric M.
        solver: a solvers.LeastSquares; None if no system is ever solved.
        factored: True if the energy's rows are kept as factors and never formed. Only the solver
            dual in the metric euclidean can do so.
        phases: clock of a run's phases; default: one of its own.
    """

    def __init__(
        self,
        comm,
        energy: Energy,
        metric: Metric,
        solver,
        factored: bool = False,
        phases: Phases | None = None,
    ):
        self.comm, self.energy, self.metric, self.solver = comm, energy, metric, solver
        self.factored = factored
        self.sample = None
        self.phases = Phases() if phases is None else phases

    def energies(self, theta_P: torch.Tensor, t: float) -> np.ndarray:
        """Energy by term, (K,), the same on every rank. Cost O(N P)."""
        return self.evaluate(theta_P, t)[0]

    def evaluate(
        self, theta_P: torch.Tensor, t: float, base: torch.Tensor | None = None
    ) -> tuple[np.ndarray, torch.Tensor | None]:
        """Energy and residual without derivatives. Cost O(N P).

        Args:
            theta_P: parameters, (P,).
            t: ignored.
            base: parameters at which a cross-entropy's rows are linearised, (P,); None: theta_P.

        Returns:
            E_K: energy by term, (K,), the same on every rank.
            r_N: this rank's scaled residual; None if a term is a density.
        """
        with self.phases("energy"):
            energy = self._integrated(theta_P, slopes=False)
            E_K, r_N = energy.evaluate(theta_P, self.sample, base)
            return total(self.comm, E_K.cpu().numpy()), r_N

    def gradient(self, theta_P: torch.Tensor, t: float) -> tuple[torch.Tensor, np.ndarray]:
        """(g_P, E_K): gradient of the energy and energy by term. Cost O(N P).

        Both are the same on every rank.
        """
        with self.phases("rows"):
            g_P, E_K = self._integrated(theta_P).gradient(theta_P, self.sample)
            # One reduction for both, as its latency costs more than its length.
            both = total(self.comm, torch.cat([g_P.double(), E_K]).cpu().numpy())
        return as_tensor(both[: len(g_P)], theta_P), both[len(g_P) :]

    def velocity(self, theta_P: torch.Tensor, t: float) -> tuple[torch.Tensor, SolveInfo | None]:
        """theta_dot = -M^+ g, (P,), and the solver's info, which is None in metric euclidean.

        Args:
            theta_P: parameters, (P,).
            t: ignored.

        Raises:
            NonFiniteError: the energy, its gradient or theta_dot is not finite.
        """
        if self.metric.rows_are_the_energys and self.energy.has_row_residual:
            # Since B = A and g = A^T r, theta_dot = argmin |A theta_dot + r|^2 + eps |theta_dot|^2.
            # A least-squares solver keeps full accuracy here. With g as right-hand side it would
            # see the squared condition number.
            rows = self.rows(theta_P)
            with self.phases("solve"):
                state = self.solver.init(rows.A, -rows.r_N)
                solution = self.solver.solve_rows(state, self.metric.eps)
            return self._finite(theta_P, *solution)
        g_P, E_K = self.gradient(theta_P, t)
        B = self._metric_rows(theta_P)
        if B is None:
            finite = E_K.sum() + float(g_P.sum())
            self._require_finite(theta_P, finite, "the energy or its gradient")
            return -g_P, None
        with self.phases("solve"):
            solution = self.solver.solve_params(self.solver.init(B, None), -g_P, self.metric.eps)
        return self._finite(theta_P, *solution)

    def residual(self, theta_P: torch.Tensor, theta_dot_P: torch.Tensor, t: float) -> torch.Tensor:
        """F = M(theta) theta_dot + g(theta), (P,), the same on every rank. Cost O(N P).

        It is not finite if the energy is not; an implicit time stepper rejects the step then.

        Args:
            theta_P: parameters, (P,).
            theta_dot_P: their time derivative, (P,).
            t: ignored.
        """
        with self.phases("rows"):
            g_P, _ = self._integrated(theta_P).gradient(theta_P, self.sample)
        B = self._metric_rows(theta_P)
        if B is None:
            return theta_dot_P + summed(self.comm, g_P)
        with self.phases("rows"):
            # M is never formed: B theta_dot is local, and B^T B theta_dot is summed together with g
            # in one reduction.
            local = g_P + B.rmatvec(B.matvec(theta_dot_P))
            return self.metric.eps * theta_dot_P + summed(self.comm, local)

    def linearise(
        self, theta_P: torch.Tensor, t: float, start: torch.Tensor | None = None
    ) -> System:
        """The factorised system of an implicit step at theta.

        Its cost is that of the solver's factorisation, e.g. O(N P^2).

        Args:
            theta_P: parameters, (P,).
            t: ignored.
            start: a direction (P,) to which the step is a correction, e.g. a momentum; None: zero.

        Raises:
            NonFiniteError: the energy at theta is not finite.
        """
        rows = self.rows(theta_P)
        E_K = total(self.comm, rows.E_K.cpu().numpy())
        self._require_finite(theta_P, E_K, "the energy or the derivative of a term")
        # In the variables y = R_M theta the metric is the identity (see system.py).
        A, R_M = rows.A, None
        B = self._metric_rows(theta_P, rows.A)
        if B is not None:
            with self.phases("solve"):
                R_M = metric_triangle(self.comm, B, self.metric.eps)
                A = A.in_metric(R_M)
        # The step corrects `start`, so the right-hand side is minus the residual after `start`.
        A_start = None if start is None else rows.A.matvec(start)
        b_N = None if rows.r_N is None else -rows.r_N
        if b_N is not None and start is not None:
            b_N = b_N - A_start
        with self.phases("solve"):
            state = self.solver.init(A, b_N)
        return System(self, theta_P, t, rows, state, R_M, E_K, A_start)

    def rows(self, theta_P: torch.Tensor, columns: slice | None = None) -> Linear:
        """This rank's scaled rows and residual at theta, as Energy.linearise returns them.

        Args:
            theta_P: parameters, (P,).
            columns: slice of the rows' columns; default all.
        """
        with self.phases("rows"):
            energy = self._integrated(theta_P)
            factored = self.factored and columns is None
            return energy.linearise(theta_P, self.sample, columns, factored)

    def _integrated(self, theta_P, slopes=True):
        return integrated(self.comm, self.energy, theta_P, self.sample, slopes)

    def _metric_rows(self, theta_P, A=None):
        if A is None and self.metric.needs_rows:
            A = self.rows(theta_P).A
        with self.phases("rows"):
            return self.metric.rows(theta_P, self.sample, A)

    def non_finite(self, theta_P: torch.Tensor, what: str, step_cause: str) -> NonFiniteError:
        """The error for something that is not finite at theta; it names the term and the point.

        Args:
            theta_P: parameters, (P,).
            what: what is not finite.
            step_cause: how a step may have led to theta; "" if no step did.
        """
        arguments = (self.comm, self.energy, theta_P, self.sample)
        return diagnosis.non_finite(*arguments, what, step_cause)

    def _finite(self, theta_P, theta_dot_P, info):
        self._require_finite(theta_P, theta_dot_P.sum().item(), "theta_dot")
        return theta_dot_P, info

    def _require_finite(self, theta_P, values, what):
        if not np.isfinite(values).all():
            cause = "a time step dt beyond the flow's stability limit"
            raise self.non_finite(theta_P, what, cause)
