"""State files: one HDF5 file a checkpoint, written whole or not at all, opened without running code.

Layout (schema version 1): /config, /user_files, /state/{theta, coefficients, clock}, /stepper, /sampling, /provenance,
/stats; attributes
`format`, `schema_version` and, last, `complete`. Local: the caller picks the rank that writes.
"""

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from nedhpc.errors import NotAStateError

FORMAT, SCHEMA_VERSION = "nedhpc-checkpoint", 1


@dataclass(slots=True)
class State:
    """All that a run continues from."""

    theta_P: np.ndarray
    """Network parameters, float64."""
    coefficients: dict[str, float]
    step: int
    time: float
    dt: float
    """The next step's."""
    stepper: dict = field(default_factory=dict)
    draw: int = 0
    """Number of the sample's draw."""
    wall_time: float = 0.0
    selection: dict = field(default_factory=dict)
    """What rule `residual` chose last: its `draw`, and the points' `index` in the pool and `weight`."""


@contextmanager
def atomic_file(path):
    """An h5py.File that appears under `path` complete and flushed to disk, or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with h5py.File(temporary, "w") as file:
            yield file
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write(run_dir, state, config_toml, history, user_files, layout, sampling, provenance, stats, keep):
    """Write RUN_DIR/checkpoint-<step>.h5 atomically, then delete all but the last `keep`."""
    path = Path(run_dir) / f"checkpoint-{state.step:010d}.h5"
    with atomic_file(path) as file:
        file.attrs["format"], file.attrs["schema_version"] = FORMAT, SCHEMA_VERSION
        file["config"] = config_toml
        file.create_dataset("config_history", data=history or [config_toml], dtype=h5py.string_dtype())
        theta = file.create_dataset("state/theta", data=state.theta_P, chunks=True if len(state.theta_P) else None, fletcher32=bool(len(state.theta_P)))
        theta.attrs["layout"] = [f"{b.name} {'x'.join(map(str, b.shape))} {b.offset}" for b in layout]
        for group, table in (("user_files", user_files), ("state/coefficients", state.coefficients), ("stepper", state.stepper), ("sampling", sampling),
                             ("provenance", provenance), ("stats", stats),
                             ("state/clock", {"step": state.step, "time": state.time, "dt": state.dt, "wall_time": state.wall_time})):
            created = file.create_group(group)
            for name, value in table.items():
                created[name] = value
        file["sampling/draw"] = state.draw
        for name, value in state.selection.items():
            file[f"sampling/selection/{name}"] = value
        file.attrs["complete"] = True
    for old in paths(run_dir)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def paths(run_dir):
    """Checkpoints of a run folder, oldest first."""
    return sorted(Path(run_dir).glob("checkpoint-??????????.h5"))


def read(path):
    """(State, {"config", "history", "layout", "provenance", "stats"}) of a checkpoint; NotAStateError if it is none, or torn."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise NotAStateError(f"{path} is no nedhpc checkpoint")
            if file.attrs["schema_version"] > SCHEMA_VERSION:
                raise NotAStateError(f"{path} has schema version {file.attrs['schema_version']}; this nedhpc reads up to "
                                     f"{SCHEMA_VERSION}: update nedhpc")
            if not file.attrs.get("complete", False):
                raise NotAStateError(f"{path} is incomplete")
            clock = _table(file["state/clock"])
            state = State(file["state/theta"][:], _table(file["state/coefficients"]), int(clock["step"]), float(clock["time"]),
                          float(clock["dt"]), _table(file["stepper"]), int(file["sampling/draw"][()]), float(clock["wall_time"]),
                          _table(file["sampling/selection"]) if "selection" in file["sampling"] else {})
            about = {"config": file["config"].asstr()[()], "history": list(file["config_history"].asstr()[:]),
                     "layout": list(file["state/theta"].attrs["layout"]), "provenance": _table(file["provenance"]),
                     "stats": _table(file["stats"]), "user_files": _table(file["user_files"])}
            return state, about
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise NotAStateError(f"{path} cannot be read as a checkpoint: {error}") from None


def _table(group):
    def value(item):
        return item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]
    return {name: value(item) for name, item in group.items()}


def newest(run_dir):
    """(path, State, about) of the newest checkpoint that opens, and the errors of newer ones that do not."""
    skipped = []
    for path in reversed(paths(run_dir)):
        try:
            return path, *read(path), skipped
        except NotAStateError as error:
            skipped.append(str(error))
    raise NotAStateError("\n".join([f"{run_dir} holds no usable checkpoint", *skipped]))
