"""march.h5: the parameters of a march in time at the times that output.times asks for. Local.

The datasets are /time (K,) and /theta (K, P). One rank rewrites the file atomically.
"""

from pathlib import Path

import h5py
import numpy as np

from nedhpc.files.sealed import open_sealed, sealed_file
from nedhpc.files.tables import value

NAME = "march.h5"
NOTHING = np.empty(0), np.empty((0, 0))
"""Times and parameters of a march that has none yet."""


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(times (K,), theta (K, P)); both are empty if there is no file.

    Raises:
        NotAStateError: the file is torn or corrupt.
    """
    if not path.exists():
        return NOTHING
    with open_sealed(path) as file:
        return parse(file)


def parse(file: h5py.File) -> tuple[np.ndarray, np.ndarray]:
    """What `read` returns, of an open file; h5py's errors or ValueError if it is malformed."""
    times, theta_KP = value(file, "time"), value(file, "theta")
    if times.ndim != 1 or theta_KP.ndim != 2 or len(times) != len(theta_KP):
        raise ValueError("its times and its parameters do not belong together")
    return times, theta_KP


def write(path: Path, times: np.ndarray, theta_KP: np.ndarray) -> None:
    """Rewrite the file. OSError if the disk is full."""
    with sealed_file(path) as file:
        time = file.create_dataset("time", data=times)
        time.make_scale("time")
        theta = file.create_dataset("theta", data=theta_KP)
        theta.dims[0].attach_scale(time)
        theta.dims[0].label, theta.dims[1].label = "time", "parameter"
        for dataset, long_name in ((time, "time of the march"), (theta, "parameters")):
            dataset.attrs.update({"long_name": long_name, "units": "1"})
