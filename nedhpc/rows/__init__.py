"""Rows A_NP of one rank: the scaled Jacobian of the residuals in the parameters. Local.

There is one class for each storage mode:

    held      the matrix A_NP
    streamed  recomputed chunk by chunk in each product, so that N does not bound memory
    factored  recomputed, or its chunks held, as sums over layers of outer products
    metric    A R_M^-1 for rows in any of these modes

All are a `base.RowOperator`. `gather.gather` computes the rows once and chooses the mode.
"""
