"""Checkpoints. Each is one sealed HDF5 file, which is read without running code from it.

The file docs/file_format.md describes the layout. Local: the caller chooses the rank that writes.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from nedhpc.errors import FutureSchemaError, NotAStateError
from nedhpc.files import possible
from nedhpc.files.descriptions import describe
from nedhpc.files.folder import set_aside
from nedhpc.files.record import RunRecord
from nedhpc.files.sealed import names, open_sealed, sealed_file
from nedhpc.files.tables import read_table, value, write_table

FORMAT, SCHEMA_VERSION = "nedhpc-checkpoint", 2
NAME = re.compile(r"checkpoint-([0-9]{10})\.h5")
ASIDE = re.compile(NAME.pattern + r"\.aside(\.[0-9]+)?")
LEFT_OVER = re.compile(r"\.(checkpoint-[0-9]{10}\.h5|series\.h5|config\.toml)\.[0-9]+")
"""Names of the files that sealed.replace leaves if it is killed."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The solution on a time window that is solved."""

    start: float
    end: float
    theta_P: np.ndarray
    """Network parameters, float64."""
    scaling: dict[str, np.ndarray]
    """As State.scaling."""


@dataclass(slots=True)
class State:
    """Everything from which a run continues."""

    theta_P: np.ndarray
    """Network parameters, float64."""
    coefficients: dict[str, float]
    step: int
    time: float
    dt: float
    """Time step for the next step."""
    stepper: dict = field(default_factory=dict)
    draw: int = 0
    """Number of the sample's draw. Without resample_every, it counts the moves to the residual."""
    wall_time: float = 0.0
    """Seconds of wall time, summed over the start and all resumes."""
    selection: dict = field(default_factory=dict)
    """Last choice by the residual: `draw`, and the points' `index` in the pool and `weight`."""
    scaling: dict[str, np.ndarray] = field(default_factory=dict)
    """Arrays of ansatz.scaling.Scaling; {}: the identity, as in files of schema 1."""
    reference_P: np.ndarray | None = None
    """Parameters and coefficients at which the rows are balanced; None: they are not."""
    growth: int = 0
    """The sample has 2^growth times as many points as the config asks for."""
    window: tuple[float, float] | None = None
    """Start and end of the time window that is solved now; None: there are no windows."""
    pieces: tuple[Piece, ...] = ()
    """The windows before it."""
    adaptation: dict = field(default_factory=dict)
    """Memory of running.adaptation, {name: number or array}."""
    observers: dict[str, dict] = field(default_factory=dict)
    """Memory of the user's observers, {name: {name: number, text or array}}."""

    @property
    def parameters(self) -> np.ndarray:
        """theta, then the coefficients, (P,) float64."""
        return np.concatenate([self.theta_P, list(self.coefficients.values())])


def write(run_dir: str | Path, state: State, record: RunRecord, keep: int) -> Path:
    """Write RUN_DIR/checkpoint-<step>.h5 atomically, then delete all but the newest `keep`.

    Args:
        run_dir: run folder.
        state: the state.
        record: what the file holds beside the state.
        keep: number of checkpoints that stay.

    Returns:
        The file.

    Raises:
        OSError: the disk does not store the file; the earlier checkpoints are untouched.
    """
    path = Path(run_dir) / f"checkpoint-{state.step:010d}.h5"
    with sealed_file(path) as file:
        file.attrs["format"], file.attrs["schema_version"] = FORMAT, SCHEMA_VERSION
        file["state/theta"] = state.theta_P
        clock = {
            "step": state.step,
            "time": state.time,
            "dt": state.dt,
            "wall_time": state.wall_time,
        }
        for name, table in (
            ("state/coefficients", state.coefficients),
            ("state/clock", clock),
            ("stepper", state.stepper),
        ):
            write_table(file.create_group(name, track_order=True), table)
        record.write(file)
        file["sampling/draw"] = state.draw
        if state.selection:
            write_table(file.create_group("sampling/selection"), state.selection)
        _write_frozen(file, state)
        describe(file)
        file.attrs["complete"] = True
    for old in paths(run_dir)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def _write_frozen(file: h5py.File, state: State) -> None:
    """Write what stays fixed between two changes of scales, sample or window."""
    file["sampling/growth"] = state.growth
    if state.scaling:
        write_table(file.create_group("scaling"), state.scaling)
    if state.reference_P is not None:
        file["balance/reference"] = state.reference_P
    if state.window is not None:
        file["windows/now"] = np.array(state.window)
    for number, piece in enumerate(state.pieces):
        group = file.create_group(f"windows/{number:04d}")
        group["theta"], group["times"] = piece.theta_P, np.array([piece.start, piece.end])
        write_table(group.create_group("scaling"), piece.scaling)
    if state.adaptation:
        write_table(file.create_group("adaptation"), state.adaptation)
    for name, table in state.observers.items():
        write_table(file.create_group(f"observers/{name}"), table)


def _read_frozen(file: h5py.File) -> dict:
    """The fields of State that `_write_frozen` stores; their defaults in a file of schema 1."""
    found, windows = {}, file.get("windows", {})
    if "growth" in file["sampling"]:
        growth, limit = value(file["sampling"], "growth"), possible.MAX_GROWTH
        found["growth"] = possible.count(growth, "growth", -limit, limit)
    if "scaling" in file:
        found["scaling"] = possible.scaling(read_table(file["scaling"]))
    if "balance" in file:
        found["reference_P"] = value(file["balance"], "reference")
    if "now" in windows:
        found["window"] = possible.interval(*value(windows, "now").tolist())
    if "adaptation" in file:
        found["adaptation"] = read_table(file["adaptation"])
    observers = file.get("observers", {})
    found["observers"] = {name: read_table(observers[name]) for name in observers}
    found["pieces"] = tuple(
        Piece(
            *possible.interval(*value(windows[name], "times").tolist()),
            value(windows[name], "theta"),
            possible.scaling(read_table(windows[name]["scaling"])),
        )
        for name in sorted(windows)
        if name != "now"
    )
    return found


def paths(run_dir: str | Path) -> list[Path]:
    """Files of a run folder's checkpoints, oldest first. StorageError if it cannot be read."""
    return [Path(run_dir) / name for name in sorted(names(run_dir)) if NAME.fullmatch(name)]


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(NAME.fullmatch(path.name)[1])


def any_in(run_dir: str | Path) -> bool:
    """True if the folder holds a run to continue, even a damaged one.

    A run that was killed before its first checkpoint does not count.
    """
    return any(NAME.fullmatch(name) or ASIDE.fullmatch(name) for name in names(run_dir))


def read(path: str | Path) -> tuple[State, RunRecord]:
    """The state and the record of a checkpoint.

    Raises:
        NotAStateError: the file is not a checkpoint, or is torn or corrupt.
        FutureSchemaError: a later nedhpc wrote it.
        StorageError: the system cannot read it at present.
    """
    with open_sealed(path) as file:
        return parse(file, path)


def parse(file: h5py.File, path: str | Path) -> tuple[State, RunRecord]:
    """The state and the record in an open checkpoint; `path` is for messages. Raises as `read`."""
    if file.attrs.get("format") != FORMAT:
        raise NotAStateError(f"{path} is not a checkpoint of nedhpc")
    version = int(file.attrs["schema_version"])
    if version > SCHEMA_VERSION:
        raise FutureSchemaError(
            f"{path} has schema version {version}; this nedhpc reads up to {SCHEMA_VERSION}: "
            "update nedhpc"
        )
    if version < 1 or not file.attrs.get("complete", False):
        raise NotAStateError(f"{path} is incomplete")
    return _read_state(file), RunRecord.read(file)


def _read_state(file: h5py.File) -> State:
    """The state in an open checkpoint. Raises ValueError if its numbers are not possible."""
    clock, sampling = read_table(file["state/clock"]), file["sampling"]
    known = read_table(file["state/coefficients"]).items()
    state = State(
        possible.numbers(value(file["state"], "theta"), "theta"),
        {name: possible.number(entry, name) for name, entry in known},
        possible.count(clock["step"], "step"),
        possible.number(clock["time"], "time"),
        possible.number(clock["dt"], "dt"),
        possible.memory(read_table(file["stepper"])),
        possible.count(value(sampling, "draw"), "draw"),
        possible.number(clock["wall_time"], "wall time"),
        possible.selection(read_table(sampling["selection"]) if "selection" in sampling else {}),
        **_read_frozen(file),
    )
    possible.check(state)
    return state


def newest(run_dir: str | Path) -> tuple[Path, State, RunRecord, dict[Path, str]]:
    """The newest checkpoint that opens.

    Returns:
        (file, state, record, {file: error} of newer checkpoints that do not open).

    Raises:
        NotAStateError: no checkpoint opens.
        FutureSchemaError: a later nedhpc wrote a newer one, which would be lost silently.
        StorageError: the system cannot read a newer one at present; it may be intact.
    """
    skipped = {}
    for path in reversed(paths(run_dir)):
        try:
            return path, *read(path), skipped
        except FutureSchemaError:
            raise
        except NotAStateError as error:
            skipped[path] = str(error)
    raise NotAStateError("\n".join([f"{run_dir} holds no usable checkpoint", *skipped.values()]))


def layout(network) -> list[str]:
    """Name, shape and offset of each array of a network's parameters, as RunRecord keeps them."""
    return [
        f"{block.name} {'x'.join(map(str, block.shape))} {block.offset}" for block in network.layout
    ]


def belongs(state: State, record: RunRecord, layout: list[str]) -> bool:
    """True if the parameters of a checkpoint are those of a network with this layout."""
    return layout == record.layout and len(state.theta_P) == _size(layout)


def _size(layout):
    """Number of parameters of a layout: the end of its last array."""
    if not layout:
        return 0
    _, shape, offset = layout[-1].rsplit(" ", 2)
    size = 1
    for length in shape.split("x") if shape else []:
        size *= int(length)
    return int(offset) + size


def tidy(run_dir: str | Path, step: int) -> None:
    """Prepare the folder of a run that continues after `step`.

    Files that a killed run left half-written are deleted. Newer checkpoints, which do not open, are
    renamed to *.aside.
    """
    for path in (Path(run_dir) / name for name in names(run_dir)):
        if LEFT_OVER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
    for path in paths(run_dir):
        if step_of(path) > step:
            set_aside(path)
