"""How a run continues: its folder, its newest checkpoint, and which settings may change.

A resumed run may change every setting except those that its parameters, points and data depend on.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from nedhpc.config import Config
from nedhpc.errors import ConfigError, UsageError, shortened
from nedhpc.files import checkpoint
from nedhpc.files.checkpoint import State
from nedhpc.files.folder import no_place
from nedhpc.files.record import RunRecord
from nedhpc.files.sealed import make_folder, replace
from nedhpc.parallel.comm import on_rank_0

log = logging.getLogger("nedhpc")

KEPT = {
    "network": "theta belongs to that network",
    "problem.name": "theta solves that problem",
    "problem.dim": "theta belongs to a problem of that dimension",
    "problem.held_out": "rows that were trained on would be held out",
    "problem.split_seed": "rows that were trained on would be held out",
    "run.seed": "the points drawn so far are those of that seed",
    "run.start": "it acts at step 0 only",
    "run.initial": "it acts at step 0 only",
    "run.windows": "the windows before the present one are solved",
}
"""Keys and tables that a resumed run keeps, and why."""
FILES = ("problem.name", "network.name", "problem.file")
"""Keys that name a file, which may have moved."""
FORGETTING = (
    "problem",
    "sampling",
    "weights",
    "flow",
    "stepper.type",
    "stepper.spring.damping",
    "device.dtype",
)
"""If one of these changes, a stepper's memory of past steps has no meaning."""
REMEDY = "start another run, with run.initial = a checkpoint to begin from its theta"


def prepare(run_dir: str | Path, config: Config, step: int | None) -> None:
    """Delete from the run folder what a killed run left, and write config.toml. Local.

    Args:
        run_dir: the folder; it is made if it does not exist.
        config: the config of this start.
        step: the step after which the run continues; None for a new run.

    Raises:
        UsageError: a new run would write into an old one's folder, or the folder is not writable.
    """
    try:
        make_folder(run_dir)
        if step is None and checkpoint.any_in(run_dir):
            raise UsageError(
                f"{run_dir} already holds a run; continue it with `nedhpc resume {run_dir}` or "
                "--resume auto, or give another --out"
            )
        checkpoint.tidy(run_dir, step or 0)
        write_config(run_dir, config)
    except OSError as error:
        raise no_place(run_dir, error) from None


def write_config(run_dir: str | Path, config: Config) -> None:
    """Write config.toml, the settings with which the run goes on. Local. Raises OSError."""
    replace(Path(run_dir) / "config.toml", config.toml().encode())


def load_resume(comm, run_dir: str | Path) -> tuple[State, RunRecord]:
    """The newest checkpoint that opens, read by rank 0 only. Collective on comm.

    Raises:
        NotAStateError: the folder holds no checkpoint that opens.
    """
    path, state, record, skipped = on_rank_0(comm, checkpoint.newest, run_dir)
    for error in skipped.values() if comm.rank == 0 else []:
        log.warning("%s; it is set aside, the run continues from %s", error, path.name)
    return state, record


def changes(old: Config, new: Config) -> dict[str, tuple]:
    """{key: (old value, new value)} of the settings that differ. Local."""
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before | after)
        if before.get(key) != after.get(key)
    }


def _flat(table, prefix=""):
    flat = {}
    for key, entry in table.items():
        flat |= (
            _flat(entry, f"{prefix}{key}.") if isinstance(entry, dict) else {prefix + key: entry}
        )
    return flat


def _under(key, names):
    """The entry of `names` that is the key or one of its tables; None if there is none."""
    return next((name for name in names if key == name or key.startswith(name + ".")), None)


def adapt(
    state: State, record: RunRecord, config: Config, user_files: dict[str, str]
) -> tuple[State, RunRecord, list[str]]:
    """The state and the record with which a run continues under `config`. Local.

    Args:
        state: that of the checkpoint; it is changed in place.
        record: that of the checkpoint.
        config: the config of this start.
        user_files: SHA-256 of the files that `config` names.

    Returns:
        (state, record, lines of text that say what changed).

    Raises:
        ConfigError: the changes that are refused.
    """
    changed = changes(record.parsed(), config)
    notes = [f"{key} = {new!r} (was {old!r})" for key, (old, new) in changed.items()]
    edited = [
        key
        for key, digest in user_files.items()
        if key.partition(":")[0] in FILES[:2] and digest != record.user_files.get(key)
    ]
    notes += [f"{key}: the file's content changed" for key in edited]
    changed = {key: pair for key, pair in changed.items() if not _moved(key, *pair)}
    refused = [
        f"{key}: {old!r} cannot become {new!r} in a run that continues: "
        f"{KEPT[_under(key, KEPT)]}; {REMEDY}"
        for key, (old, new) in changed.items()
        if _under(key, KEPT)
    ]
    if refused:
        raise ConfigError(refused)
    if any(_under(key, FORGETTING) for key in [*changed, *edited]) and len(state.stepper) > 1:
        state.stepper = {}
        notes.append("the stepper begins without memory of the steps before")
    if any(_under(key, ("sampling",)) for key in changed):
        state.draw, state.selection = 0, {}
    if "stepper.type" in changed or "stepper.dt" in changed:
        state.dt = config.stepper.dt
    if notes:
        record = record.changed(config, f"after step {state.step}: {'; '.join(notes)}")
    return state, record, notes


def _moved(key, old, new):
    """True if only the path of a file differs. Its content is compared elsewhere."""
    return (
        key in FILES
        and bool(old)
        and bool(new)
        and (
            key == "problem.file" or ":" in old and old.rpartition(":")[2] == new.rpartition(":")[2]
        )
    )


def check(
    state: State,
    record: RunRecord,
    *,
    layout: list[str],
    coefficients: Sequence[str],
    data_sha256: str,
    user_files: dict[str, str],
) -> None:
    """Check that a state belongs to a run's network, coefficients and data. Local.

    Args:
        state: that of the checkpoint; its coefficients are put in the problem's order.
        record: that of the checkpoint.
        layout: that of the network, as checkpoint.layout returns it.
        coefficients: names of the problem's coefficients.
        data_sha256: digest of the data set's split; "" without data.
        user_files: SHA-256 of the files that the config names, and of the problem's tables.

    Raises:
        UsageError: what differs.
    """
    if not checkpoint.belongs(state, record, layout):
        raise UsageError(
            f"the checkpoint's parameters ({record.parameters}) are not this network's "
            f"({shortened(', '.join(layout))}); {REMEDY}"
        )
    if sorted(state.coefficients) != sorted(coefficients):
        raise UsageError(
            f"the checkpoint has the coefficients {sorted(state.coefficients)}, the problem "
            f"{sorted(coefficients)}; {REMEDY}"
        )
    file = "problem.file"
    if (data_sha256, user_files.get(file)) != (
        record.sampling["data_sha256"],
        record.user_files.get(file),
    ):
        raise UsageError(
            "the data set or its split is not what the run was trained on; restore it, or " + REMEDY
        )
    tables = [
        {key.partition(":")[2]: sha for key, sha in files.items() if key.startswith("table:")}
        for files in (record.user_files, user_files)
    ]
    for name in sorted(tables[0].keys() | tables[1].keys()):
        if tables[0].get(name) != tables[1].get(name):
            raise UsageError(
                f"the table `{name}` of the problem is not the one that the run was started with; "
                f"restore its file and its options, or {REMEDY}"
            )
    state.coefficients = {name: state.coefficients[name] for name in coefficients}
