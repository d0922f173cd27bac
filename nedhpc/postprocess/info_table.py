"""The facts of `nedhpc info` as a table for people. `--json` prints all of them instead. Local."""

from collections.abc import Iterator
from typing import Any

from nedhpc.postprocess.tables import duration, number

Row = tuple[str, str]
"""A label and a text. A label that begins with blanks belongs to the row above it."""


def rows(facts: dict[str, Any]) -> list[Row]:
    """The rows of the table, in the order in which a reader asks.

    Args:
        facts: what `info` returns, and what `fresh_energy` adds.
    """
    groups = (_run, _error, _energy, _values, _cost, _warnings)
    return [row for group in groups for row in group(facts)]


def _run(facts) -> Iterator[Row]:
    yield "problem", str(facts["problem"])
    yield "method", str(facts["method"])
    yield "status", str(facts["status"])
    if facts["message"]:
        yield "", facts["message"]
    yield "progress", f"step {facts['step']}, time {number(facts['time'])}"
    if facts["windows"]:
        ends = ", ".join(map(number, facts["windows"]))
        yield "windows", f"{len(facts['windows'])} time windows, which end at {ends}"


def _error(facts) -> Iterator[Row]:
    if facts["error_is"] == "measured":
        yield "error", f"{number(facts['relative_l2'])}  relative L2, measured"
    elif facts["error_is"] == "unknown":
        yield "error", "unknown: neither a solution nor an estimate is known"
    else:
        yield "error", f"{number(facts['error_estimate'], 2)}  relative, {facts['error_is']}"
    estimates = {k: v for k, v in facts["error_estimates"].items() if v is not None}
    for name, value in estimates.items():
        yield f"  {name}", f"{number(value, 2)}  estimated"
    if facts.get("start_error") is not None:
        yield "  at the start", f"{number(facts['start_error'])}  of the fit to u0"


def _energy(facts) -> Iterator[Row]:
    yield "energy", _compared(facts["energy"], facts["held_out_energy"])
    balanced = (facts["balanced_energy"], facts["balanced_held_out_energy"])
    if balanced != (facts["energy"], facts["held_out_energy"]) and balanced[0] is not None:
        yield "  balanced", _compared(*balanced)
    for name, value in facts["energy_terms"].items():
        yield f"  {name}", number(value)
    if "fresh_energy" in facts:
        yield "fresh energy", f"{number(facts['fresh_energy'])}  on {facts['fresh_points']} points"
        for name, value in facts["fresh_energy_terms"].items():
            yield f"  {name}", number(value)
        yield "  balanced", number(facts["fresh_balanced_energy"])


def _compared(value, held_out) -> str:
    """An energy, and the same on held-out points if it is known."""
    beside = "" if held_out is None else f"  on held-out points {number(held_out)}"
    return number(value) + beside


def _values(facts) -> Iterator[Row]:
    if facts["coefficients"]:
        yield "coefficients", ""
    for name, value in facts["coefficients"].items():
        error = facts["coefficient_errors"].get(name)
        yield f"  {name}", number(value, 8) + ("" if error is None else f" +- {number(error, 2)}")
    metrics = {name: v for name, v in facts["metrics"].items() if name != "coefficients"}
    if metrics:
        yield "metrics", ""
    for name, value in metrics.items():
        yield f"  {name}", number(value, 6) if isinstance(value, int | float) else str(value)


def _cost(facts) -> Iterator[Row]:
    yield "time", f"{duration(facts['wall_time'])}, {duration(facts['seconds_per_step'])} a step"
    yield "size", f"{facts['num_parameters']} parameters, {facts['num_points']} points"
    ranks = _count(facts["num_ranks"], "rank")
    if facts["threads"] is not None:
        ranks += f" of {_count(facts['threads'], 'thread')}"
    yield "ran on", f"{ranks}, {facts['device']}, {facts['dtype']}"
    yield "memory", f"{number(facts['peak_memory_mb'], 4)} MB on the largest rank"
    if facts["projection_error"] is not None:
        yield "projection", f"{number(facts['projection_error'])}  of the descent direction is lost"


def _count(count, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _warnings(facts) -> Iterator[Row]:
    yield "file", facts["file"]
    for group, label in (("changes", "history"), ("skipped", "damaged"), ("warnings", "warning")):
        for k, text in enumerate(facts[group]):
            yield label if k == 0 or group == "warnings" else "", str(text)
