"""Files are written in the background, one after another."""

import copy
import threading

import h5py
import numpy as np
import pytest
from conftest import evolve, make_config
from mpi4py import MPI
from test_adaptation import Waves, plan_of, small

import nedhpc
from nedhpc.errors import StorageError
from nedhpc.files import checkpoint, series
from nedhpc.files.resume import load_resume
from nedhpc.files.writer import Writer
from nedhpc.running.evolve import Run


def test_a_slow_write_stalls_only_the_next_one(tmp_path):
    writer, begun, go = Writer(MPI.COMM_SELF, tmp_path, None), threading.Event(), threading.Event()
    written = []

    def slow():
        begun.set()
        assert go.wait(60)
        written.append("slow")

    writer.submit(slow)
    assert begun.wait(60) and not written
    threading.Timer(0.2, go.set).start()
    writer.submit(lambda: written.append("next"))
    writer.wait()
    assert written == ["slow", "next"] and writer.longest >= 0.1


@pytest.mark.mpi
def test_a_write_that_fails_is_raised_on_every_rank(comm, tmp_path):
    def full():
        raise OSError(28, "No space left on device")

    writer = Writer(comm, tmp_path, None)
    writer.submit(full)
    writer.finish()
    with pytest.raises(StorageError, match="cannot write in .*: No space left"):
        writer.submit(lambda: None)
    writer.wait()


def test_the_run_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """And what is written is the state at that step."""
    stored, write, free = [], checkpoint.write, threading.Event()

    def slow(run_dir, state, record, keep):
        if state.step == 2:
            assert free.wait(60)  # until the run has made two more steps
        stored.append(state.step)
        return write(run_dir, state, record, keep)

    class Follow(nedhpc.Observer):
        def step(self, run, moment):
            if moment.state.step == 3:
                assert 2 not in stored
                free.set()

    monkeypatch.setattr(checkpoint, "write", slow)
    tables = small(max_steps=4, windows=1) | {"checkpoint": {"every_steps": 2, "keep": 9}}
    Run(MPI.COMM_SELF, plan_of(Waves(), **tables), tmp_path, observers=[Follow()]).evolve()
    assert stored == [0, 2, 4]
    assert checkpoint.read(tmp_path / "checkpoint-0000000002.h5")[0].step == 2


def test_the_series_needs_8_bytes_a_number(tmp_path):
    entries = series.Series(tmp_path / "series.h5")
    for step in range(1000):
        entries.append({"step": step, "energy": 1.0 / (step + 1)})
    assert all(column.itemsize == 8 for column in entries.columns.values())
    entries.writing()()
    with h5py.File(tmp_path / "series.h5") as file:
        assert len(file["energy"]) == 1000 and file["step"].dtype == "int64"


class Keeps(nedhpc.Observer):
    """Keeps each state, and a copy of it."""

    def __init__(self):
        self.pairs = []

    def start(self, run, moment):
        self.step(run, moment)

    def step(self, run, moment):
        self.pairs.append((moment.state, copy.deepcopy(moment.state)))


@pytest.mark.parametrize(
    "kind, dt", [("adam", 1.0), ("sgd", 1.0), ("lbfgs", 1.0), ("spring", 0.5), ("bdf", 1e-3)]
)
def test_a_step_does_not_change_an_earlier_state(tmp_path, kind, dt):
    """Else a state that is written while the next step goes on would be a mixture of both."""
    observer = Keeps()
    for steps in (3, 6):
        config = make_config(stepper={"type": kind, "dt": dt}, run={"max_steps": steps})
        resumed = load_resume(MPI.COMM_SELF, tmp_path) if steps > 3 else None
        evolve(config, tmp_path, MPI.COMM_SELF, resumed, observers=[observer])
    assert len(observer.pairs) >= 8 and any(state.stepper for state, _ in observer.pairs)
    for state, before in observer.pairs:
        assert np.array_equal(state.theta_P, before.theta_P)
        for name, entry in before.stepper.items():
            assert np.array_equal(state.stepper[name], entry), name
