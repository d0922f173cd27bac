"""Each ready config runs for a few steps on fewer points, and its energy falls."""

import tomllib

import pytest
from conftest import evolve
from mpi4py import MPI
from processes import ROOT

from nedhpc import config
from nedhpc.postprocess.solution import Solution

CONFIGS = sorted((ROOT / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_ready_config_descends(path, tmp_path):
    table = tomllib.loads(path.read_text())
    points = table.setdefault("sampling", {})
    for name in ("interior", "boundary", "initial"):
        points[name] = min(points.get(name, 64), 64)
    marches = "max_time" in table["run"]
    few = {"max_time": 0.005} if marches else {"max_steps": 4}
    table["run"] |= few | {"max_wall_time": 60, "start": "random", "windows": 1}
    table["network"] = table.get("network", {}) | {"hidden": [12]}
    table["device"] = {"threads": 1}
    evolve(config.validate(table), tmp_path / "run", MPI.COMM_SELF)
    series = Solution(tmp_path / "run").series
    if marches:  # its energy falls while the network learns the state at t = 0
        assert series["time"][-1] == 0.005 and series["relative_l2"][-1] < 0.1
    else:
        energy = series.get("balanced_energy", series["energy"])  # what the run minimises
        assert energy[-1] < energy[0]
