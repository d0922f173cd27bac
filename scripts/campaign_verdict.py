"""Judges what a fault left: which states are there, and whether the continued run is the same."""

import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from nedhpc.errors import NedError
from nedhpc.files import checkpoint, series
from nedhpc.files.checkpoint import State

FINISHED, STOPPED = 0, 75
OTHER_RANKS_RTOL = 1e-8
CLOCK = ("begun", "first_time")
"""Wall times in the memory of the adaptation."""
OUTCOMES = ("survived", "lost", "wrong", "hang", "unclear")
"""survived: all promises were kept. lost: a state that was on disk is gone, or the run cannot be
continued. wrong: a state differs from the undisturbed run. hang: more than 10 s longer than the
undisturbed run, or 70 s under mpirun. unclear: a message does not name the cause or the file, or it
is a traceback."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The undisturbed run: each of its states, and its series."""

    states: dict[int, State]
    columns: dict[str, np.ndarray]
    seconds: float

    @classmethod
    def read(cls, run_dir: Path, seconds: float) -> "Reference":
        """From a folder with a checkpoint of each step."""
        states = {checkpoint.step_of(p): checkpoint.read(p)[0] for p in checkpoint.paths(run_dir)}
        return cls(states, series.read(run_dir / "series.h5"), seconds)

    @property
    def last(self) -> int:
        return max(self.states)


@dataclass(slots=True)
class Left:
    """What a fault left in a run folder, and what was promised about it."""

    run_dir: Path
    promised: int = -1
    """Step of the newest state that must be there; -1: none."""
    detail: str = ""
    case: str = ""
    outcome: str = "survived"
    reason: str = ""
    is_series_damaged: bool = False
    """The fault damaged the series, so that a new one may begin."""
    stopped_at: int = -1
    """Step of the newest state, before the run continues; -1: none."""
    seconds: float = 0.0
    ranks: int = 1
    """Ranks on which the run continues."""

    def fails(self, outcome: str, reason: str) -> None:
        """Note what went wrong; the first counts."""
        if self.outcome == "survived":
            self.outcome, self.reason = outcome, reason


def same(found: State, expected: State, rtol: float = 0.0) -> str:
    """ "" if two states are the same but for their wall time, else what differs."""
    for item in fields(State):
        if item.name == "wall_time":
            continue
        a, b = (getattr(state, item.name) for state in (found, expected))
        if rtol and item.name != "theta_P":
            continue
        if rtol:
            close = np.linalg.norm(a - b) <= rtol * np.linalg.norm(b)
            if not close:
                return f"theta differs by {np.linalg.norm(a - b) / np.linalg.norm(b):.1e}"
        elif not equal(without_clock(a), without_clock(b)):
            return item.name
    return ""


def without_clock(value):
    """A table without its wall times."""
    is_table = isinstance(value, dict)
    return {k: v for k, v in value.items() if k not in CLOCK} if is_table else value


def equal(a, b) -> bool:
    """True if two values are equal to the bit; NaN equals NaN."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b))
    if isinstance(a, checkpoint.Piece) and isinstance(b, checkpoint.Piece):
        return all(equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, str) or a is None or b is None:
        return a == b
    return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f")


def judge_state(left: Left, reference: Reference, rtol: float = 0.0) -> None:
    """Compare the newest state of the folder with what was promised and with the reference."""
    try:
        found, state = -1, None
        if checkpoint.any_in(left.run_dir):
            _, state, _, _ = checkpoint.newest(left.run_dir)
            found = left.stopped_at = state.step
    except NedError as error:
        if left.promised >= 0:
            left.fails("lost", str(error))
        return
    if found < left.promised:
        left.fails("lost", f"newest state is step {found}, promised was {left.promised}")
    if state is not None:
        if state.step not in reference.states:
            left.fails("wrong", f"step {state.step} is not a step of the undisturbed run")
        elif what := same(state, reference.states[state.step], rtol):
            left.fails("wrong", f"the state of step {state.step}: {what}")


def judge_end(left: Left, reference: Reference, rtol: float = 0.0) -> None:
    """Compare the end of the continued run with that of the undisturbed one."""
    try:
        _, state, _, _ = checkpoint.newest(left.run_dir)
        columns = series.read(left.run_dir / "series.h5")
    except NedError as error:
        left.fails("lost", str(error))
        return
    if state.step != reference.last:
        left.fails("lost", f"the continued run ended at step {state.step}, not {reference.last}")
    elif what := same(state, reference.states[state.step], rtol):
        left.fails("wrong", f"the end: {what}")
    if not left.is_series_damaged and not rtol:
        # A run that was asked to stop measures its last state too.
        steps = columns["step"]
        expected = (steps != left.stopped_at) | np.isin(steps, reference.columns["step"])
        for name in ("step", "energy"):
            if not equal(columns[name][expected], reference.columns[name]):
                left.fails("lost", f"the series: {name} is {columns[name].tolist()}")


def judge_process(left: Left, ended, codes: tuple[int, ...], error: int = 0) -> None:
    """Judge exit code and message of a process that nobody killed.

    Args:
        left: gets the outcome.
        ended: campaign_runs.Ended.
        codes: the exit codes that are right.
        error: errno that a message must name if the run failed; 0: none.
    """
    text = ended.text
    last = text.strip().rpartition("\n")[2][-300:]
    if ended.is_hanging:
        left.fails("hang", last)
    elif ended.code not in codes:
        kind = "unclear" if "Traceback" in text else "lost"
        left.fails(kind, f"exit code {ended.code}: {last}")
    elif "Traceback" in text:
        left.fails("unclear", f"a traceback: {last}")
    elif ended.code in (1, 2):
        if str(left.run_dir) not in text:
            left.fails("unclear", f"no file or folder: {last}")
        elif error and not any(word in text for word in causes(error)):
            left.fails("unclear", f"no cause: {last}")


def causes(error: int) -> tuple[str, ...]:
    """The words of which a message must hold one if the system gave this errno."""
    return os.strerror(error), "another job is writing", "without blocking"
