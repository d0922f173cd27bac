"""Observers that a config names: `[output] observers = ["csv", "json_lines", "tensorboard"]`.

They show the run to other programs while it goes on. An entry has what series.h5 has, except the
seconds by phase, at the same steps. If the run is resumed, the entries after the step of its
checkpoint are removed.
"""

import csv
import io
import json
import math
from pathlib import Path

from nedhpc.errors import UsageError
from nedhpc.parallel.comm import on_rank_0
from nedhpc.running.measured import entry
from nedhpc.running.observers import Observer


class Entries(Observer):
    """Base class: calls `write` with the entry every output.every_steps steps and at the end."""

    def start(self, run, moment):
        self._last = moment.state.step if run.is_resumed else -1
        self.open(run)
        if not run.is_resumed:
            self._take(run, moment)

    def step(self, run, moment):
        if moment.state.step % run.config.output.every_steps == 0:
            self._take(run, moment)

    def end(self, run, stop):
        if run.last.state.step > self._last and run.last.known is not None:
            self._take(run, run.last)

    def open(self, run) -> None:
        """Prepare the output. Collective."""

    def write(self, run, found: dict) -> None:
        """Write an entry. Collective."""
        raise NotImplementedError

    def _take(self, run, moment):
        self._last = moment.state.step
        self.write(run, entry(moment))


class Lines(Entries):
    """Base class: appends a line of text to a file of the run folder."""

    file: str
    """Name of the file."""

    def __init__(self):
        self.num_bytes = 0

    def open(self, run):
        path, kept = run.run_dir / self.file, self.num_bytes
        run.writer.submit(lambda: _cut(path, kept))

    def write(self, run, found):
        text = self.line(found, is_first=self.num_bytes == 0).encode()
        self.num_bytes += len(text)
        path = run.run_dir / self.file
        run.writer.submit(lambda: _append(path, text))

    def line(self, found: dict, is_first: bool) -> str:
        """The text of an entry. Local."""
        raise NotImplementedError

    def state(self):
        return {"num_bytes": self.num_bytes}

    def load(self, state):
        self.num_bytes = int(state["num_bytes"])


def _cut(path: Path, num_bytes: int) -> None:
    """Keep the first bytes of a file, which is made if it is missing."""
    with path.open("ab") as file:
        file.truncate(min(num_bytes, file.tell()))


def _append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


class JsonLines(Lines):
    """series.jsonl: a JSON object a line. What is not known or not finite is null."""

    name, file = "json_lines", "series.jsonl"

    def line(self, found, is_first):
        finite = {key: value if math.isfinite(value) else None for key, value in found.items()}
        return json.dumps(finite) + "\n"


class Csv(Lines):
    """series.csv: names, then numbers, with commas between them."""

    name, file = "csv", "series.csv"

    def line(self, found, is_first):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(found), lineterminator="\n")
        if is_first:
            writer.writeheader()
        writer.writerow(found)
        return text.getvalue()


class TensorBoard(Entries):
    """Event files in RUN_DIR/tensorboard: `tensorboard --logdir runs` shows them in a browser."""

    name = "tensorboard"

    def open(self, run):
        self._writer = on_rank_0(run.comm, _installed) and None
        if run.comm.rank == 0:
            from torch.utils.tensorboard import SummaryWriter

            purge = self._last + 1 if run.is_resumed else None
            folder = str(run.run_dir / "tensorboard")
            self._writer = SummaryWriter(folder, purge_step=purge, flush_secs=10)

    def write(self, run, found):
        for name, value in found.items() if self._writer else ():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, int(found["step"]))

    def end(self, run, stop):
        super().end(run, stop)
        if self._writer:
            self._writer.close()


def _installed() -> None:
    """Raise UsageError if tensorboard is missing. Local."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "output.observers = ['tensorboard'] needs tensorboard, which is not installed: "
            "`pip install 'nedhpc[tensorboard]'` or `scripts/setup tensorboard`"
        ) from error
