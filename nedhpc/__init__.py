"""nedhpc: training of neural networks along the descent flow of an energy."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:  # for type checkers and editors; at run time _WHERE gives the same names
    from nedhpc.ansatz.layers import Layer
    from nedhpc.api import Outcome, load, run
    from nedhpc.config import Config, Section
    from nedhpc.domains.ball import Annulus, Ball, Disk, Ellipse, Shell
    from nedhpc.domains.base import Domain, Part
    from nedhpc.domains.box import Box, SpaceTime
    from nedhpc.domains.cloud import PointCloud
    from nedhpc.domains.extrusion import Cylinder, Extrusion
    from nedhpc.domains.in_time import InTime
    from nedhpc.domains.periodic import Periodic
    from nedhpc.domains.polygon import Polygon
    from nedhpc.domains.rectangle import Interval, Rectangle
    from nedhpc.domains.shape import Shape
    from nedhpc.domains.surface import Polyhedron
    from nedhpc.flows.metrics import Metric
    from nedhpc.postprocess.solution import Solution
    from nedhpc.problems.base import (
        Problem,
        conserved,
        cross_entropy,
        density,
        integral,
        rate,
        residual,
    )
    from nedhpc.problems.data import DataSet
    from nedhpc.problems.table import Table
    from nedhpc.problems.tables import read_table
    from nedhpc.problems.terms import (
        Conserved,
        CrossEntropy,
        Density,
        Integral,
        Rate,
        Residual,
        Term,
    )
    from nedhpc.running.observers import Observer, Stop
    from nedhpc.steppers.base import StepInfo, StepRule

_WHERE = {
    "Annulus": "nedhpc.domains.ball",
    "Ball": "nedhpc.domains.ball",
    "Box": "nedhpc.domains.box",
    "Config": "nedhpc.config",
    "Conserved": "nedhpc.problems.terms",
    "CrossEntropy": "nedhpc.problems.terms",
    "Cylinder": "nedhpc.domains.extrusion",
    "DataSet": "nedhpc.problems.data",
    "Density": "nedhpc.problems.terms",
    "Disk": "nedhpc.domains.ball",
    "Domain": "nedhpc.domains.base",
    "Ellipse": "nedhpc.domains.ball",
    "Extrusion": "nedhpc.domains.extrusion",
    "InTime": "nedhpc.domains.in_time",
    "Integral": "nedhpc.problems.terms",
    "Interval": "nedhpc.domains.rectangle",
    "Layer": "nedhpc.ansatz.layers",
    "Metric": "nedhpc.flows.metrics",
    "Observer": "nedhpc.running.observers",
    "Outcome": "nedhpc.api",
    "Part": "nedhpc.domains.base",
    "Periodic": "nedhpc.domains.periodic",
    "PointCloud": "nedhpc.domains.cloud",
    "Polygon": "nedhpc.domains.polygon",
    "Polyhedron": "nedhpc.domains.surface",
    "Problem": "nedhpc.problems.base",
    "Rate": "nedhpc.problems.terms",
    "Rectangle": "nedhpc.domains.rectangle",
    "Residual": "nedhpc.problems.terms",
    "Section": "nedhpc.config",
    "Shape": "nedhpc.domains.shape",
    "Shell": "nedhpc.domains.ball",
    "Solution": "nedhpc.postprocess.solution",
    "SpaceTime": "nedhpc.domains.box",
    "StepInfo": "nedhpc.steppers.base",
    "StepRule": "nedhpc.steppers.base",
    "Stop": "nedhpc.running.observers",
    "Table": "nedhpc.problems.table",
    "Term": "nedhpc.problems.terms",
    "conserved": "nedhpc.problems.base",
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
    "Annulus",
    "Ball",
    "Box",
    "Config",
    "Conserved",
    "CrossEntropy",
    "Cylinder",
    "DataSet",
    "Density",
    "Disk",
    "Domain",
    "Ellipse",
    "Extrusion",
    "InTime",
    "Integral",
    "Interval",
    "Layer",
    "Metric",
    "Observer",
    "Outcome",
    "Part",
    "Periodic",
    "PointCloud",
    "Polygon",
    "Polyhedron",
    "Problem",
    "Rate",
    "Rectangle",
    "Residual",
    "Section",
    "Shape",
    "Shell",
    "Solution",
    "SpaceTime",
    "StepInfo",
    "StepRule",
    "Stop",
    "Table",
    "Term",
    "conserved",
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
