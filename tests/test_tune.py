"""nedhpc tune: ranges and lists, a search that goes on, several at a time, and its results."""

import math
import threading
from importlib import import_module

import pytest

pytest.importorskip("optuna")

from conftest import evolve, make_config
from mpi4py import MPI
from processes import ROOT, write_config

from nedhpc import config
from nedhpc.cli import tune
from nedhpc.cli.main import main
from nedhpc.cli.tune import Choice, Range, Search, parse
from nedhpc.errors import NedError, UsageError
from nedhpc.files.series import read


@pytest.fixture
def runs(monkeypatch):
    """Trials that do not start a process: the settings of each, by the name of its folder."""
    seen = {}

    def run(words, **options):
        out = words[words.index("--out") + 1]
        given = dict(word[6:].split("=", 1) for word in words if word.startswith("--set="))
        seen[out] = given
        return tune.subprocess.CompletedProcess(words, 1 if given.get("run.seed") == "3" else 0)

    def measured(out, measure):
        lr = float(seen[str(out)]["stepper.adam.lr"])
        return (math.log10(lr) + 2) ** 2, 7

    monkeypatch.setattr(tune.subprocess, "run", run)
    monkeypatch.setattr(tune, "measured", measured)
    return seen


def search(folder, *over, **options):
    path = folder / "case.toml"
    path = path if path.exists() else write_config(folder, stepper="adam", steps=3)
    return Search(path, dict(map(parse, over)), folder / "search", **options)


def test_ranges_and_lists_are_read():
    assert parse("stepper.adam.lr=1e-4..1e-1") == ("stepper.adam.lr", Range(1e-4, 1e-1))
    assert parse("run.seed=1..5") == ("run.seed", Range(1, 5))
    key, choice = parse("network.hidden=[64],[32, 32]")
    assert choice == Choice(("[64]", "[32, 32]"))
    assert parse("network.activation=tanh,sin")[1] == Choice(('"tanh"', '"sin"'))
    for wrong in ("lr=1..2", "a.b", "a.b=", "a.b=2..1", "a.b=x..y", "a.b=true..false"):
        with pytest.raises(UsageError, match="--over"):
            parse(wrong)


def test_a_list_is_tried_once_and_a_failure_is_the_worst(tmp_path, runs):
    over = ("stepper.adam.lr=1e-3,1e-2", "run.seed=1,3")
    trials = search(tmp_path, *over).run()
    assert len(trials) == len(runs) == 4
    assert [trial.value for trial in trials] == [0.0, 1.0, math.inf, math.inf]
    assert trials[0].user_attrs["settings"] == {"stepper.adam.lr": 1e-2, "run.seed": 1}
    assert len(search(tmp_path, *over).run()) == len(runs) == 4  # nothing is tried again


def test_a_range_is_searched_in_the_logarithm_and_goes_on(tmp_path, runs):
    over = "stepper.adam.lr=1e-8..1e8"
    search(tmp_path, over).run(12)
    assert len(runs) == 12
    trials = search(tmp_path, over).run(30)
    assert len(runs) == 30 and len(trials) == 30
    values = [math.log10(t.user_attrs["settings"]["stepper.adam.lr"]) for t in trials]
    assert min(values) < -4 and max(values) > 4 and abs(values[0] + 2) < 1
    with pytest.raises(UsageError, match="--trials"):
        search(tmp_path, over).run()
    with pytest.raises(UsageError, match="another search"):
        search(tmp_path, "stepper.adam.lr=1e-8..1e-1")


def test_processes_share_a_search(tmp_path, runs, monkeypatch):
    """Two tasks of a job array propose different trials, and together make the number asked for."""
    over, made = "stepper.adam.lr=1e-8..1e8", []
    for task in ("0", "1"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        made.append(search(tmp_path, over))
    threads = [threading.Thread(target=one.run, args=(10,)) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) in (10, 11) and len({str(given) for given in runs.values()}) == len(runs)


def test_a_trial_that_was_killed_is_tried_again(tmp_path, runs, monkeypatch):
    over = "stepper.adam.lr=1e-3,1e-2"
    lost = search(tmp_path, over)
    lost.over["stepper.adam.lr"].suggest(lost.study.ask(), "stepper.adam.lr")
    monkeypatch.setattr(tune, "START_SECONDS", 0.0)
    assert len(search(tmp_path, over).run()) == 2


def test_a_signal_ends_the_search(tmp_path, monkeypatch):
    def stopped(words, **options):
        return tune.subprocess.CompletedProcess(words, 75)

    monkeypatch.setattr(tune.subprocess, "run", stopped)
    with pytest.raises(NedError, match="the same command continues"):
        search(tmp_path, "run.seed=1,2").run()
    assert search(tmp_path, "run.seed=1,2").finished() == []


def test_the_command_runs_trials_and_writes_the_best_config(tmp_path, capsys):
    path = write_config(tmp_path, stepper="adam", steps=20)
    words = ["tune", str(path), "--out", str(tmp_path / "out"), "--set", "run.start=random"]
    assert main([*words, "--over", "stepper.adam.lr=1e-12,1e-2"]) == 0, capsys.readouterr().err
    first, second, name = capsys.readouterr().out.splitlines()
    assert "lr=0.01" in first and "lr=1e-12" in second and float(first.split()[0]) < 1
    best = config.load(name)
    assert best.stepper.model_extra["adam"]["lr"] == 1e-2 and best.run.start == "random"
    assert main([*words[:-2], "--out", str(tmp_path / "bad"), "--over", "run.seeds=1"]) == 2


def test_a_column_that_is_not_there_is_named(tmp_path):
    evolve(make_config(run={"max_steps": 2}), tmp_path, MPI.COMM_SELF)
    value, step = tune.measured(tmp_path, "energy")
    assert step == 2 and value == read(tmp_path / "series.h5")["energy"][-1]
    assert tune.measured(tmp_path, None)[0] == read(tmp_path / "series.h5")["relative_l2"][-1]
    with pytest.raises(UsageError, match="series.h5 has"):
        tune.measured(tmp_path, "relative_l1")


def test_the_baselines_are_tuned_by_the_same_search(tmp_path, runs, monkeypatch):
    """A grid, a decay from the best rate and the next, and the other sampling; nothing twice."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    baselines = import_module("tune_baselines")
    path = write_config(tmp_path, stepper="adam", steps=3)
    for _ in range(2):
        trials = baselines.tune(path, "adam", 1.0, 0, tmp_path / "search")
        assert len(trials) == len(runs) == 4 + 2 + 1
    settings, error, steps = trials[-1]
    assert settings["stepper.adam.lr"] == 1e-2 and error == 0.0 and steps == 7
    rates = [given["stepper.adam.lr"] for given in runs.values() if "cosine" in str(given)]
    assert rates[:2] == ["0.01", "0.03"]
    assert all(given["run.max_wall_time"] == "1.0" for given in runs.values())
    assert list(runs.values())[-1]["sampling.resample_every"] == "1"
