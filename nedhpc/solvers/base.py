"""The base class of all solvers of regularised least squares over distributed rows.

A is the matrix of all ranks' rows, b_N a right-hand side on them. Numbers here are dimensionless.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from nedhpc.parallel.comm import broadcast, total
from nedhpc.rows.base import RowOperator
from nedhpc.solvers.cost import Cost, Size

if TYPE_CHECKING:  # importing MPI initialises it, and commands that only read need none
    from mpi4py import MPI


@dataclass(frozen=True, slots=True)
class SolveInfo:
    """How a solve went, the same on every rank."""

    solver: str
    effective_rank: int
    """Number of singular values above the cutoff and sqrt(damping); with Cholesky all of them."""
    sigma_max: float
    """Largest singular value."""
    sigma_min: float
    """Least singular value above the cutoff."""
    residual: float
    """|A x - b| (row right-hand side) or |(A^T A + damping) x - b| (parameter right-hand side)."""
    projection_error: float
    """|A x - b| / |b|, the share of b that the tangent space cannot represent.

    NaN for a parameter right-hand side.
    """
    note: str = ""
    """What the solver did, if it was not what the user asked for."""


class LeastSquares(ABC):
    """Solver of min |A x - b|^2 + damping |x|^2.

    `init` factorises the rows as far as that does not depend on the damping; the `solve_*` methods
    take the state that it returns and any damping >= 0. A solver object itself holds only its
    arguments. All methods but `cost` are collective on comm. The `solve_*` methods return the same
    (x_P, SolveInfo) on every rank; x_P has the dtype and device of the rows.

    Args:
        comm: communicator of the ranks that hold rows.
        rtol: singular values below rtol times the largest are cut off.
        settings: the solver's own table of the config; None if it has none.
    """

    name: ClassVar[str]
    fallback_note: ClassVar[str] = ""
    """Note of a solve that fell back to another method."""

    def __init__(self, comm: MPI.Comm, rtol: float, settings: Any = None):
        self.comm, self.rtol, self.settings = comm, rtol, settings

    @classmethod
    @abstractmethod
    def cost(cls, size: Size) -> Cost:
        """Bytes and flops on rank 0 of one init and a few solves. Local."""

    @abstractmethod
    def init(self, A: RowOperator, b_N: torch.Tensor | None) -> Any:
        """State of the solves with rows A.

        Args:
            A: this rank's rows.
            b_N: this rank's right-hand side, (N,); None if only `solve_params` follows.
        """

    @abstractmethod
    def solve_rows(self, state: Any, damping: float = 0.0) -> tuple[torch.Tensor, SolveInfo]:
        """x = argmin |A x - b_N|^2 + damping |x|^2, the one of least norm if damping is 0."""

    @abstractmethod
    def solve_params(
        self, state: Any, b_P: torch.Tensor | np.ndarray, damping: float = 0.0
    ) -> tuple[torch.Tensor, SolveInfo]:
        """x = (A^T A + damping)^+ b_P for b_P (P,), the same on every rank."""

    def solve_pulled(
        self, state: Any, b_N: torch.Tensor, damping: float = 0.0
    ) -> tuple[torch.Tensor, SolveInfo]:
        """x = (A^T A + damping)^+ A^T b_N for another right-hand side on the rows."""
        return self.solve_params(state, self.pull(state.A, b_N), damping)

    def pull(self, A: RowOperator, w_N: torch.Tensor) -> np.ndarray:
        """A^T w_N summed over ranks, (P,) float64, the same on every rank. Collective on comm."""
        return total(self.comm, to_numpy(A.rmatvec(w_N)))

    def share(
        self, x: torch.Tensor | None, facts: Facts | None, num_entries: int
    ) -> tuple[np.ndarray, SolveInfo]:
        """Rank 0's x and facts on every rank, by one broadcast. Collective on comm.

        What rank 0 passes as None becomes NaN.
        """
        packed = np.full(num_entries + NUM_FACTS, np.nan)
        if x is not None:
            packed[:num_entries] = to_numpy(x)
        if facts is not None:
            packed[num_entries:] = facts
        broadcast(self.comm, packed)
        rank, *values, fell_back = packed[num_entries:].tolist()
        note = self.fallback_note if fell_back == 1 else ""
        info = SolveInfo(self.name, 0 if np.isnan(rank) else int(rank), *values, note)
        return packed[:num_entries], info


Facts = list[float]
"""[effective_rank, sigma_max, sigma_min, residual, projection_error, fell_back].

The last is 1 if the solver fell back to another method, else 0.
"""
NUM_FACTS = 6


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """The tensor as a float64 array on the host. Local."""
    return x.double().cpu().numpy()
