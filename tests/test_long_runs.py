"""Memory, descriptors and communicators do not grow with steps and runs."""

import itertools
import os
import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from mpi4py import MPI

import nedhpc
from nedhpc.errors import NedError
from nedhpc.files import series
from nedhpc.running import limits, recorder

SMALL = {
    "problem": {"name": "poisson", "dim": 1},
    "network": {"hidden": [4], "activation": "tanh"},
    "sampling": {"interior": 16, "adapt": "none"},
    "solver": {"type": "gram"},
    "stepper": {"type": "euler", "dt": 1e-6},
    "device": {"threads": 1},
}


class Memory(nedhpc.Observer):
    """Resident memory in MiB at some steps."""

    def __init__(self, every):
        self.every, self.found = every, []

    def step(self, run, moment):
        if moment.state.step % self.every == 0:
            self.found.append(psutil.Process().memory_info().rss / 2**20)


@pytest.mark.slow
def test_memory_is_flat_over_many_steps(tmp_path):
    """An entry of the series has some 25 numbers of 8 bytes: 1 MiB for 5,000 entries."""
    memory, steps = Memory(1000), 8_000
    table = SMALL | {
        "run": {"max_steps": steps, "start": "random", "starts": 1, "windows": 1},
        "output": {"every_steps": 1},
        "checkpoint": {"every_steps": 500},
    }
    nedhpc.run(table, tmp_path / "run", MPI.COMM_SELF, observers=[memory])
    assert len(memory.found) == steps // 1000
    assert memory.found[-1] - memory.found[2] < 6


def test_a_series_is_copied_once_while_it_is_written(tmp_path):
    """The copy is the image of the file, beside HDF5's own; columns are copied one at a time."""
    entries = series.Series(tmp_path / "series.h5", {"step": range(50_000)})
    for name in "abcdefghij":
        entries.columns[name] = type(entries.columns["step"])("d", range(50_000))
    write, num_bytes = entries.writing(), 11 * 8 * 50_000
    entries.append({"step": 50_000, "a": 1.0})
    tracemalloc.start()
    write()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_bytes < peak < 1.4 * num_bytes
    found = series.read(tmp_path / "series.h5")
    assert all(np.array_equal(column, np.arange(50_000)) for column in found.values())


def test_a_long_series_is_written_rarely(tmp_path, monkeypatch):
    """Else the time of all writes would grow with the square of the number of entries.

    With the pause of a short series, there would be 13 writes.
    """
    seconds = itertools.count(time.monotonic())  # each step takes a second
    clock = SimpleNamespace(monotonic=lambda: next(seconds), time=time.time)
    monkeypatch.setattr(limits, "time", clock)
    monkeypatch.setattr(recorder, "SERIES_ENTRIES", 20)
    written, write = [], series.write
    monkeypatch.setattr(series, "write", lambda *args: written.append(args[2]) or write(*args))
    table = SMALL | {
        "run": {"max_steps": 100, "start": "random", "starts": 1, "windows": 1},
        "output": {"every_steps": 1},
        "checkpoint": {"every_seconds": 1e6},
    }
    nedhpc.run(table, tmp_path / "run", MPI.COMM_SELF)
    assert written[-1] == 101 and 4 < len(written) < 10, written


def next_communicator():
    """Number that MPI gives to a new communicator."""
    comm = MPI.COMM_SELF.Dup()
    number = comm.py2f()
    comm.Free()
    return number


def held():
    return len(os.listdir("/proc/self/fd")), next_communicator()


def runs(folder, numbers):
    """Small runs of one step; each third fails: its time step is too large."""
    for number in numbers:
        run = {"max_steps": 1, "start": "random", "starts": 1, "windows": 1}
        table = SMALL | {"run": run}
        if number % 3 == 2:
            table |= {"stepper": {"type": "adam", "lr": 1e200}}
        try:
            nedhpc.run(table, folder / str(number), MPI.COMM_SELF)
            assert number % 3 != 2
        except NedError:
            assert number % 3 == 2


@pytest.mark.parametrize("count", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_runs_in_one_process_leave_no_descriptors_and_communicators(tmp_path, count):
    runs(tmp_path, range(6))
    before = held()
    runs(tmp_path, range(6, count))
    assert held() == before
