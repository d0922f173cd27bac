"""uncertainty.h5: the covariance of the parameters at the end of a run with noisy data. Local.

The datasets are /factor (P, P), F with cov(theta, c) = F F^T, and /step, the step of the state that
it belongs to. One rank rewrites the file atomically.
"""

from pathlib import Path

import h5py
import numpy as np

from nedhpc.files.sealed import open_sealed, sealed_file
from nedhpc.files.tables import value

NAME = "uncertainty.h5"
NOTHING = -1, np.empty((0, 0))
"""Step and factor if no covariance is known."""


def read(path: Path) -> tuple[int, np.ndarray]:
    """(step, factor (P, P)); NOTHING if there is no file.

    Raises:
        NotAStateError: the file is torn or corrupt.
    """
    if not path.exists():
        return NOTHING
    with open_sealed(path) as file:
        return parse(file)


def parse(file: h5py.File) -> tuple[int, np.ndarray]:
    """What `read` returns, of an open file; h5py's errors or ValueError if it is malformed."""
    step, factor_PP = int(value(file, "step")), value(file, "factor")
    if factor_PP.ndim != 2 or factor_PP.shape[0] != factor_PP.shape[1]:
        raise ValueError("its factor is no square matrix")
    return step, factor_PP


def write(path: Path, step: int, factor_PP: np.ndarray) -> None:
    """Rewrite the file. OSError if the disk is full."""
    with sealed_file(path) as file:
        file.create_dataset("step", data=step)
        factor = file.create_dataset("factor", data=factor_PP)
        factor.dims[0].label, factor.dims[1].label = "parameter", "factor"
        long_name = "F with F F^T the covariance of the parameters and coefficients"
        factor.attrs.update({"long_name": long_name, "units": "1"})


def standard_errors(factor_PP: np.ndarray, rows_KP: np.ndarray) -> np.ndarray:
    """Standard errors (K,) of linear functions of (theta, c), e.g. of u at points. Local.

    Args:
        factor_PP: of flows/uncertainty.py.
        rows_KP: their derivatives in the parameters.
    """
    return np.linalg.norm(rows_KP @ factor_PP, axis=1)
