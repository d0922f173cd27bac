"""State files: one HDF5 file a checkpoint, written whole or not at all, checked to the last byte, opened without running code.

docs/file_format.md describes the layout. Local: the caller picks the rank that writes.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from nedhpc.errors import FutureSchemaError, NotAStateError

FORMAT, SCHEMA_VERSION = "nedhpc-checkpoint", 1
SEAL, SEAL_BYTES = b"nedhpc sha256 ", 512
"""Start and length of a file's first block, HDF5's user block, which HDF5 itself skips."""
TABLES = ("user_files", "sampling", "provenance", "stats")
"""Flat groups that are read as they were written."""


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


def seal(digest):
    """The first block of a file whose other bytes have this SHA-256."""
    return (SEAL + digest.hexdigest().encode() + b"\n").ljust(SEAL_BYTES, b"\0")


def replace(path, *parts):
    """Put bytes under `path`, complete and flushed to disk, or leave what is there. OSError where the disk does not take them."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def sealed_file(path):
    """An h5py.File that appears under `path` sealed and complete, or not at all.

    It is made in memory, so that the SHA-256 covers what was meant to be written, and a full disk is one OSError.
    """
    with h5py.File("image", "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    replace(path, seal(hashlib.sha256(image)), image)


@contextlib.contextmanager
def open_sealed(path):
    """The h5py.File of a sealed file; NotAStateError where a byte is missing or not as it was written, or the content is malformed.

    HDF5 sees the file only after its SHA-256 was found right, so that a damaged one cannot mislead it.
    """
    try:
        with open(path, "rb") as raw:
            first, digest = raw.read(SEAL_BYTES), hashlib.sha256()
            if not first.startswith(SEAL):
                raise NotAStateError(f"{path} is no file of nedhpc, or its start is damaged")
            while piece := raw.read(2**20):
                digest.update(piece)
        if first != seal(digest):
            raise NotAStateError(
                f"{path} is torn or corrupt: its SHA-256 is not the one it was written with"
            )
        with h5py.File(path, "r") as file:
            yield file
    except (
        OSError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
        MemoryError,
    ) as error:
        raise NotAStateError(
            f"{path} cannot be read: {str(error) or type(error).__name__}"
        ) from None


def value(item):
    """What a dataset holds, strings as str."""
    return text(item) if h5py.check_string_dtype(item.dtype) else _modest(item)[()]


def text(item):
    """The string or strings that a dataset holds."""
    return _modest(item).asstr()[()]


def _modest(item):
    """The dataset, unless it claims more bytes than its file has: refused before memory is taken."""
    claimed, present = item.nbytes, item.file.id.get_filesize()
    if claimed > present:
        raise ValueError(f"{item.name} claims {claimed} bytes, the file has {present}")
    return item


def _table(group):
    return {name: value(item) for name, item in group.items()}


def write(run_dir, state, about, keep):
    """Write RUN_DIR/checkpoint-<step>.h5 atomically, then delete all but the last `keep`; `about` as `read` returns it."""
    path = Path(run_dir) / f"checkpoint-{state.step:010d}.h5"
    with sealed_file(path) as file:
        file.attrs["format"], file.attrs["schema_version"] = FORMAT, SCHEMA_VERSION
        file["config"] = about["config"]
        for name in ("config_history", "config_changes"):
            file.create_dataset(name, data=about[name], dtype=h5py.string_dtype())
        file["state/theta"] = state.theta_P
        file["state/theta"].attrs["layout"] = about["layout"]
        clock = {
            "step": state.step,
            "time": state.time,
            "dt": state.dt,
            "wall_time": state.wall_time,
        }
        for group, table in (
            ("state/coefficients", state.coefficients),
            ("state/clock", clock),
            ("stepper", state.stepper),
            *((name, about[name]) for name in TABLES),
        ):
            created = file.create_group(group, track_order=True)
            for name, entry in table.items():
                created[name] = entry
        file["sampling/draw"] = state.draw
        for name, entry in state.selection.items():
            file[f"sampling/selection/{name}"] = entry
        file.attrs["complete"] = True
    for old in paths(run_dir)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def paths(run_dir):
    """Checkpoints of a run folder, oldest first."""
    return sorted(Path(run_dir).glob("checkpoint-??????????.h5"))


def any_in(run_dir):
    """Whether the folder holds a run to continue, be it damaged; one killed before its first checkpoint left none."""
    return any(Path(run_dir).glob("checkpoint-*.h5*"))


def read(path):
    """(State, about) of a checkpoint, `about` a dict of config, config_history, config_changes, layout and TABLES.

    NotAStateError if it is none, torn or corrupt; FutureSchemaError if a later nedhpc wrote it.
    """
    with open_sealed(path) as file:
        if file.attrs.get("format") != FORMAT:
            raise NotAStateError(f"{path} is no nedhpc checkpoint")
        if file.attrs["schema_version"] > SCHEMA_VERSION:
            raise FutureSchemaError(
                f"{path} has schema version {file.attrs['schema_version']}; this nedhpc reads up to {SCHEMA_VERSION}: "
                "update nedhpc"
            )
        if not file.attrs.get("complete", False):
            raise NotAStateError(f"{path} is incomplete")
        clock, sampling = _table(file["state/clock"]), dict(file["sampling"])
        selection = _table(sampling.pop("selection", {}))
        draw = int(value(sampling.pop("draw")))
        state = State(
            value(file["state/theta"]),
            _table(file["state/coefficients"]),
            int(clock["step"]),
            float(clock["time"]),
            float(clock["dt"]),
            _table(file["stepper"]),
            draw,
            float(clock["wall_time"]),
            selection,
        )
        if state.theta_P.ndim != 1 or state.theta_P.dtype != np.float64:
            raise ValueError(
                f"theta has shape {state.theta_P.shape} and type {state.theta_P.dtype}; needed is a float64 vector"
            )
        about = {
            "config": text(file["config"]),
            "layout": list(map(str, file["state/theta"].attrs["layout"])),
            "config_history": list(text(file["config_history"])),
            "config_changes": list(text(file["config_changes"])),
        }
        about |= {name: _table(file[name]) for name in TABLES if name != "sampling"}
        about["sampling"] = {name: value(item) for name, item in sampling.items()}
        return state, about


def newest(run_dir):
    """(path, State, about) of the newest checkpoint that opens, and {path: error} of newer ones that do not."""
    skipped = {}
    for path in reversed(paths(run_dir)):
        try:
            return path, *read(path), skipped
        except FutureSchemaError:
            raise
        except NotAStateError as error:
            skipped[path] = str(error)
    raise NotAStateError("\n".join([f"{run_dir} holds no usable checkpoint", *skipped.values()]))


def layout(network):
    """A network's parameters by name, shape and offset in theta, as `about` keeps them."""
    return [
        f"{block.name} {'x'.join(map(str, block.shape))} {block.offset}" for block in network.layout
    ]


def tidy(run_dir, step):
    """Before a run continues after `step`: delete what a killed one left half-written, set newer checkpoints aside (they do not open)."""
    for left in Path(run_dir).glob(".*.*.[0-9]*"):
        left.unlink(missing_ok=True)
    for path in paths(run_dir):
        if int(path.stem[-10:]) > step:
            path.rename(path.with_name(path.name + ".aside"))
