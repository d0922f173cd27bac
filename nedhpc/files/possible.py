"""Numbers that a checkpoint may hold. Whoever wrote it may have sealed anything. Local.

Functions raise ValueError or TypeError, of which files.sealed makes a NotAStateError.
"""

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nedhpc.files.checkpoint import State

MAX_COUNT = 2**31
"""Steps and draws are below it."""
MAX_GROWTH = 64
"""A sample is not doubled or halved more often."""


def count(entry: Any, name: str, low: int = 0, high: int = MAX_COUNT) -> int:
    """An integer in [low, high)."""
    number = operator.index(entry)
    if not low <= number < high:
        raise ValueError(f"{name} {number} is not possible")
    return number


def number(entry: Any, name: str) -> float:
    """A finite real number."""
    if np.ndim(entry) or np.asarray(entry).dtype.kind not in "biuf" or not np.isfinite(entry):
        raise ValueError(f"{name} {entry!r:.40} is not a finite number")
    return float(entry)


def numbers(entry: Any, name: str, length: int | None = None) -> np.ndarray:
    """A float64 vector of finite numbers, (N,)."""
    array = np.asarray(entry)
    if array.dtype != np.float64 or array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(
            f"{name} has shape {array.shape} and type {array.dtype}; needed is a float64 vector of "
            "finite numbers"
        )
    if length is not None and len(array) != length:
        raise ValueError(f"{name} has {len(array)} numbers; needed are {length}")
    return array


def scalars(table: dict, name: str) -> dict:
    """A table of numbers and texts, without arrays."""
    for key, entry in table.items():
        if np.ndim(entry):
            raise ValueError(f"{name}/{key} is an array; needed is a number or a text")
    return table


def memory(table: dict) -> dict:
    """A stepper's memory: its `type`, and what the stepper itself checks."""
    if not isinstance(table.get("type", ""), str):
        raise ValueError("stepper/type is not a text")
    return table


def scaling(table: dict) -> dict:
    """The arrays of a scaling; ansatz.scaling checks their names and lengths."""
    return {name: numbers(np.atleast_1d(entry), f"scaling/{name}") for name, entry in table.items()}


def interval(start: float, end: float) -> tuple[float, float]:
    """Start and end of a time window."""
    if not -np.inf < start < end < np.inf:
        raise ValueError(f"a time window from {start} to {end} is not possible")
    return start, end


def selection(table: dict) -> dict:
    """Points that were chosen by the residual: {} or `draw`, `index` and `weight`."""
    if not table:
        return {}
    index, weight = table["index"], numbers(table["weight"], "sampling/selection/weight")
    is_sorted = index.dtype.kind in "iu" and index.shape == weight.shape and len(index)
    if not is_sorted or index[0] < 0 or (index[1:] <= index[:-1]).any():
        raise ValueError("sampling/selection/index is not a list of different points")
    return {"draw": count(table["draw"], "draw"), "index": index, "weight": weight}


def check(state: "State") -> None:
    """Check that the parts of a state have the same number of parameters."""
    size = len(state.theta_P)
    for piece in state.pieces:
        numbers(piece.theta_P, "theta of a solved window", size)
    if state.reference_P is not None:
        numbers(state.reference_P, "balance/reference", size + len(state.coefficients))
