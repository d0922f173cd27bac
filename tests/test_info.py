"""`nedhpc info` as a table: it names what a reader asks for, whatever the run knows."""

import re

import pytest
from conftest import make_table
from mpi4py import MPI
from processes import ROOT

import nedhpc
from nedhpc.cli import main
from nedhpc.files import checkpoint

FIXTURES = ROOT / "tests" / "fixtures" / "first_edition"


def shown(capsys, *words):
    """{label: text} of the table that `nedhpc info` prints."""
    assert main(["info", *map(str, words)]) == 0
    rows = re.findall(r"^( *\S+(?: \S+)*)(?:  +(.*))?$", capsys.readouterr().out, re.M)
    return dict(rows)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    table = make_table(run={"max_steps": 3}, checkpoint={"every_steps": 1})
    return nedhpc.run(table, tmp_path_factory.mktemp("info") / "run", MPI.COMM_SELF).run_dir


def test_the_table_tells_status_error_and_energy(run_dir, capsys):
    found = shown(capsys, run_dir)
    assert found["problem"] == "poisson" and found["method"] == "euclidean/ptc/tsqr"
    assert found["status"] == "max_steps" and found["progress"].startswith("step 3, time ")
    assert found["error"].endswith("relative L2, measured")
    assert float(found["  pde"]) > 0 and found["size"] == "25 parameters, 42 points"
    assert found["ran on"] == "1 rank of 1 thread, cpu, float64"


def test_a_run_of_the_first_edition_is_shown(capsys):
    found = shown(capsys, FIXTURES / "coefficient" / "run")
    assert found["  k"] == "0.13292122" and found["ran on"] == "1 rank, cpu, float64"


def test_the_table_tells_the_energy_on_fresh_points(run_dir, capsys):
    found = shown(capsys, run_dir, "--fresh", "50")
    assert found["fresh energy"].endswith("on 50 points")


def test_the_table_names_a_damaged_checkpoint(run_dir, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    for file in checkpoint.paths(run_dir):
        (folder / file.name).write_bytes(file.read_bytes())
    newest = checkpoint.paths(folder)[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    found = shown(capsys, folder)
    assert found["progress"].startswith("step 2,") and "torn or corrupt" in found["damaged"]
