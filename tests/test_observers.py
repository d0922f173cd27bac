"""Observers: the user's own, with a memory in the checkpoint, the ready ones, and trigger files."""

import csv
import inspect
import json
import textwrap

import numpy as np
import pytest
from conftest import evolve, make_config
from mpi4py import MPI
from processes import finish, start, wait_for_step, write_config

import nedhpc
from nedhpc.cli.main import main
from nedhpc.errors import ConfigError, NonFiniteError, UsageError
from nedhpc.files import checkpoint
from nedhpc.files.resume import load_resume
from nedhpc.files.series import read as read_series
from nedhpc.postprocess.info import info
from nedhpc.running import observers, triggers


class Patience(nedhpc.Observer):
    """Stops after the third step since it was made, in however many runs."""

    name = "patience"
    waits = 0

    def step(self, run, moment):
        self.waits += 1
        return nedhpc.Stop("stopped", "three steps") if self.waits == 3 else None

    def state(self):
        return {"waits": self.waits, "path": np.arange(self.waits), "word": "so far"}

    def load(self, state):
        assert state["word"] == "so far" and len(state["path"]) == state["waits"]
        self.waits = int(state["waits"])


def settings(steps, names=(), **tables):
    output = {"every_steps": 2, "observers": list(names)}
    return make_config(run={"max_steps": steps}, output=output, **tables)


@pytest.mark.mpi
def test_the_memory_of_an_observer_is_in_the_checkpoint(comm, folder):
    evolve(settings(2, ["patience"]), folder / "run", comm)
    assert load_resume(comm, folder / "run")[0].observers["patience"]["waits"] == 2
    resumed = load_resume(comm, folder / "run")
    status, state = evolve(settings(9, ["patience"]), folder / "run", comm, resumed)
    assert status == "stopped" and state.step == 3


def test_two_observers_of_a_class_have_two_memories(tmp_path):
    two = [Patience(), Patience()]
    evolve(settings(2), tmp_path, MPI.COMM_SELF, observers=two)
    assert set(checkpoint.newest(tmp_path)[1].observers) == {"patience", "patience-2"}


def test_an_observer_hears_of_errors(tmp_path):
    class Hears(nedhpc.Observer):
        heard = ()

        def error(self, run, error):
            self.heard += (error,)

        def end(self, run, stop):
            self.heard += (stop.status,)

    class Broken(Hears):
        def error(self, run, error):
            raise OSError("no mail server")

    hears, config = Hears(), settings(9, stepper={"type": "adam", "adam": {"lr": 1e300}})
    with pytest.raises(NonFiniteError) as caught:
        evolve(config, tmp_path, MPI.COMM_SELF, observers=[Broken(), hears])
    assert isinstance(hears.heard[0], NonFiniteError) and hears.heard[1] == "failed"
    assert caught.value.__cause__ is hears.heard[0]


def test_an_unknown_observer_is_named(tmp_path, capsys):
    with pytest.raises(ConfigError, match="did you mean 'csv'"):
        observers.made(["cvs"])
    (tmp_path / "case.toml").write_text(settings(1, ["json_line"]).toml())
    assert main(["check", str(tmp_path / "case.toml")]) == 2
    assert "did you mean 'json_lines'" in capsys.readouterr().err


def test_the_example_of_the_module_runs(tmp_path):
    text = inspect.getdoc(observers).partition("\n\n")[2].partition("\n\n`start`")[0]
    found = {"nedhpc": nedhpc}
    exec(textwrap.dedent(text), found)
    made = found["Patience"]()
    evolve(settings(3), tmp_path, MPI.COMM_SELF, observers=[made])
    stored = checkpoint.newest(tmp_path)[1].observers["patience"]
    assert stored["best"] == made.best < float("inf")
    again = found["Patience"]()
    again.load(stored)
    assert again.state() == made.state()


@pytest.mark.mpi
def test_lines_agree_with_the_series_also_after_a_resume(comm, folder):
    """The run that is resumed had written two lines more than its checkpoint knows."""
    names = ["csv", "json_lines"]
    evolve(settings(4, names), folder / "run", comm)
    resumed = load_resume(comm, folder / "run")
    if comm.rank == 0:
        for file in ("series.csv", "series.jsonl"):
            with (folder / "run" / file).open("a") as stream:
                stream.write("5,lost\n6,lost\n")
    comm.barrier()
    evolve(settings(7, names), folder / "run", comm, resumed)
    if comm.rank:
        return
    series = read_series(folder / "run/series.h5")
    rows = list(csv.DictReader((folder / "run/series.csv").read_text().splitlines()))
    objects = [json.loads(text) for text in (folder / "run/series.jsonl").open()]
    for found in (rows, objects):
        assert [int(row["step"]) for row in found] == [0, 2, 4, 6, 7]
        assert {name for name in series if not name.startswith("seconds/")} == set(found[0])
        for name in ("energy", "relative_l2", "dt"):
            assert [float(row[name]) for row in found] == series[name].tolist()


def test_a_json_line_has_null_for_what_is_not_known():
    from nedhpc.running.ready import JsonLines

    assert json.loads(JsonLines().line({"step": 1, "relative_l2": np.nan}, True)) == {
        "step": 1,
        "relative_l2": None,
    }


def test_tensorboard_reads_the_run_and_forgets_lost_steps(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    evolve(settings(4, ["tensorboard"]), tmp_path, MPI.COMM_SELF)
    resumed = load_resume(MPI.COMM_SELF, tmp_path)
    evolve(settings(7, ["tensorboard"]), tmp_path, MPI.COMM_SELF, resumed)
    seen = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("energy")
    series = read_series(tmp_path / "series.h5")
    assert [event.step for event in seen] == series["step"].tolist()
    np.testing.assert_allclose([event.value for event in seen], series["energy"], rtol=1e-6)


@pytest.mark.mpi
def test_trigger_files_act_once(comm, folder, monkeypatch):
    """A stop file from before the start does nothing; later ones are deleted when they act."""
    monkeypatch.setattr(triggers, "EVERY_SECONDS", 0.0)

    class Touches(nedhpc.Observer):
        def step(self, run, moment):
            name = {3: "checkpoint", 5: "stop"}.get(moment.state.step)
            if name and run.comm.rank == 0:
                (run.run_dir / name).touch()
            run.comm.barrier()

    (folder / "run").mkdir(exist_ok=True)
    (folder / "run/stop").touch()
    comm.barrier()
    status, state = evolve(settings(9), folder / "run", comm, observers=[Touches()])
    assert (status, state.step) == ("stopped", 5)
    if comm.rank == 0:
        steps = [checkpoint.step_of(path) for path in checkpoint.paths(folder / "run")]
        assert steps == [0, 3, 5] and "asked" in info(folder / "run")["message"]
        assert not {"stop", "checkpoint"} & {path.name for path in (folder / "run").iterdir()}


def test_a_touched_file_stops_a_job_that_is_not_requeued(tmp_path):
    process = start("run", write_config(tmp_path), "--out", tmp_path / "run", cwd=tmp_path)
    wait_for_step(tmp_path / "run", 50, process)
    (tmp_path / "run/stop").touch()
    code, out, err = finish(process)
    assert code == 0 and out.startswith("stopped"), err


def test_a_touched_file_draws_the_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(triggers, "EVERY_SECONDS", 0.0)

    class Touches(nedhpc.Observer):
        def step(self, run, moment):
            if moment.state.step == 2:
                (run.run_dir / "plot").touch()

    evolve(settings(4), tmp_path, MPI.COMM_SELF, observers=[Touches()])
    assert (tmp_path / "plot.png").stat().st_size > 1000


@pytest.mark.parametrize("given", [Patience, object()], ids=["class", "other object"])
def test_what_is_no_observer_is_refused(tmp_path, given):
    with pytest.raises(UsageError, match="nedhpc.Observer"):
        nedhpc.run({}, tmp_path / "run", MPI.COMM_SELF, observers=[given])
    assert not (tmp_path / "run").exists()
