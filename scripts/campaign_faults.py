"""The kinds of faults. Each makes one fault and returns what it left."""

import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import campaign_library as library
import h5py
import psutil
from campaign_library import Disturbance
from campaign_replay import MODES, Disk
from campaign_runs import Case, Running, case_of
from campaign_verdict import (
    FINISHED,
    OTHER_RANKS_RTOL,
    STOPPED,
    Left,
    Reference,
    judge_end,
    judge_process,
    judge_state,
)

from nedhpc.errors import NedError
from nedhpc.files import checkpoint, series

HANG_SECONDS = 10.0
START_SECONDS = 60.0
"""Longest start of mpirun on a busy machine."""


@dataclass(slots=True)
class Place:
    """Where one fault happens.

    Args:
        folder: an empty folder for it.
        cache: folder with the undisturbed runs.
        dice: its random numbers.
        ranks: number of ranks of its run.
    """

    folder: Path
    cache: Path
    dice: random.Random
    ranks: int = 1
    case: Case = field(init=False)
    config: Path = field(init=False)

    def __post_init__(self):
        self.case = case_of(self.dice, self.ranks)
        self.folder.mkdir(parents=True)
        self.config = self.case.write(self.folder)

    @property
    def run_dir(self) -> Path:
        """The run makes this folder and the one above it."""
        return self.folder / "new" / "run"

    @property
    def reference(self) -> Reference:
        """The undisturbed run with a checkpoint at each step."""
        if self.case.name not in REFERENCES:
            folder = self.cache / self.case.name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            config = self.case.write(folder, every_steps=1, keep=10**6)
            words = ["run", config, "--out", folder / "run"]
            ended = Running(words, folder, ranks=self.ranks).wait(300)
            assert ended.code == FINISHED, f"the undisturbed run failed: {ended.text}"
            REFERENCES[self.case.name] = Reference.read(folder / "run", ended.seconds)
        return REFERENCES[self.case.name]

    def start(self, disturbance: Disturbance | None = None, ranks: int | None = None) -> Running:
        """Start the run, or continue it."""
        words = ["run", self.config, "--out", self.run_dir, "--resume", "auto"]
        plan = "" if disturbance is None else disturbance.plan(self.run_dir.parent)
        return Running(words, self.folder, plan, self.ranks if ranks is None else ranks)

    @property
    def limit(self) -> float:
        """Seconds after which a run hangs."""
        return self.reference.seconds + HANG_SECONDS + (START_SECONDS if self.ranks > 1 else 0)

    def operations(self) -> list[library.Operation]:
        """The file operations of an undisturbed run, below the folder `before`."""
        if self.case.name not in TRACES:
            before = self.cache / (self.case.name + "-trace")
            shutil.rmtree(before, ignore_errors=True)
            (before / "root").mkdir(parents=True)
            config, trace = self.case.write(before), before / "trace"
            plan = Disturbance().plan(before / "root", trace)
            words = ["run", config, "--out", before / "root" / "new" / "run"]
            ended = Running(words, before, plan).wait(300)
            assert ended.code == FINISHED, f"the recorded run failed: {ended.text}"
            TRACES[self.case.name] = (before / "root", library.read_trace(trace))
        return TRACES[self.case.name][1]

    def fail_power(self, number: int, mode: str) -> None:
        """Leave in the folder what a power failure after `number` operations leaves."""
        operations = self.operations()
        disk = Disk(TRACES[self.case.name][0], operations[:number])
        disk.fail(self.folder, mode, self.dice)


REFERENCES: dict[str, Reference] = {}
TRACES: dict[str, tuple[Path, list[library.Operation]]] = {}


def newest_name(run_dir: Path) -> int:
    """Step of the newest checkpoint by its name; -1 without one."""
    files = checkpoint.paths(run_dir)
    return checkpoint.step_of(files[-1]) if files else -1


def promised_by(operations: list[library.Operation]) -> int:
    """Step of the newest checkpoint whose folder was flushed after its rename; -1 without one."""
    found = renamed = -1
    for operation in operations:
        name = checkpoint.NAME.fullmatch(os.path.basename(operation.other))
        if operation.what == "rename" and name:
            renamed = int(name[1])
        if operation.what == "sync" and os.path.basename(operation.path) == "run":
            found = renamed
    return found


def continued(place: Place, left: Left, rtol: float = 0.0) -> Left:
    """Judge the state, continue the run and judge its end."""
    judge_state(left, place.reference, rtol if place.ranks > 1 else 0.0)
    running = place.start(ranks=left.ranks)
    ended = running.wait(place.limit + (START_SECONDS if left.ranks > 1 else 0))
    judge_process(left, ended, (FINISHED,))
    judge_end(left, place.reference, rtol)
    return left


def disturbed(place: Place, disturbance: Disturbance, codes: tuple[int, ...]) -> Left:
    """Start a run with a disturbance, then continue it without."""
    left = Left(place.run_dir, detail=str(disturbance))
    ended = place.start(disturbance).wait(place.limit)
    if not (disturbance.how.startswith("kill") and ended.code == -signal.SIGKILL):
        judge_process(left, ended, codes, disturbance.error if disturbance.op != "clock" else 0)
    left.promised = newest_name(place.run_dir)
    if ended.code == FINISHED:
        left.promised = place.reference.last
    return continued(place, left)


# ---- kills and signals ----


def kill_at_operation(place: Place) -> Left:
    """Kill the run before, amid or after its nth file operation."""
    how = place.dice.choice(("kill_before", "kill_amid", "kill_after"))
    number = place.dice.randrange(1, len(place.operations()) + 1)
    return disturbed(place, Disturbance("any", "", number, 1, 0, how), (FINISHED,))


def signalled(place: Place, numbers: tuple[int, ...], codes: tuple[int, ...]) -> Left:
    """Send signals to the run at a random instant, 0.3 s apart."""
    left = Left(place.run_dir)
    instant = place.dice.uniform(0.02, max(0.1, place.reference.seconds))
    left.detail, running, sent = f"{numbers} after {instant:.2f} s", place.start(), []

    def watch(running):
        now = time.monotonic() - running.began - instant
        if len(sent) < len(numbers) and now >= 0.3 * len(sent):
            left.promised = newest_name(place.run_dir)
            os.kill(running.pid, numbers[len(sent)])
            sent.append(True)

    ended = running.wait(place.limit, watch)
    if ended.code != -numbers[-1]:
        judge_process(left, ended, codes)
    return continued(place, left)


def kill(place: Place) -> Left:
    return signalled(place, (signal.SIGKILL,), (FINISHED,))


def stop_signal(place: Place) -> Left:
    names = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGHUP", "SIGXCPU")
    number = getattr(signal, place.dice.choice(names))
    return signalled(place, (number,), (FINISHED, STOPPED))


def pause(place: Place) -> Left:
    return signalled(place, (signal.SIGSTOP, signal.SIGCONT), (FINISHED,))


# ---- the file system refuses ----


def refused(place: Place) -> Left:
    """A full disk, a quota, a broken disk: once or from then on."""
    error = place.dice.choice((errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS))
    op = place.dice.choice(("open", "write", "sync", "rename", "any"))
    how = place.dice.choice(("error", "error_amid")) if op == "write" else "error"
    name = place.dice.choice(("", "checkpoint", "series", "config"))
    number, lasting = place.dice.randrange(1, 12), place.dice.randrange(2)
    given = Disturbance(op, name, number, 1 - lasting, error, how)
    return disturbed(place, given, (FINISHED, 1, 2))


def read_only(place: Place) -> Left:
    """The folder becomes read-only: before the start, during the run, or before a resume."""
    when = place.dice.choice(("start", "run", "resume"))
    if when == "resume":
        interrupted_run(place)
    error, nth = place.dice.choice((errno.EROFS, errno.EACCES)), 1
    if when == "run":
        nth = place.dice.randrange(2, len(place.operations()) + 1)
    return disturbed(place, Disturbance("any", "", nth, 0, error), (1, 2))


def interrupted(place: Place) -> Left:
    """Errors that are none: interrupted and short operations, a slow disk."""
    dice, number = place.dice, place.dice.randrange(1, 12)
    given = dice.choice(
        (
            Disturbance("write", "", number, dice.choice((1, 0)), 0, "short"),
            Disturbance("write", "", number, 1, errno.EINTR, "error"),
            Disturbance("open", "", number, 1, errno.EINTR, "error"),
            Disturbance("sync", "", number, 1, errno.EINTR, "error"),
            Disturbance("any", "", number, dice.choice((3, 10)), 0, "slow"),
        )
    )
    return disturbed(place, given, (FINISHED,))


def no_flush(place: Place) -> Left:
    """A file system that cannot flush folders, or files."""
    error = place.dice.choice((errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS))
    op = place.dice.choice(("sync_folder", "sync_folder", "sync"))
    return disturbed(place, Disturbance(op, "", 1, 0, error), (FINISHED,))


def no_locks(place: Place) -> Left:
    """A file system without locks."""
    error = place.dice.choice((errno.ENOLCK, errno.EIO, errno.EAGAIN))
    op = place.dice.choice(("lock", "flock"))
    codes = (FINISHED, 2) if (op, error) == ("lock", errno.EAGAIN) else (FINISHED,)
    return disturbed(place, Disturbance(op, "", 1, 0, error), codes)


def clock(place: Place) -> Left:
    """The clock of the day jumps by hours or years."""
    hours = place.dice.choice((-100000, -24, -1, 1, 24, 100000))
    number = place.dice.randrange(1, 40)
    return disturbed(place, Disturbance("clock", "", number, 0, hours), (FINISHED,))


def unreadable(place: Place) -> Left:
    """Reading fails at a resume: once, so that it succeeds, or always, so that nothing is lost."""
    dice = place.dice
    left = interrupted_run(place)
    error = dice.choice((errno.EIO, errno.EAGAIN, errno.ESTALE, errno.EACCES))
    op, lasting = dice.choice(("read", "look", "list")), dice.randrange(2)
    name = dice.choice(("checkpoint", "series")) if op != "list" else ""
    given = Disturbance(op, name, dice.randrange(1, 4), 1 - lasting, error)
    left.detail = str(given)
    ended = place.start(given).wait(place.limit)
    judge_process(left, ended, (FINISHED, 1, 2) if lasting else (FINISHED,), error)
    return continued(place, left)


# ---- what is on the disk ----


def interrupted_run(place: Place) -> Left:
    """A folder as a kill at a random operation leaves it, with at least two checkpoints."""
    operations = place.operations()
    renames = [
        number
        for number, operation in enumerate(operations, 1)
        if operation.what == "rename" and "/checkpoint-" in operation.other
    ]
    number = place.dice.randrange(renames[1], len(operations) + 1)
    place.fail_power(number, "all")
    return Left(place.run_dir, newest_name(place.run_dir))


def power_failure(place: Place) -> Left:
    """The power fails after the nth operation; what was not flushed is lost or out of order."""
    operations = place.operations()
    number = place.dice.randrange(1, len(operations) + 1)
    mode = place.dice.choice(MODES)
    place.fail_power(number, mode)
    promised = promised_by(operations[:number])
    return continued(place, Left(place.run_dir, promised, f"after {number}, {mode} of the rest"))


def damaged(place: Place) -> Left:
    """Bits flip in a file, or it is cut."""
    dice, left = place.dice, interrupted_run(place)
    files = checkpoint.paths(place.run_dir)
    file = dice.choice([files[-1], files[-1], files[0], place.run_dir / "series.h5"])
    content = bytearray(file.read_bytes())
    region = dice.choice((512, 1024, 4096, len(content)))
    at = dice.randrange(min(region, len(content)))
    if dice.randrange(3):
        content[at] ^= 1 << dice.randrange(8)
    else:
        del content[at:]
    file.write_bytes(content)
    left.detail = f"{file.name}, byte {at} of {len(content)}"
    left.is_series_damaged = file.name == "series.h5"
    if file == files[-1]:
        left.promised = checkpoint.step_of(files[-2])
    return continued(place, left)


def other_program(place: Place) -> Left:
    """Another program opens all files for writing and changes nothing."""
    left = interrupted_run(place)
    for file in place.run_dir.glob("*.h5"):
        with h5py.File(file, place.dice.choice(("a", "r+"))):
            pass
    return continued(place, left)


def reader(place: Place) -> Left:
    """Another process reads all files again and again."""
    left = Left(place.run_dir)

    def watch(running):
        for file in sorted(place.run_dir.glob("*.h5")) if place.run_dir.is_dir() else []:
            read = series.read if file.name == "series.h5" else checkpoint.read
            try:
                read(file)
            except NedError as error:
                if file.exists():  # else it was pruned in the meantime
                    left.fails("wrong", str(error))

    ended = place.start().wait(place.limit, watch)
    judge_process(left, ended, (FINISHED,))
    left.promised = place.reference.last
    return continued(place, left)


def second_writer(place: Place) -> Left:
    """Another run begins in the folder: it waits, is refused, or continues after the first."""
    left, others = Left(place.run_dir), []
    instant = place.dice.uniform(0.02, max(0.1, place.reference.seconds))
    (place.folder / "other").mkdir()

    def watch(running):
        if not others and time.monotonic() - running.began > instant:
            words = ["run", place.config, "--out", place.run_dir, "--resume", "auto"]
            others.append(Running(words, place.folder / "other"))

    judge_process(left, place.start().wait(place.limit, watch), (FINISHED,))
    for other in others:
        judge_process(left, other.wait(2 * place.limit), (FINISHED, 2))
    left.promised = place.reference.last
    return continued(place, left)


# ---- several ranks ----


def other_ranks(place: Place) -> Left:
    """Continue on another number of ranks."""
    left = interrupted_run(place)
    left.ranks = place.dice.choice((2, 3))
    left.detail = f"on {left.ranks} ranks"
    return continued(place, left, OTHER_RANKS_RTOL)


def of_ranks(place: Place) -> Left:
    """A signal to a rank, to all ranks or to mpirun."""
    dice, left = place.dice, Left(place.run_dir, ranks=place.ranks)
    whom = dice.choice(("a rank", "all ranks", "mpirun"))
    names = ("SIGKILL", "SIGTERM", "SIGUSR1", "SIGSTOP")
    number = getattr(signal, dice.choice(names))
    wanted, running, sent = dice.choice((0, 4, 8)), place.start(), []
    left.detail = f"{signal.Signals(number).name} to {whom} after step {wanted}"

    def watch(running):
        if sent or newest_name(place.run_dir) < wanted:
            return
        left.promised = newest_name(place.run_dir)
        children = psutil.Process(running.pid).children(recursive=True)
        ranks = [child.pid for child in children if "nedhpc" in child.cmdline()]
        chosen = {"a rank": ranks[:1], "all ranks": ranks, "mpirun": [running.pid]}[whom]
        for pid in chosen:
            os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(0.5)
            for pid in chosen:
                os.kill(pid, signal.SIGCONT)
        sent.append(True)

    ended = running.wait(place.limit, watch)
    if ended.is_hanging:
        judge_process(left, ended, ())
    elif number in (signal.SIGUSR1, signal.SIGSTOP):
        judge_process(left, ended, (FINISHED, STOPPED))
    return continued(place, left)


KINDS: dict[Callable[[Place], Left], int] = {
    power_failure: 12, kill_at_operation: 6, kill: 3, stop_signal: 3, pause: 1, refused: 8,
    read_only: 3, second_writer: 2,
    interrupted: 4, no_flush: 2, no_locks: 2, clock: 2, unreadable: 5, damaged: 6,
    other_program: 2, reader: 1, other_ranks: 1, of_ranks: 2,
}  # fmt: skip
"""{kind: how often, relative to the others}."""
WITH_RANKS = (of_ranks,)


def make(kind: Callable[[Place], Left], folder: Path, cache: Path, dice: random.Random) -> Left:
    """Make one fault of a kind in an empty folder, and judge it."""
    begun = time.monotonic()
    ranks = dice.choice((2, 3)) if kind in WITH_RANKS else 1
    place = Place(folder, cache, dice, ranks)
    left = kind(place)
    left.case = place.case.name
    left.seconds = time.monotonic() - begun
    return left
