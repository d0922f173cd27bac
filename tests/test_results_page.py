"""The Python of docs/results.md and docs/file_format.md runs, and files describe themselves."""

import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import make_table
from mpi4py import MPI
from processes import ROOT

import nedhpc
from nedhpc.cli import main
from nedhpc.files import checkpoint, march


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the run runs/p2 is."""
    folder = tmp_path_factory.mktemp("page")
    table = make_table(problem={"name": "poisson", "dim": 2}, sampling={"interior": 36})
    table["run"]["max_steps"] = 20
    nedhpc.run(table, folder / "runs" / "p2", MPI.COMM_SELF)
    return folder


@pytest.mark.parametrize("page", ["results.md", "file_format.md"])
def test_the_python_of_a_page_runs(folder, page):
    text = (ROOT / "docs" / page).read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    if page == "file_format.md":
        assert "import nedhpc" not in code
        energy, *_ = done.stdout.split()
        assert float(energy) == nedhpc.load(folder / "runs" / "p2").series["energy"][-1]
        assert "'layer0.weight': (8, 2)" in done.stdout and "s\n[" in done.stdout


def test_datasets_of_a_checkpoint_have_units_and_long_names(folder):
    with h5py.File(checkpoint.paths(folder / "runs" / "p2")[-1]) as file:
        assert dict(file["state/clock/wall_time"].attrs) == {
            "long_name": "wall time, resumes included",
            "units": "s",
        }
        for name in ("state/theta", "state/clock/step", "config", "stats/energy", "sampling/draw"):
            assert file[name].attrs["long_name"] and "units" in file[name].attrs, name


def test_an_edited_march_is_sealed_again(tmp_path, capsys):
    path = tmp_path / march.NAME
    march.write(path, np.array([0.1, 0.2]), np.ones((2, 3)))
    with h5py.File(path, "a") as file:
        assert file["theta"].dims[1].label == "parameter" and file["theta"].dims[0].keys() == [
            "time"
        ]
        file["time"][0] = 0.15
    assert main(["seal", str(path)]) == 0 and capsys.readouterr().out.startswith("march ")
    assert march.read(path)[0].tolist() == [0.15, 0.2]
