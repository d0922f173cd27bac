"""What a run or a checkpoint is, as one flat table."""

import math
import os
import platform
from pathlib import Path

from nedhpc import config
from nedhpc.files import checkpoint


def info(path):
    """The facts of `nedhpc info`; NotAStateError where path holds no usable checkpoint."""
    path = Path(path)
    file, state, about, skipped = (
        checkpoint.newest(path) if path.is_dir() else (path, *checkpoint.read(path), {})
    )
    stats = {
        key: value.item() if hasattr(value, "item") else value
        for key, value in about["stats"].items()
    }
    settings = config.tomllib.loads(about["config"])

    def number(key):
        value = stats.get(key)
        return None if value is None or math.isnan(value) else value

    def numbers(prefix):
        return {key.removeprefix(prefix): number(key) for key in stats if key.startswith(prefix)}

    metrics = numbers("metrics_")
    if state.coefficients:
        metrics["coefficients"] = {name: float(value) for name, value in state.coefficients.items()}
    return {
        "problem": settings["problem"]["name"],
        "method": stats["method"],
        "status": status(path, stats["status"], about["provenance"]),
        "message": stats["message"],
        "step": state.step,
        "time": state.time,
        "energy": number("energy"),
        "energy_terms": numbers("energy_terms_"),
        "relative_l2": number("relative_l2"),
        "metrics": metrics,
        "projection_error": number("projection_error"),
        "wall_time": state.wall_time,
        "seconds_per_step": stats["seconds_per_step"],
        "num_parameters": stats["num_parameters"],
        "num_points": stats["num_points"],
        "num_ranks": stats["num_ranks"],
        "device": stats["device"],
        "dtype": stats["dtype"],
        "peak_memory_mb": stats["peak_memory_mb"],
        "file": str(file),
        "changes": about["config_changes"],
        "skipped": list(skipped.values()),
    }


def status(path, saved, provenance):
    """`interrupted` for a run that was left running by a process that is gone from this host."""
    if saved != "running":
        return saved
    if (
        path.is_dir()
        and provenance["hosts"].split()[0] == platform.node()
        and not _alive(int(provenance["pid"]))
    ):
        return "interrupted"
    return saved


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
