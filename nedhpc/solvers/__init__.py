"""Regularised least squares over distributed rows: one file each, all returning (solution, info)."""

import psutil

from nedhpc.config import KrylovTable
from nedhpc.errors import UsageError
from nedhpc.rows.tangent import HOLD_BYTES
from nedhpc.solvers.base import Factorisation, SolveInfo
from nedhpc.solvers.dual import COLUMN_BYTES, Dual
from nedhpc.solvers.gram import Gram
from nedhpc.solvers.krylov import Krylov
from nedhpc.solvers.tsqr import Tsqr

SOLVERS = {"tsqr": Tsqr, "gram": Gram, "dual": Dual, "krylov": Krylov}
TSQR_MAX_PARAMETERS = 4000
"""Beyond this P an SVD of P x P takes longer than what it gains."""


def memory_bytes(
    kind,
    num_rows,
    num_parameters,
    num_ranks,
    metric="euclidean",
    chunk=8192,
    rank=KrylovTable().rank,
    point_bytes=0,
):
    """Peak bytes on rank 0: copies of the rows it holds or of one chunk; the solver's matrices, the metric's, a chunk's jets."""
    local = -(-num_rows // num_ranks)
    rows = 8 * local * num_parameters
    if rows > HOLD_BYTES:
        rows = COLUMN_BYTES if kind == "dual" else 8 * min(chunk, local) * num_parameters
    rest = 10 * min(chunk, local) * point_bytes + (
        0 if metric == "euclidean" else 24 * num_parameters**2
    )
    if kind == "krylov":
        held = rows if 8 * local * num_parameters <= HOLD_BYTES else 0
        return 2 * held + 24 * min(rank, num_parameters) * (local + num_parameters) + rest
    side = num_rows if kind == "dual" else num_parameters
    copies, squares = {"tsqr": (3, 8), "gram": (2, 3), "dual": (2, 3)}[kind]
    return copies * rows + 8 * squares * side**2 + rest


def choose(
    kind,
    num_rows,
    num_parameters,
    num_ranks,
    metric="euclidean",
    chunk=8192,
    rank=KrylovTable().rank,
    point_bytes=0,
):
    """The solver that `auto` stands for: the most accurate that is affordable.

    TSQR up to P = 4000; beyond it the dual form where N < P, else the Gram matrix; Krylov where that does not fit in memory. UsageError
    where none does.
    """
    available = psutil.virtual_memory().total
    bytes_of = lambda kind: memory_bytes(
        kind, num_rows, num_parameters, num_ranks, metric, chunk, rank, point_bytes
    )
    if kind == "auto":
        kind = (
            "tsqr"
            if num_parameters <= TSQR_MAX_PARAMETERS
            else "dual"
            if num_rows < num_parameters
            else "gram"
        )
        kind = kind if bytes_of(kind) <= available else "krylov"
    need = bytes_of(kind)
    if need > available:
        raise UsageError(
            f"solver {kind}: {num_rows} rows and {num_parameters} parameters need {need / 2**30:.1f} GiB on rank 0 and "
            f"this machine has {available / 2**30:.1f}; take solver krylov, fewer points (dual, N^2), a smaller network (P^2; any "
            "metric but euclidean needs P^2 too) or more ranks"
        )
    return kind


__all__ = ["SOLVERS", "Factorisation", "SolveInfo", "choose", "memory_bytes"]
