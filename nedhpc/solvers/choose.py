"""The solvers by name, and which one `auto` means. Local."""

from nedhpc.errors import UsageError
from nedhpc.solvers.base import LeastSquares
from nedhpc.solvers.cost import Size
from nedhpc.solvers.dual import Dual
from nedhpc.solvers.gram import Gram
from nedhpc.solvers.krylov import Krylov
from nedhpc.solvers.tsqr import Tsqr

SOLVERS: dict[str, type[LeastSquares]] = {cls.name: cls for cls in (Tsqr, Gram, Dual, Krylov)}

TSQR_MAX_PARAMETERS = 4000
"""With more parameters the SVD of a P x P matrix costs more than its accuracy gains."""


def choose(kind: str, size: Size, available_bytes: int) -> str:
    """The name of the solver: kind itself, or for `auto` the most accurate one that is affordable.

    `auto` is tsqr up to P = TSQR_MAX_PARAMETERS. For larger P it is dual if N < P, else gram. If
    that solver does not fit in memory, it is krylov.

    Args:
        kind: a name of SOLVERS, or "auto".
        size: sizes of the problem.
        available_bytes: memory of rank 0's machine.

    Raises:
        UsageError: the solver does not fit in memory.
    """
    if kind == "auto":
        kind = _most_accurate(size)
        if SOLVERS[kind].cost(size).bytes > available_bytes:
            kind = "krylov"
    needed = SOLVERS[kind].cost(size).bytes
    if needed > available_bytes:
        raise UsageError(
            f"solver {kind}: {size.num_rows} rows and {size.num_parameters} parameters need "
            f"{needed / 2**30:.1f} GiB on rank 0 and this machine has "
            f"{available_bytes / 2**30:.1f}; use solver krylov, fewer points (dual, N^2), a "
            "smaller network (P^2; any metric but euclidean needs P^2 too) or more ranks"
        )
    return kind


def _most_accurate(size):
    if size.num_parameters <= TSQR_MAX_PARAMETERS:
        return "tsqr"
    return "dual" if size.num_rows < size.num_parameters else "gram"
