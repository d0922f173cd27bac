"""Random small runs, and the processes that run them.

Serial runs are forks of this process, which has made a run before: so a run costs a second and not
five, and the library of campaign_library can disturb it. Runs on several ranks are started by
mpirun.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import campaign_library as library
import tomli_w

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "euler": {"stepper": {"type": "euler", "dt": 1e-4}},
    "spring": {"stepper": {"type": "spring", "dt": 0.5}},
    "ptc": {"stepper": {"type": "ptc"}},
    "adam": {"stepper": {"type": "adam"}},
    "rk": {"stepper": {"type": "rk", "dt": 1e-4}},
    "bdf": {"stepper": {"type": "bdf", "dt": 1e-4}},
}
"""{stepper: its tables}."""
SOLVERS = ("tsqr", "gram", "dual")


@dataclass(frozen=True, slots=True)
class Case:
    """A small run: its config and its number of ranks."""

    name: str
    table: dict = field(hash=False)
    ranks: int = 1

    @property
    def steps(self) -> int:
        return self.table["run"]["max_steps"]

    @property
    def entries_every(self) -> int:
        return self.table["output"]["every_steps"]

    def write(self, folder: Path, **checkpoint) -> Path:
        """Write the config into a folder, with settings of [checkpoint] changed."""
        path = folder / "case.toml"
        table = self.table | {"checkpoint": self.table["checkpoint"] | checkpoint}
        path.write_text(tomli_w.dumps(table))
        return path


def case_of(dice: random.Random, ranks: int = 1) -> Case:
    """A random run of a small set, so that undisturbed runs are shared between faults."""
    stepper = dice.choice(list(SETTINGS))
    kind = dice.choice(("plain", "plain", "growing", "windows")) if stepper == "ptc" else "plain"
    solver = dice.choice(SOLVERS)
    table = {
        "problem": {"name": "poisson", "dim": 1},
        "network": {"hidden": [8], "activation": "tanh"},
        "sampling": {"interior": 40, "rule": "uniform", "resample_every": 7},
        "solver": {"type": solver},
        "run": {"max_steps": 12, "start": "random", "starts": 1},
        "checkpoint": {"every_steps": 4, "every_seconds": 1e6},
        "output": {"every_steps": 2},
        "device": {"threads": 1},
        **SETTINGS[stepper],
    }
    if kind == "plain":
        table["sampling"]["adapt"] = "none"
        table["run"]["windows"] = 1
    elif kind == "windows":
        table["problem"] = {"name": "heat"}
        table["run"]["windows"] = 2
    return Case(f"{kind}-{stepper}-{solver}-{ranks}", table, ranks)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended."""

    code: int
    """Exit code; -signal if a signal ended it."""
    text: str
    """stdout and stderr."""
    seconds: float
    is_hanging: bool
    """True if it did not end in the time given, and was killed."""


Watch = Callable[["Running"], None]


class Running:
    """A run in another process.

    Args:
        arguments: those of nedhpc.
        folder: for the output of the process.
        plan: of the library; "" for none.
        ranks: 1 for a fork of this process, more for mpirun.
    """

    def __init__(self, arguments: list, folder: Path, plan: str = "", ranks: int = 1):
        self.output, self.began = folder / "output.txt", time.monotonic()
        words = list(map(str, arguments))
        self.process = None
        if ranks > 1:
            self.process = self._launch(words, ranks)
            self.pid = self.process.pid
        else:
            self.pid = self._fork(words, plan)

    def _launch(self, words, ranks):
        kept = ("OMPI_COMM", "PMIX", "PRTE", "SLURM", "LD_PRELOAD")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(kept)}
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
        command += [sys.executable, "-P", "-m", "nedhpc", *words]
        with open(self.output, "wb") as file:
            return subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environment,
                cwd=ROOT, start_new_session=True,
            )  # fmt: skip

    def _fork(self, words, plan):
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            os.setsid()
            descriptor = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
            sys.argv = ["nedhpc", *words]
            from nedhpc.cli.main import main

            if plan:
                library.start(plan)
            code = main(words)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # the parent's clean-up is not the child's

    def code(self) -> int | None:
        """The exit code; None while the process runs."""
        if self.process is not None:
            return self.process.poll()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self, limit: float, watch: Watch | None = None) -> Ended:
        """Wait for the end; call watch(self) every 2 ms until then."""
        while (code := self.code()) is None:
            if time.monotonic() - self.began > limit:
                return self._killed()
            if watch is not None:
                watch(self)
            time.sleep(0.002)
        return Ended(code, self.text(), time.monotonic() - self.began, False)

    def _killed(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        while self.code() is None:
            time.sleep(0.01)
        return Ended(-signal.SIGKILL, self.text(), time.monotonic() - self.began, True)

    def text(self) -> str:
        """What the process printed."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""


def prepare(folder: Path) -> None:
    """Run once in this process, so that its forks find all modules imported and MPI started.

    MPI then has one process, and does not communicate. A fork does not end MPI when it exits.
    """
    from nedhpc.cli.main import main

    for name in ("adam", "ptc"):  # torch imports much for its optimisers
        case = case_of(random.Random(0))
        table = case.table | SETTINGS[name] | {"run": {"max_steps": 1, "windows": 1}}
        path = Case("first", table).write(folder)
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            code = main(["run", str(path), "--out", str(folder / name)])
        assert code == 0, "the first run failed"
