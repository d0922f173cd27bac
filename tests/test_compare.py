"""`nedhpc compare`: a table of runs, their facts as JSON, and limits that they keep or exceed."""

import json
import re

import pytest
from conftest import make_table
from mpi4py import MPI

import nedhpc
from nedhpc.cli import main
from nedhpc.files import series
from nedhpc.postprocess.compare import facts


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of ptc that converges, and one of adam that does not."""
    folder = tmp_path_factory.mktemp("compare")
    for kind, steps in (("ptc", 40), ("adam", 4)):
        table = make_table(stepper={"type": kind}, run={"max_steps": steps})
        nedhpc.run(table, folder / kind, MPI.COMM_SELF)
    return [str(folder / kind) for kind in ("ptc", "adam")]


def test_times_to_an_error_are_those_of_the_series(runs):
    good, bad = facts(runs)
    columns = series.read(f"{runs[0]}/series.h5")
    reached = columns["relative_l2"] <= 1e-3
    assert reached.any() and good["time_to"]["1e-03"] == columns["wall_time"][reached][0]
    assert list(bad["time_to"].values()) == [None] * 4
    assert (good["run"], good["method"]) == ("ptc", "euclidean/ptc/tsqr") and good[
        "relative_l2"
    ] > 0


def test_the_table_has_a_row_for_each_run(runs, capsys):
    assert main(["compare", *runs]) == 0
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert title.split()[:5] == ["run", "status", "steps", "error", "energy"]
    assert [row.split()[:3] for row in rows] == [
        ["ptc", "max_steps", "40"],
        ["adam", "max_steps", "4"],
    ]


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run").symlink_to(runs[0])
    found = facts([tmp_path / "a" / "run", tmp_path / "b" / "run", runs[1]])
    assert len({run["run"] for run in found}) >= 2
    (tmp_path / "c" / "ptc").mkdir(parents=True)
    for file in ("series.h5", "checkpoint-0000000040.h5"):
        (tmp_path / "c" / "ptc" / file).symlink_to(f"{runs[0]}/{file}")
    names = [run["run"] for run in facts([runs[0], tmp_path / "c" / "ptc"])]
    assert names[1] == "c/ptc" and names[0].endswith("/ptc") and names[0] != names[1]


def test_a_run_keeps_the_limits_that_it_sets_itself(runs, tmp_path, capsys):
    assert main(["compare", *runs, "--json"]) == 0
    (tmp_path / "limits.json").write_text(capsys.readouterr().out)
    assert main(["compare", *runs, "--against", str(tmp_path / "limits.json")]) == 0


@pytest.mark.parametrize(
    "limit, message",
    [
        ({"run": "ptc", "relative_l2": 1e-30}, "ptc: relative_l2 = .*, allowed is 1.1e-30"),
        ({"run": "adam", "time_to": {"1e-06": 5.0}}, "adam: time_to 1e-06 = -, allowed is 5.5"),
        ({"run": "gone", "wall_time": 1.0}, "gone: this run is not among those compared"),
    ],
)
def test_a_run_that_exceeds_a_limit_is_named(runs, tmp_path, capfd, limit, message):
    (tmp_path / "limits.json").write_text(json.dumps([limit]))
    assert main(["compare", *runs, "--against", str(tmp_path / "limits.json")]) == 1
    assert re.search(message, capfd.readouterr().err)


def test_slack_allows_more(runs, tmp_path):
    limit = [{"run": "ptc", "relative_l2": facts(runs)[0]["relative_l2"] / 2}]
    (tmp_path / "limits.json").write_text(json.dumps(limit))
    words = ["compare", *runs, "--against", str(tmp_path / "limits.json")]
    assert main(words) == 1 and main([*words, "--slack", "3"]) == 0


@pytest.mark.parametrize(
    "text", ["{", "{}", '[{"relative_l2": 1}]', '[{"run": "a", "time_to": 1}]']
)
def test_other_files_are_refused(runs, tmp_path, capfd, text):
    (tmp_path / "limits.json").write_text(text)
    assert main(["compare", *runs, "--against", str(tmp_path / "limits.json")]) == 2
    assert "cannot be read as JSON" in (err := capfd.readouterr().err) or "needed is a list" in err
