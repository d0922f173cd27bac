"""The cost of a solver: bytes and flops as functions of the sizes of the problem. Local."""

from dataclasses import dataclass

from nedhpc.config import KrylovTable
from nedhpc.rows.gather import HOLD_BYTES

SWEEP_COPIES = 10
"""About as many sets of a chunk's jets are held at once in a sweep."""
FORWARD_COPIES = 7
"""Further sets in a product A v if rows are not held, because it pushes the jets again."""
METRIC_SQUARES = 3
"""P x P matrices of a dense metric: R_M, a copy in transit, a factor."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The needs of one linearisation and its solves on rank 0."""

    bytes: int
    """Peak bytes of rows, matrices of the solver and the metric, and one chunk's jets.

    Points, theta and the process are not included.
    """
    flops: int
    """Floating-point operations of the rows' factorisation."""


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of a least-squares problem: num_rows rows on all ranks, num_parameters columns."""

    num_rows: int
    num_parameters: int
    num_ranks: int = 1
    dense_metric: bool = False
    """True if the metric is a P x P matrix, as any but euclidean is."""
    chunk: int = 8192
    """Largest number of points whose jets and rows a rank holds at once."""
    point_bytes: int = 0
    """Bytes of a point's jets in all layers."""
    rank: int = KrylovTable().rank
    """Columns of the krylov preconditioner."""
    max_iterations: int = KrylovTable().max_iterations
    """Most iterations of a krylov solve."""

    @property
    def local_rows(self) -> int:
        """Largest number of rows of a rank."""
        return -(-self.num_rows // self.num_ranks)

    @property
    def held_bytes(self) -> int:
        """Bytes of a rank's rows if they are held, else 0."""
        all_rows = 8 * self.local_rows * self.num_parameters
        return all_rows if all_rows <= HOLD_BYTES else 0

    @property
    def block_bytes(self) -> int:
        """Bytes of the rows that are formed at once: all if they are held, else a chunk's."""
        return self.held_bytes or 8 * min(self.chunk, self.local_rows) * self.num_parameters

    @property
    def jet_bytes(self) -> int:
        """Bytes of one set of a chunk's jets."""
        return min(self.chunk, self.local_rows) * self.point_bytes

    @property
    def other_bytes(self) -> int:
        """Bytes that neither rows nor solver need: jets of a chunk, matrices of the metric."""
        metric = 8 * METRIC_SQUARES * self.num_parameters**2 if self.dense_metric else 0
        return SWEEP_COPIES * self.jet_bytes + metric
