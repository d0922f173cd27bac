"""Errors of a state against the reference, on points independent of sampling, seed and ranks."""

import numpy as np
import torch
from torch import Tensor

from nedhpc.ansatz import jets
from nedhpc.parallel.comm import agreed, block, total
from nedhpc.plan import Plan
from nedhpc.problems.base import Problem
from nedhpc.problems.data import named_sets
from nedhpc.problems.reference import (
    finite_reference,
    metric_values,
    reference_columns,
    reference_points,
)
from nedhpc.sampling.points import evaluation_points

EVALUATION_CHUNK = 16384
"""Points whose values are computed at once."""


class Evaluation:
    """The relative L2 error and the problem's metrics. Collective on comm.

    Args:
        comm: all ranks; each has a share of the points.
        plan: the plan, of which problem, ansatz and terms are used.
        device: device on which this rank computes.
        dtype: dtype of the points and values.

    Raises:
        UsageError: the problem's `exact` has a wrong shape or is not finite. The error is the same
            on every rank.
    """

    def __init__(self, comm, plan: Plan, device: torch.device, dtype: torch.dtype):
        self.comm, self.plan, self.pieces = comm, plan, plan.pieces
        self._to = {"device": device, "dtype": dtype}
        problem = plan.problem
        names = tuple(problem.outputs)
        self._layout = jets.parse(names, names, problem.coordinates)
        self._columns = list(range(len(names)))
        """Numbers of the outputs that the reference has."""
        self._t = 0.0
        self._points = self._reference(problem, self._t)
        data = named_sets(problem.data).get("data")
        self._training = None if data is None else self._share(data.x_ND, data.y_NM)
        # Logits have no reference to compare them with, but metrics of them have.
        self._has_error = not any(term.kind.needs_targets for term in plan.terms)
        has_solution = problem.has_exact or problem.reference is not None
        self._is_data = not has_solution and self._points is not None

    def u(self, theta_P: Tensor, x_ND: Tensor) -> Tensor:
        """Values (N, M) of the whole solution for the parameters (theta, c). Local."""
        return self._values(self.pieces, theta_P, x_ND)

    def u_now(self, theta_P: Tensor, x_ND: Tensor) -> Tensor:
        """Values (N, M) of the ansatz that is evolved now, without the windows before. Local."""
        with torch.no_grad():
            return self._values(self.plan.ansatz, theta_P, x_ND)

    def _values(self, ansatz, theta_P: Tensor, x_ND: Tensor) -> Tensor:
        theta_P = theta_P[: self.plan.energy.num_network]
        parts = x_ND.split(EVALUATION_CHUNK)
        return torch.cat([ansatz.jets(theta_P, x, self._layout)[:, 0] for x in parts])

    def _compared(self, theta_P: Tensor, x_ND: Tensor) -> Tensor:
        """The outputs that the reference has, (N, K). Local."""
        return self.u(theta_P, x_ND)[:, self._columns]

    @property
    def has_reference(self) -> bool:
        """True if the error can be measured. Local."""
        return self._points is not None and self._has_error

    def at(self, t: float) -> None:
        """Compare with the reference at time t, if the problem marches in time. Collective."""
        problem = self.plan.problem
        if problem.is_march and problem.has_exact and t != self._t:
            self._points, self._t = self._reference(problem, t), t

    def relative_l2(self, theta_P: Tensor) -> float | None:
        """|u - u*| / |u*| over the outputs of the reference; None without one. Collective on comm.

        If u* is zero at all points, it is the root mean square of u.
        """
        if not self.has_reference:
            return None
        x, exact = self._points
        with torch.no_grad():
            difference = self._compared(theta_P, x) - exact if len(x) else exact
        squares = [float(v.double().square().sum()) for v in (difference, exact)]
        error, norm, count = total(self.comm, [*squares, exact.numel()])
        return float(np.sqrt(error / (norm or count)))

    def metrics(self, theta_P: Tensor) -> dict[str, float]:
        """Means of the problem's metrics. Collective on comm.

        Returns:
            {name: mean over the evaluation set, train_name: mean over the training data}.

        Raises:
            UsageError: a metric is not one number for each point. The error is the same on every
                rank.
        """
        found = {}
        for prefix, points in (("", self._points), ("train_", self._training)):
            if points is None or not self.plan.problem.has_metrics:
                continue
            x, y = points
            with torch.no_grad():
                u = self.u(theta_P, x)
                values = agreed(self.comm, metric_values, self.plan.problem, x, u, y)
            sums = total(self.comm, [len(x), *(float(v.double().sum()) for v in values.values())])
            means = (float(s / sums[0]) for s in sums[1:])
            found |= {prefix + name: mean for name, mean in zip(values, means, strict=True)}
        return found

    def by_output(self, theta_P: Tensor) -> dict[str, float]:
        """Errors of each output. Collective on comm; without a reference there are none.

        For data, r2_<output> is 1 - |u - y|^2 / |y - mean y|^2 and rmse_<output> the root mean
        square of u - y, on held-out rows. If the solution is known and has several outputs,
        relative_l2_<output> is |u - u*| / |u* - mean u*|.
        """
        names = [self.plan.problem.outputs[column] for column in self._columns]
        if not self.has_reference or not (self._is_data or len(names) > 1):
            return {}
        x, y = self._points
        with torch.no_grad():
            error = (self._compared(theta_P, x) - y).double() if len(x) else y.double()
        y, M = y.double(), len(names)
        parts = [error.square().sum(0), y.sum(0), y.square().sum(0)]
        num, *sums = total(self.comm, [len(y), *torch.cat(parts).tolist()])
        squares, mean = np.array(sums[:M]), np.array(sums[M : 2 * M]) / num
        about_mean = np.maximum(np.array(sums[2 * M :]) - num * mean**2, np.finfo(float).tiny)
        if self._is_data:
            r2 = dict(zip((f"r2_{name}" for name in names), 1 - squares / about_mean, strict=True))
            rmse = np.sqrt(squares / num)
            found = r2 | dict(zip((f"rmse_{name}" for name in names), rmse, strict=True))
        else:
            errors = np.sqrt(squares / about_mean)
            found = dict(zip((f"relative_l2_{name}" for name in names), errors, strict=True))
        return {name: float(value) for name, value in found.items()}

    def _reference(self, problem: Problem, t: float) -> tuple[Tensor, Tensor] | None:
        """This rank's share of (x, reference), or None. Collective."""
        if problem.has_exact:
            x = torch.as_tensor(evaluation_points(problem.domain))
            x = x[slice(*block(len(x), self.comm.rank, self.comm.size))]
            u = agreed(self.comm, finite_reference, problem, x, t)
            return x.to(**self._to), u.to(**self._to)
        if problem.reference is not None:
            self._columns = reference_columns(problem)
            return self._share(*reference_points(problem))
        data = named_sets(problem.data).get("data")
        if data is not None and data.held_out_y.shape[1] == len(problem.outputs):
            return self._share(data.held_out_x, data.held_out_y)
        return None

    def _share(self, *arrays: np.ndarray) -> tuple[Tensor, ...]:
        part = slice(*block(len(arrays[0]), self.comm.rank, self.comm.size))
        return tuple(torch.as_tensor(array[part]).to(**self._to) for array in arrays)
