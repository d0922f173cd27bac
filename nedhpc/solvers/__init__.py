"""Regularised least squares over distributed rows, one file for each solver.

    solver = SOLVERS[name](comm, rtol, settings)
    state = solver.init(A, b_N)                  A: rows.base.RowOperator of this rank
    x_P, info = solver.solve_rows(state, damping)

Importing this package imports neither PETSc nor anything that talks to other ranks.
"""

from nedhpc.solvers.base import LeastSquares, SolveInfo
from nedhpc.solvers.choose import SOLVERS, choose
from nedhpc.solvers.cost import Cost, Size

__all__ = ["SOLVERS", "Cost", "LeastSquares", "Size", "SolveInfo", "choose"]
