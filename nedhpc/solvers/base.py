"""What every least-squares solver over distributed rows provides."""

from dataclasses import dataclass
from typing import Protocol

from nedhpc.parallel.comm import total


@dataclass(frozen=True, slots=True)
class SolveInfo:
    """How a solve went, the same on every rank."""

    solver: str
    effective_rank: int
    """Singular values above the cutoff and the damping."""
    sigma_max: float
    sigma_min: float
    """Least singular value that the cutoff keeps."""
    residual: float
    """|A x - b| (row right-hand side) or |(A^T A + damping) x - b| (parameter right-hand side)."""
    projection_error: float
    """|A x - b| / |b| for a row right-hand side: what the tangent space cannot represent; NaN otherwise."""
    note: str = ""
    """What the solver had to do instead of what was asked, for a person."""


class Factorisation(Protocol):
    """Rows A, a Tangent (and a row right-hand side b_N) of all ranks, factorised once, solved for any damping >= 0.

    Attributes comm and A. All solves are collective and return (x_P, SolveInfo), the same on every rank.
    """

    def solve_rows(self, damping=0.0):
        """x = argmin |A x - b|^2 + damping |x|^2."""

    def solve_params(self, b_P, damping=0.0):
        """x = (A^T A + damping)^+ b_P; squares the condition number, then refines once."""

    def solve_pulled(self, b_N, damping=0.0):
        """x = (A^T A + damping)^+ A^T b_N for a further right-hand side on the rows."""
        return self.solve_params(
            total(self.comm, self.A.rmatvec(b_N).double().cpu().numpy()), damping
        )
