"""Memory, descriptors and communicators do not grow with steps and runs."""

import os

import psutil
import pytest
from mpi4py import MPI

import nedhpc
from nedhpc.errors import NedError

SMALL = {
    "problem": {"name": "poisson", "dim": 1},
    "network": {"hidden": [4], "activation": "tanh"},
    "sampling": {"interior": 16, "adapt": "none"},
    "solver": {"type": "gram"},
    "stepper": {"type": "euler", "dt": 1e-6},
    "device": {"threads": 1},
}


class Memory:
    """Resident memory in MiB at some steps."""

    def __init__(self, every):
        self.every, self.found = every, []

    def start(self, run, moment): ...

    def step(self, run, moment):
        if moment.state.step % self.every == 0:
            self.found.append(psutil.Process().memory_info().rss / 2**20)

    def end(self, run, stop): ...


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
