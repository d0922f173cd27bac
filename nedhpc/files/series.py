"""The time series of a run: kept in memory, rewritten atomically, always readable. Local: one rank writes."""

import logging
import time

import h5py
import numpy as np

from nedhpc.errors import NotAStateError
from nedhpc.files.checkpoint import open_sealed, sealed_file, value
from nedhpc.parallel.phases import PHASES

log = logging.getLogger("nedhpc")

REWRITE_SECONDS = 10.0
UNITS = {"wall_time": "s"}
LONG_NAMES = {
    "step": "accepted steps",
    "time": "time of the flow",
    "dt": "time step taken",
    "energy": "energy on the sample",
    "relative_l2": "relative L2 error",
    "wall_time": "wall time, resumes included",
    "solver/effective_rank": "singular values above cutoff and damping",
    "solver/projection_error": "part of the descent direction outside the tangent space",
}
LONG_NAMES |= {
    f"seconds/{phase}": f"rank 0's seconds since the last entry: {phase}" for phase in PHASES
}


class Series:
    """Equal-length columns by dataset name."""

    def __init__(self, path, columns=None):
        self.path, self.columns = path, columns or {}
        self.written = -np.inf

    @classmethod
    def open(cls, path, last_step):
        """The series of an earlier run, cut at `last_step`; empty, and said so, where the file is missing or does not open."""
        try:
            columns = read(path)
        except NotAStateError as error:
            log.warning("the time series begins anew: %s", error)
            return cls(path)
        kept = columns["step"] <= last_step
        return cls(path, {name: list(values[kept]) for name, values in columns.items()})

    def append(self, entry):
        for name, value in entry.items():
            self.columns.setdefault(name, []).append(value)

    def write(self, force=True):
        """Rewrite the file, at most every 10 s unless forced."""
        if not self.columns or not force and time.monotonic() - self.written < REWRITE_SECONDS:
            return
        with sealed_file(self.path) as file:
            step = file.create_dataset("step", data=np.asarray(self.columns["step"], np.int64))
            step.make_scale("step")
            for name, values in self.columns.items():
                dataset = (
                    step
                    if name == "step"
                    else file.create_dataset(name, data=np.asarray(values, float))
                )
                if name != "step":
                    dataset.dims[0].attach_scale(step)
                dataset.attrs["units"] = UNITS.get(
                    name, "s" if name.startswith("seconds/") else "1"
                )
                dataset.attrs["long_name"] = LONG_NAMES.get(name, name.replace("/", " "))
        self.written = time.monotonic()


def read(path):
    """{dataset name: values} of a series file."""
    columns = {}
    with open_sealed(path) as file:
        file.visititems(
            lambda name, item: (
                columns.update({name: value(item)}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return columns
