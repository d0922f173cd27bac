"""The time series of a run: columns in memory, and a file that is rewritten atomically.

Local: one rank writes.
"""

import logging
import threading
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import h5py
import numpy as np

from nedhpc.errors import NotAStateError, StorageError
from nedhpc.files.folder import set_aside
from nedhpc.files.sealed import open_sealed, sealed_file
from nedhpc.files.tables import value
from nedhpc.parallel.phases import PHASES

log = logging.getLogger("nedhpc")

UNITS = {"wall_time": "s"}
LONG_NAMES = {
    "step": "accepted steps",
    "time": "time of the flow",
    "dt": "time step taken",
    "energy": "energy on the sample",
    "held_out_energy": "energy on points that are not trained on",
    "balanced_energy": "energy on the sample with balanced rows",
    "balanced_held_out_energy": "energy with balanced rows on points that are not trained on",
    "relative_l2": "relative L2 error",
    "wall_time": "wall time, resumes included",
    "solver/effective_rank": "singular values above cutoff and damping",
    "solver/projection_error": "part of the descent direction outside the tangent space",
}
LONG_NAMES |= {
    f"seconds/{phase}": f"rank 0's seconds since the last entry: {phase}" for phase in PHASES
}


class Series:
    """Columns by dataset name, all of the same length. A missing number is NaN.

    Args:
        path: the file.
        columns: earlier entries, {name: numbers}; they must be of equal length.
    """

    def __init__(self, path: str | Path, columns: dict[str, Sequence[float]] | None = None):
        self.path = Path(path)
        # 8 bytes a number, where lists of Python's floats need 32.
        self.columns = {name: array("d", values) for name, values in (columns or {}).items()}
        self._lock = threading.Lock()  # running.rescue writes while the run appends

    @classmethod
    def open(cls, path: str | Path, last_step: int) -> Self:
        """The series of an earlier run up to `last_step`.

        A file that does not open is set aside, with a warning, and the series begins empty.

        Raises:
            StorageError: the system cannot read or rename the file at present.
        """
        path = Path(path)
        try:
            columns = read(path)
        except NotAStateError as error:
            if path.exists():
                try:
                    aside = set_aside(path)
                except OSError as failed:
                    raise StorageError(f"cannot rename {path}: {failed.strerror}") from None
                log.warning("a new time series begins, the old one is %s: %s", aside.name, error)
            else:
                log.warning("a new time series begins: %s", error)
            return cls(path)
        kept = columns["step"] <= last_step
        return cls(path, {name: values[kept] for name, values in columns.items()})

    @property
    def last_step(self) -> int:
        """Step of the last entry; -1 without entries."""
        return int(self.columns.get("step", [-1])[-1])

    def append(self, entry: dict[str, float]) -> None:
        """Append an entry, which must have a `step`."""
        with self._lock:
            # A resumed run may have other terms or metrics than before the resume.
            columns = {name: self._column(name) for name in entry.keys() | self.columns.keys()}
            for name, column in columns.items():
                column.append(entry.get(name, np.nan))

    def amend(self, entry: dict[str, float]) -> None:
        """Add numbers to the last entry; do nothing if there is none."""
        with self._lock:
            for name, number in entry.items() if self._count else ():
                self._column(name)[-1] = number

    @property
    def _count(self) -> int:
        """Number of entries."""
        return len(self.columns.get("step", []))

    def _column(self, name: str) -> array:
        """The column of that name; a new one is NaN in all entries that are there."""
        return self.columns.setdefault(name, array("d", [np.nan]) * self._count)

    def writing(self) -> Callable[[], None]:
        """A function that rewrites the file with the present entries, for files.writer.

        It copies one column at a time, so that a long series is not in memory twice. Entries that
        are appended in the meantime do not count.
        """
        with self._lock:
            columns, count = dict(self.columns), self._count
        return lambda: write(self.path, columns, count)


def write(path: Path, columns: dict[str, array], count: int) -> None:
    """Rewrite the file with the first `count` entries; without any, do nothing. Raises OSError."""
    if not count:
        return
    with sealed_file(path) as file:
        step = file.create_dataset("step", data=np.array(columns["step"][:count], np.int64))
        step.make_scale("step")
        step.attrs.update(described("step"))
        for name in sorted(columns.keys() - {"step"}):
            # The slice is one operation of the interpreter: no entry is appended amid it.
            dataset = file.create_dataset(name, data=np.asarray(columns[name][:count]))
            dataset.dims[0].attach_scale(step)
            dataset.attrs.update(described(name))


def described(name: str) -> dict[str, str]:
    """The attributes `units` and `long_name` of a column."""
    units = UNITS.get(name, "s" if name.startswith("seconds/") else "1")
    return {"units": units, "long_name": LONG_NAMES.get(name, name.replace("/", " "))}


def read(path: str | Path) -> dict[str, np.ndarray]:
    """{dataset name: values} of a series file, columns of one length.

    Raises:
        NotAStateError: the file is not a series, or is torn or corrupt.
    """
    with open_sealed(path) as file:
        return parse(file)


def read_if_intact(path: str | Path) -> dict[str, np.ndarray]:
    """What `read` returns; {} if the file is not written yet, or damaged."""
    try:
        return read(path)
    except NotAStateError:
        return {}


def parse(file: h5py.File) -> dict[str, np.ndarray]:
    """The columns of an open series. If it is malformed, raises h5py's errors or ValueError."""
    columns = {}

    def collect(name, item):
        if isinstance(item, h5py.Dataset):
            columns[name] = value(file, name)

    file.visititems(collect)
    length = columns["step"].shape
    if any(np.shape(column) != length or len(length) != 1 for column in columns.values()):
        raise ValueError("its columns differ in length")
    return columns
