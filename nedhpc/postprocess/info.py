"""The facts of a run or a checkpoint, as one table."""

import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nedhpc import config_text
from nedhpc.files import checkpoint
from nedhpc.files.lock import is_held
from nedhpc.files.record import RunRecord

NUMBERS = (
    "energy",
    "held_out_energy",
    "balanced_energy",
    "balanced_held_out_energy",
    "relative_l2",
    "projection_error",
)
"""Numbers that are None if they were not measured."""
FACTS = (
    "start_error",
    "seconds_per_step",
    "num_parameters",
    "num_points",
    "num_ranks",
    "device",
    "dtype",
    "peak_memory_mb",
)
"""Entries of /stats that are reported as they are."""


def info(path: str | Path) -> dict[str, Any]:
    """The facts that `nedhpc info` reports, as JSON stores them. Local.

    Args:
        path: a run folder, whose newest checkpoint is read, or a checkpoint.

    Raises:
        NotAStateError: the path holds no usable checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        file, state, record, skipped = checkpoint.newest(path)
    else:
        file, skipped = path, {}
        state, record = checkpoint.read(path)
    stats = {key: _plain(value) for key, value in record.stats.items()}
    coefficients = _coefficients(stats, state)
    metrics = _with_prefix(stats, "metrics_")
    metrics |= {"coefficients": coefficients} if coefficients else {}
    measured = {name: stats.get(name) for name in NUMBERS}
    return {
        "problem": _problem_name(record),
        "method": stats.get("method"),
        "status": status(path, stats.get("status"), record),
        "message": stats.get("message", ""),
        "step": state.step,
        "time": state.time,
        "energy": measured["energy"],
        "energy_terms": _with_prefix(stats, "energy_terms_"),
        "held_out_energy": measured["held_out_energy"],
        "balanced_energy": measured["balanced_energy"],
        "balanced_held_out_energy": measured["balanced_held_out_energy"],
        "relative_l2": measured["relative_l2"],
        "error_estimate": stats.get("error_estimate"),
        "error_estimates": _with_prefix(stats, "error_estimate_"),
        "error_is": error_is(stats),
        "windows": [piece.end for piece in state.pieces] + list(state.window or ())[1:],
        "warnings": [line for line in str(stats.get("warnings") or "").split("\n") if line],
        "metrics": metrics,
        "coefficients": coefficients,
        "coefficient_errors": _with_prefix(stats, "coefficient_error_"),
        "projection_error": measured["projection_error"],
        "wall_time": state.wall_time,
        **{name: stats.get(name) for name in FACTS},
        "threads": record.threads,
        "file": str(file),
        "changes": record.changes,
        "skipped": list(skipped.values()),
    }


def error_is(stats: Mapping[str, Any]) -> str:
    """How the error is known, by the facts of a run: one of the texts below. Local."""
    if stats.get("relative_l2") is not None:
        return "measured"
    if stats.get("error_estimate") is None:
        return "unknown"
    return "estimated from two solutions" if stats.get("has_second") else "estimated"


def _plain(value):
    """A number or string of Python; None if it is not finite, which JSON does not have."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _coefficients(stats, state):
    """Those of singular functions, then those of the problem."""
    found = {name: value for name, value in stats.items() if name.startswith("singular_")}
    return found | {name: _plain(value) for name, value in state.coefficients.items()}


def _with_prefix(stats, prefix):
    return {
        key.removeprefix(prefix): value for key, value in stats.items() if key.startswith(prefix)
    }


def _problem_name(record: RunRecord) -> str | None:
    """The name of the problem; None if the record's config has none."""
    problem = config_text.parse(record.config).get("problem")
    return problem.get("name") if isinstance(problem, dict) else None


def status(path: Path, saved: str | None, record: RunRecord) -> str | None:
    """The status. It is `interrupted` if no process writes in the run folder any more. Local.

    On a file system without locks, only the processes of this host are known.

    Args:
        path: the run folder or a checkpoint file. A file keeps the status that it has.
        saved: the status in the newest checkpoint.
        record: the record of the same checkpoint.
    """
    if saved != "running" or not path.is_dir():
        return saved
    is_running, hosts = is_held(path), str(record.provenance.get("hosts", "")).split()
    if is_running is None:
        here = hosts[:1] == [platform.node()]
        is_running = not here or _alive(int(record.provenance.get("pid", 0)))
    return saved if is_running else "interrupted"


def _alive(pid):
    """True if a process of this host has the pid and is not a zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return True
