"""Each ready config runs for a few steps on fewer points, and its energy falls or it marches."""

import tomllib

import pytest
from conftest import evolve
from mpi4py import MPI
from processes import ROOT

from nedhpc import config
from nedhpc.postprocess.solution import Solution

CONFIGS = sorted((ROOT / "configs").glob("*.toml"))


def is_march(path):
    return "max_time" in tomllib.loads(path.read_text()).get("run", {})


def run_small(path, folder, limits):
    """The series of a run of a ready config with few points and a small network."""
    table = tomllib.loads(path.read_text())
    points = table.setdefault("sampling", {})
    for name in ("interior", "boundary", "initial"):
        points[name] = min(points.get(name, 64), 64)
    table.setdefault("run", {}).update(limits, max_wall_time=60, start="random", windows=1)
    table["network"] = table.get("network", {}) | {"hidden": [12]}
    table["device"] = {"threads": 1}
    evolve(config.validate(table), folder / "run", MPI.COMM_SELF)
    return Solution(folder / "run").series


@pytest.mark.parametrize(
    "path", [path for path in CONFIGS if not is_march(path)], ids=lambda path: path.stem
)
def test_the_energy_of_a_ready_config_falls(path, tmp_path):
    series = run_small(path, tmp_path, {"max_steps": 4})
    energy = series.get("balanced_energy", series["energy"])  # what the run minimises
    assert energy[-1] < energy[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in CONFIGS if is_march(path)], ids=lambda path: path.stem
)
def test_a_ready_march_goes_on_from_its_start(path, tmp_path):
    series = run_small(path, tmp_path, {"max_time": 1e-3, "max_start_error": 10.0})
    assert series["time"][-1] == 1e-3 and series["relative_l2"][-1] < 1
