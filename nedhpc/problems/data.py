"""The user's data sets: files of inputs and targets, and their split. Local."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from nedhpc.errors import UsageError


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


def read(path: Path, targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a CSV, NPZ or HDF5 file.

    Args:
        path: a CSV file whose last columns are the targets, or an NPZ or HDF5 file with arrays
            x (N, D) and y (N, M). NPZ files are read without pickle.
        targets: number of target columns of a CSV file.

    Returns:
        (x_ND, y_NM), float64.

    Raises:
        UsageError: the file is missing, cannot be read, or holds a value that is not finite.
    """
    where = f"problem.file = {str(path)!r}"
    if not path.is_file():
        raise UsageError(f"{where}: there is no such file")
    try:
        x, y = (np.asarray(array, float) for array in _arrays(path, targets, where))
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise UsageError(
            f"{where} cannot be read: {error}; it needs arrays x (N, D) and y (N, M), or "
            "comma-separated numbers with the targets in the last columns"
        ) from None
    x, y = (x[:, None] if x.ndim == 1 else x), (y[:, None] if y.ndim == 1 else y)
    if len(x) != len(y) or x.ndim != 2 or y.ndim != 2 or not x.shape[1] or not y.shape[1]:
        shapes = f"x has shape {x.shape} and y {y.shape}; needed are (N, D) and (N, M)"
        raise UsageError(f"{where}: {shapes}")
    bad = ~(np.isfinite(x).all(1) & np.isfinite(y).all(1))
    if bad.any():
        row = int(np.argmax(bad)) + 1
        raise UsageError(f"{where}: row {row} holds a value that is not a finite number")
    return x, y


def _arrays(path: Path, targets: int, where: str):
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return file["x"], file["y"]
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path, "r") as file:
            return file["x"][:], file["y"][:]
    if path.suffix == ".csv":
        table = np.atleast_2d(np.genfromtxt(path, delimiter=","))
        if len(table) > 1 and np.isnan(table[0]).all():
            table = table[1:]  # a header line
        return table[:, :-targets], table[:, -targets:]
    raise UsageError(f"{where}: its name ends in neither .csv, .npz, .h5 nor .hdf5")


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
