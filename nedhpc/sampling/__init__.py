"""Points and quadrature weights."""
