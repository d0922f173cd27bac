"""Regularised least squares over distributed rows: one file each, all returning (solution, info)."""

import psutil

from nedhpc.errors import UsageError
from nedhpc.solvers.base import Factorisation, SolveInfo
from nedhpc.solvers.dual import Dual
from nedhpc.solvers.gram import Gram
from nedhpc.solvers.tsqr import Tsqr

SOLVERS = {"tsqr": Tsqr, "gram": Gram, "dual": Dual}
TSQR_MAX_PARAMETERS = 4000
"""Beyond this P an SVD of P x P takes longer than what it gains."""


def memory_bytes(kind, num_rows, num_parameters, num_ranks, metric="euclidean"):
    """Peak bytes on rank 0: its rows twice (rows and their factorisation), the solver's square matrices and the metric's."""
    rows = 2 * 8 * -(-num_rows // num_ranks) * num_parameters
    side = num_rows if kind == "dual" else num_parameters
    square = {"tsqr": 5, "gram": 3, "dual": 3}[kind] * side**2 + (0 if metric == "euclidean" else 3 * num_parameters**2)
    return rows + 8 * square


def choose(kind, num_rows, num_parameters, num_ranks, metric="euclidean"):
    """The solver that `auto` stands for: the most accurate that is affordable.

    TSQR up to P = 4000; beyond it the dual form where N < P, else the Gram matrix. UsageError where none fits in memory.
    """
    available = psutil.virtual_memory().total
    if kind == "auto":
        kind = "tsqr" if num_parameters <= TSQR_MAX_PARAMETERS else "dual" if num_rows < num_parameters else "gram"
    need = memory_bytes(kind, num_rows, num_parameters, num_ranks, metric)
    if need > available:
        raise UsageError(f"solver {kind}: {num_rows} rows and {num_parameters} parameters need {need / 2**30:.1f} GiB on rank 0 and "
                         f"this machine has {available / 2**30:.1f}; take fewer points (dual, N^2), a smaller network (P^2; any metric but "
                         "euclidean needs P^2 too) or more ranks")
    return kind


__all__ = ["SOLVERS", "Factorisation", "SolveInfo", "choose", "memory_bytes"]
