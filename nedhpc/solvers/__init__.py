"""Regularised least squares over distributed rows, one file for each solver.

With this rank's rows A, a rows.base.RowOperator, a solve is

    solver = SOLVERS[name](comm, rtol, settings)
    state = solver.init(A, b_N)
    x_P, info = solver.solve_rows(state, damping)

Importing this package imports neither PETSc nor MPI.
"""

from nedhpc.solvers.base import LeastSquares, SolveInfo
from nedhpc.solvers.choose import SOLVERS, choose
from nedhpc.solvers.cost import Cost, Size

__all__ = ["SOLVERS", "Cost", "LeastSquares", "Size", "SolveInfo", "choose"]
