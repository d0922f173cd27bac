"""nedhpc: trains neural networks by evolving their parameters along the descent flow of an energy."""

import importlib

__version__ = "0.1.0"

_WHERE = {
    "Problem": "nedhpc.problems.base",
    "Residual": "nedhpc.problems.base",
    "Density": "nedhpc.problems.base",
    "CrossEntropy": "nedhpc.problems.base",
    "Box": "nedhpc.problems.base",
    "SpaceTime": "nedhpc.problems.base",
    "DataSet": "nedhpc.problems.base",
    "run": "nedhpc.api",
    "load": "nedhpc.api",
}
__all__ = sorted(_WHERE)


def __getattr__(name):
    """Import on first use: `nedhpc --help` and config errors need neither torch nor MPI."""
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'nedhpc' has no attribute {name!r}")
