"""Several runs side by side, and against limits or an earlier comparison. Local."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nedhpc.errors import NedError, UsageError
from nedhpc.files import series
from nedhpc.postprocess.curves import names
from nedhpc.postprocess.info import info
from nedhpc.postprocess.tables import duration, number

TARGETS = (1e-3, 1e-4, 1e-5, 1e-6)
"""Relative L2 errors whose first times are compared."""
KEPT = (
    "problem",
    "method",
    "status",
    "step",
    "relative_l2",
    "error_estimate",
    "error_is",
    "energy",
    "held_out_energy",
    "wall_time",
    "seconds_per_step",
    "peak_memory_mb",
    "num_parameters",
    "num_points",
    "num_ranks",
)
"""Facts of `nedhpc info` that are compared."""
LIMITS = ("relative_l2", "wall_time", "seconds_per_step", "peak_memory_mb", "time_to")
"""Facts that may be limits: a run falls short if it has more."""
TITLES = (
    "run",
    "status",
    "steps",
    "error",
    "energy",
    *(f"to {target:.0e}".replace("e-0", "e-") for target in TARGETS),
    "total",
    "a step",
    "MB",
)


class ShortError(NedError):
    """A run falls short of what it is compared with."""


def facts(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The facts of each run, as JSON stores them.

    Args:
        paths: run folders.

    Returns:
        For each run its name `run`, the facts KEPT, and `time_to`: {"1e-03": seconds of wall time
        until the relative L2 error is that small, or None}.

    Raises:
        NotAStateError: a folder holds no usable checkpoint.
    """
    found, known_as = [], names([Path(path).resolve() for path in paths])
    for path, name in zip(paths, known_as, strict=True):
        known = info(path)
        time_to = _times(Path(path))
        found.append({"run": name, **{key: known[key] for key in KEPT}, "time_to": time_to})
    return found


def _times(path: Path) -> dict[str, float | None]:
    """The wall time until each of the TARGETS."""
    columns = series.read_if_intact(path / "series.h5")
    found: dict[str, float | None] = {}
    for target in TARGETS:
        reached = np.flatnonzero(columns.get("relative_l2", np.empty(0)) <= target)
        found[f"{target:.0e}"] = float(columns["wall_time"][reached[0]]) if len(reached) else None
    return found


def rows(runs: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """A row of the table for each run, as TITLES names its columns."""
    for run in runs:
        is_measured = run["relative_l2"] is not None
        error = run["relative_l2"] if is_measured else run["error_estimate"]
        energy = run["held_out_energy"] if run["held_out_energy"] is not None else run["energy"]
        yield [
            run["run"],
            str(run["status"]),
            str(run["step"]),
            number(error) + ("" if is_measured or error is None else " (est.)"),
            number(energy),
            *(duration(seconds) for seconds in run["time_to"].values()),
            duration(run["wall_time"]),
            duration(run["seconds_per_step"]),
            number(run["peak_memory_mb"], 4),
        ]


def check_against(runs: Sequence[Mapping[str, Any]], file: str | Path, slack: float) -> None:
    """Compare runs with limits.

    Args:
        runs: what `facts` returns.
        file: a JSON list as `nedhpc compare --json` writes it; a limit that is absent or null does
            not count, so that it may also be written by hand: [{"run": "p2", "relative_l2": 1e-6}].
        slack: factor by which a limit may be exceeded.

    Raises:
        UsageError: the file cannot be read, or is not such a list.
        ShortError: a run of the file is missing or exceeds a limit; the message lists all.
    """
    limits = _read(Path(file))
    known = {run["run"]: run for run in runs}
    short = []
    for limit in limits:
        name = limit["run"]
        if name not in known:
            short.append(f"{name}: this run is not among those compared ({', '.join(known)})")
        short += [f"{name}: {text}" for text in _excesses(known.get(name, {}), limit, slack)]
    if short:
        lines = "\n".join(f"  {line}" for line in short)
        raise ShortError(f"{len(short)} of the limits in {file} are not kept:\n{lines}")


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        limits = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as JSON: {error}") from None
    is_list = isinstance(limits, list) and all(isinstance(x, dict) and "run" in x for x in limits)
    if not is_list or not all(isinstance(x.get("time_to", {}), dict) for x in limits):
        raise UsageError(
            f'{file}: needed is a list of runs, [{{"run": NAME, "relative_l2": 1e-6}}, ...], as '
            "`nedhpc compare --json` writes it"
        )
    return limits


def _excesses(run: Mapping[str, Any], limit: Mapping[str, Any], slack: float) -> Iterator[str]:
    """What a run has more of than its limits allow."""
    for key in LIMITS if run else ():
        allowed, got = limit.get(key), run[key]
        pairs = allowed if isinstance(allowed, dict) else {"": allowed}
        for name, most in pairs.items():
            value = got.get(name) if isinstance(got, dict) else got
            if most is not None and not (value is not None and value <= slack * most):
                what = f"{key} {name}".strip()
                yield f"{what} = {number(value)}, allowed is {number(slack * most)}"
