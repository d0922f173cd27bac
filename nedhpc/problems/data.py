"""The user's data sets: files of inputs and targets, and their split. Local."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nedhpc.errors import UsageError
from nedhpc.problems.tables import read_table

MANY_ROWS, VALIDATION = 100, 0.1
"""A data set of MANY_ROWS rows or more has the share VALIDATION of them held out."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """Inputs x (N, D) and targets y (N, M), float64; `held_out` rows are never trained on."""

    x_ND: np.ndarray
    y_NM: np.ndarray
    held_out_x: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    held_out_y: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def digest(self) -> str:
        """SHA-256 of the split: the inputs that are trained on, then those held out."""
        digest = hashlib.sha256()
        for x_ND in (self.x_ND, self.held_out_x):
            digest.update(f"{x_ND.shape}".encode())
            digest.update(np.ascontiguousarray(x_ND, np.float64).tobytes())
        return digest.hexdigest()


def read(path: Path, targets: int | str | list[str], **options) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of the file that `problem.file` names: (x_ND, y_NM), float64.

    Args:
        path: the file.
        targets: names of the target columns, or how many of the last columns are targets.
        **options: the other options of `read_table`.

    Raises:
        UsageError: as `read_table`.
    """
    return read_table(path, targets=targets, key="problem.file", **options)


def split(x: np.ndarray, y: np.ndarray, held_out: float, seed: int, source: str) -> DataSet:
    """Split the rows at random into those that are trained on and those held out for the error.

    Args:
        x: inputs, (N, D).
        y: targets, (N, M).
        held_out: share of the rows that is held out.
        seed: seed of the split.
        source: file of the rows, for messages.

    Raises:
        UsageError: the share is not in [0, 1), or no rows are left.
    """
    if not 0 <= held_out < 1:
        raise UsageError(f"problem.held_out = {held_out} is not in [0, 1)")
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(x))
    num_held = round(held_out * len(x))
    if len(x) - num_held < 1:
        raise UsageError(f"{source}: no rows are left to train on with held_out = {held_out}")
    held, kept = order[:num_held], np.sort(order[num_held:])
    return DataSet(x[kept], y[kept], x[held], y[held])


def named_sets(data: DataSet | Mapping[str, DataSet] | None) -> dict[str, DataSet]:
    """The data sets of a problem by the names that terms use; a single one is "data". Local.

    Args:
        data: the attribute `data` of a problem.
    """
    if data is None:
        return {}
    return dict(data) if isinstance(data, Mapping) else {"data": data}


def digest(sets: Mapping[str, DataSet]) -> str:
    """SHA-256 of the splits of all data sets; "" if there are none. Local."""
    if list(sets) == ["data"]:
        return sets["data"].digest()
    lines = [f"{name} {data.digest()}" for name, data in sorted(sets.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def validated(data: DataSet) -> DataSet:
    """The data set, of which some rows are held out if none are and it has many. Local.

    The energy on these rows shows when a fit begins to follow the noise of the others.
    """
    if len(data.held_out_x) or len(data.x_ND) < MANY_ROWS:
        return data
    return split(data.x_ND, data.y_NM, VALIDATION, 0, "data")
