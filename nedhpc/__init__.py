"""nedhpc: training of neural networks along the descent flow of an energy."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:  # for type checkers and editors; at run time _WHERE gives the same names
    from nedhpc.ansatz.layers import Layer
    from nedhpc.api import Outcome, load, run
    from nedhpc.config import Config, Section
    from nedhpc.domains.base import Domain, Part
    from nedhpc.domains.box import Box, SpaceTime
    from nedhpc.domains.periodic import Periodic
    from nedhpc.flows.metrics import Metric
    from nedhpc.postprocess.solution import Solution
    from nedhpc.problems.base import Problem, cross_entropy, density, integral, rate, residual
    from nedhpc.problems.data import DataSet
    from nedhpc.problems.table import Table
    from nedhpc.problems.tables import read_table
    from nedhpc.problems.terms import CrossEntropy, Density, Integral, Rate, Residual, Term
    from nedhpc.running.observers import Observer, Stop
    from nedhpc.steppers.base import StepInfo, StepRule

_WHERE = {
    "Box": "nedhpc.domains.box",
    "Config": "nedhpc.config",
    "CrossEntropy": "nedhpc.problems.terms",
    "DataSet": "nedhpc.problems.data",
    "Density": "nedhpc.problems.terms",
    "Domain": "nedhpc.domains.base",
    "Integral": "nedhpc.problems.terms",
    "Layer": "nedhpc.ansatz.layers",
    "Metric": "nedhpc.flows.metrics",
    "Observer": "nedhpc.running.observers",
    "Outcome": "nedhpc.api",
    "Part": "nedhpc.domains.base",
    "Periodic": "nedhpc.domains.periodic",
    "Problem": "nedhpc.problems.base",
    "Rate": "nedhpc.problems.terms",
    "Residual": "nedhpc.problems.terms",
    "Section": "nedhpc.config",
    "Solution": "nedhpc.postprocess.solution",
    "SpaceTime": "nedhpc.domains.box",
    "StepInfo": "nedhpc.steppers.base",
    "StepRule": "nedhpc.steppers.base",
    "Stop": "nedhpc.running.observers",
    "Table": "nedhpc.problems.table",
    "Term": "nedhpc.problems.terms",
    "cross_entropy": "nedhpc.problems.base",
    "density": "nedhpc.problems.base",
    "integral": "nedhpc.problems.base",
    "load": "nedhpc.api",
    "rate": "nedhpc.problems.base",
    "read_table": "nedhpc.problems.tables",
    "residual": "nedhpc.problems.base",
    "run": "nedhpc.api",
}

__all__ = [
    "Box",
    "Config",
    "CrossEntropy",
    "DataSet",
    "Density",
    "Domain",
    "Integral",
    "Layer",
    "Metric",
    "Observer",
    "Outcome",
    "Part",
    "Periodic",
    "Problem",
    "Rate",
    "Residual",
    "Section",
    "Solution",
    "SpaceTime",
    "StepInfo",
    "StepRule",
    "Stop",
    "Table",
    "Term",
    "cross_entropy",
    "density",
    "integral",
    "load",
    "rate",
    "read_table",
    "residual",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, because `nedhpc --help` needs neither torch nor MPI."""
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'nedhpc' has no attribute {name!r}")
