"""The solution that a problem knows, and its metrics: called, and checked to fit the points. Local.

Both measure errors, so that a value of the wrong shape or precision would be a wrong figure.
"""

import numpy as np
import torch
from torch import Tensor

from nedhpc.errors import UsageError
from nedhpc.files.tables import bad_name
from nedhpc.problems.base import Problem
from nedhpc.problems.data import named_sets
from nedhpc.problems.dry_run import SUBSETS, probe_points, same_in_subsets
from nedhpc.problems.table import Table
from nedhpc.user_calls import called

TRIED_ROWS = 8
"""Rows of data at which the metrics are tried."""
MOST_POINTS = 100_000
"""Points of a reference table at which the error is measured."""


def exact_values(problem: Problem, x: Tensor, t: float = 0.0) -> Tensor:
    """problem.exact(x), or problem.exact(x, t) if it marches in time, as (N, M).

    Args:
        problem: it has `exact`.
        x: points (N, D), float64.
        t: the time, which is used only if it is no coordinate.

    Raises:
        UsageError: `exact` raises, or does not return one float64 for each point and output.
    """
    outputs = len(problem.outputs)
    times = (torch.full_like(x[:, 0], t),) if problem.is_march else ()
    u = called("`exact`", problem.exact, x, *times)
    shape = _shape(u)
    if shape not in ((len(x), outputs), *([(len(x),)] if outputs == 1 else [])):
        raise UsageError(
            f"`exact` returns {shape} for {len(x)} points; needed is a tensor "
            f"({len(x)}, {outputs}){f' or ({len(x)},)' if outputs == 1 else ''}"
        )
    if u.dtype != x.dtype:
        raise UsageError(
            f"`exact` returns {u.dtype} for points in {x.dtype}; the error would be measured with "
            "too few digits"
        )
    return u.reshape(len(x), outputs)


def check_reference(problem: Problem) -> None:
    """Try `exact` and `metrics` at a few points, if the problem has them, and check `reference`.

    Raises:
        UsageError: as `exact_values`, `reference_points` and `metric_values`, or the value of
            `exact` at a point depends on the other points.
    """
    data = named_sets(problem.data).get("data")
    if problem.has_exact:
        interior = problem.domain.parts["interior"]
        x = torch.as_tensor(probe_points(interior, np.random.default_rng(0)))
        y = exact_values(problem, x)
        if not same_in_subsets(y, [exact_values(problem, x[rows]) for rows in SUBSETS]):
            raise UsageError(
                "`exact` has another value at a point if the other points change or if it is "
                "called again; the error would depend on the number of ranks"
            )
    elif problem.reference is not None:
        x, y = (torch.as_tensor(a[:TRIED_ROWS]) for a in reference_points(problem))
    elif data is not None:
        x, y = torch.as_tensor(data.x_ND[:TRIED_ROWS]), torch.as_tensor(data.y_NM[:TRIED_ROWS])
    else:
        return
    if problem.has_metrics and len(x):
        metric_values(problem, x, x.new_full((len(x), len(problem.outputs)), 0.5), y)


def reference_columns(problem: Problem) -> list[int]:
    """The numbers of the outputs that the columns of `reference` are.

    Raises:
        UsageError: `reference` is no table, or does not fit the coordinates or the outputs.
    """
    table, outputs = problem.reference, list(problem.outputs)
    if not isinstance(table, Table):
        raise UsageError(f"reference = {table!r}; needed is nedhpc.Table(FILE)")
    dim, count = problem.domain.dim, table.values.shape[1]
    if table.dim != dim:
        raise UsageError(
            f"reference = {table!r} has {table.dim} coordinates; the domain has {dim}: "
            f"{', '.join(problem.coordinates)}"
        )
    if table.names and set(table.names) <= set(outputs) and len(table.names) == count:
        return [outputs.index(name) for name in table.names]
    if count != len(outputs):
        raise UsageError(
            f"reference = {table!r} has {count} columns of values; the problem has the outputs "
            f"{', '.join(outputs)}. Name the columns that are outputs: targets = [...]"
        )
    return list(range(count))


def reference_points(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, D) and values (N, K) of `reference` in the bounds of the domain.

    Of more than MOST_POINTS an even selection is used.

    Raises:
        UsageError: as `reference_columns`, or no point lies in the bounds.
    """
    reference_columns(problem)
    table, domain = problem.reference, problem.domain
    slack_D = 1e-9 * (domain.high - domain.low)
    x_ND = table.points
    inside_N = ((x_ND >= domain.low - slack_D) & (x_ND <= domain.high + slack_D)).all(1)
    rows = np.flatnonzero(inside_N)
    if not len(rows):
        raise UsageError(
            f"reference = {table!r}: none of its {len(x_ND)} points lies in the domain, whose "
            f"bounds are {domain.low.tolist()} and {domain.high.tolist()}; check the order of its "
            "columns and their units"
        )
    rows = rows[:: -(-len(rows) // MOST_POINTS)]
    return x_ND[rows], table.values[rows]


def reference_values(problem: Problem, x: Tensor) -> np.ndarray:
    """The values of `reference` at points (N, D), (N, M); NaN where it has none."""
    table, found = problem.reference, np.full((len(x), len(problem.outputs)), np.nan)
    rows = table.covers(x).numpy()
    values = table(x[torch.as_tensor(rows)]).numpy()
    columns = reference_columns(problem)
    found[np.ix_(rows, columns)] = values.reshape(len(values), len(columns))
    return found


def finite_reference(problem: Problem, x: Tensor, t: float = 0.0) -> Tensor:
    """`exact_values`, (N, M). Raises UsageError also if one is not finite."""
    u = exact_values(problem, x, t)
    bad = ~u.isfinite().all(1)
    if bad.any():
        point = ", ".join(f"{value:.6g}" for value in x[bad][0].tolist())
        raise UsageError(
            f"`exact` is not finite at {int(bad.sum())} of {len(x)} points, the first is "
            f"({point}); the error cannot be measured there"
        )
    return u


def metric_values(problem: Problem, x: Tensor, u: Tensor, y: Tensor) -> dict[str, Tensor]:
    """problem.metrics(x, u, y), {name: (N,)}.

    Raises:
        UsageError: `metrics` raises, or a metric has a name that no file can hold, or is not one
            number for each point.
    """
    values = called("`metrics`", problem.metrics, x, u, y)
    if not isinstance(values, dict):
        raise UsageError(
            f"`metrics` returns {type(values).__name__}; needed is {{name: values (N,)}}"
        )
    for name, value in values.items():
        if reason := bad_name(name):
            raise UsageError(f"the metric {name!r} has a name that cannot be stored: {reason}")
        if isinstance(value, Tensor) and value.is_complex():
            raise UsageError(f"metric {name!r} is complex; needed are real numbers")
        if _shape(value) != (len(x),):
            raise UsageError(
                f"metric {name!r} is {_shape(value)} for {len(x)} points; needed is one number a "
                f"point ({len(x)},), of which the mean is reported"
            )
    return values


def _shape(value: object) -> tuple[int, ...] | str:
    """The shape of a tensor, or the name of another type."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
