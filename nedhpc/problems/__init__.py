"""Problems: energy terms on jets, the catalogue, and how a problem is built from a config."""

from nedhpc.problems.base import (
    Problem,
    cross_entropy,
    declared_terms,
    density,
    integral,
    residual,
)
from nedhpc.problems.build import CATALOGUE, bind_terms, build, check, construct
from nedhpc.problems.data import DataSet
from nedhpc.problems.table import Table
from nedhpc.problems.tables import read_table
from nedhpc.problems.terms import CrossEntropy, Density, Integral, Residual, Term

__all__ = [
    "CATALOGUE",
    "CrossEntropy",
    "DataSet",
    "Density",
    "Integral",
    "Problem",
    "Residual",
    "Table",
    "Term",
    "bind_terms",
    "build",
    "check",
    "construct",
    "cross_entropy",
    "declared_terms",
    "density",
    "integral",
    "read_table",
    "residual",
]
