"""Rows of the scaled Jacobian of one rank."""
