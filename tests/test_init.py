"""nedhpc init: each kind runs under a name of its own, and nothing is replaced."""

import math

import pytest
from mpi4py import MPI

import nedhpc
from nedhpc import config
from nedhpc.cli.init import KINDS
from nedhpc.cli.main import main

SHORT = {
    "steady": ["network.hidden=[16]", "run.max_steps=8"],
    "space-time": ["network.hidden=[16]", "run.max_steps=8", "sampling.interior=200"],
    "march": ["network.hidden=[16]", "run.max_start_error=1.0", "run.max_steps=1"],
    "inverse": ["network.hidden=[8]", "run.max_steps=30"],
    "data": ["network.hidden=[8]", "run.max_steps=30"],
}
"""Settings by kind that make the run short."""
ERROR = {"steady": 1e-2, "space-time": 1e-1, "march": math.inf, "inverse": math.inf, "data": 0.1}
"""Largest relative L2 error after so few steps; infinite if there is no reference."""


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_runs_as_it_is_written(kind, tmp_path, capsys):
    assert main(["init", str(tmp_path / "my_plate"), "--kind", kind]) == 0
    capsys.readouterr()
    path = tmp_path / "my_plate.toml"
    assert main(["check", str(path)]) == 0, capsys.readouterr().err
    made = config.load(path, [*SHORT[kind], "run.estimate_error=false"])
    nedhpc.run(made, tmp_path / "run", MPI.COMM_SELF)
    solution = nedhpc.load(tmp_path / "run")
    error = solution.series["relative_l2"][-1]
    assert math.isinf(ERROR[kind]) or error < ERROR[kind], error
    if kind == "inverse":
        assert abs(solution.coefficients["k"] - 0.5) < 0.01
    named = "regression" if kind == "data" else f"{tmp_path}/my_plate.py:MyPlate"
    assert made.problem.name == named


def test_nothing_is_replaced(tmp_path, capsys):
    (tmp_path / "plate.py").write_text("mine")
    assert main(["init", str(tmp_path / "plate")]) == 2
    assert "plate.py exists" in capsys.readouterr().err
    assert (tmp_path / "plate.py").read_text() == "mine"
    assert not (tmp_path / "plate.toml").exists()


@pytest.mark.parametrize("name, reason", [("my-plate", "class"), ("no/such/x", "cannot write")])
def test_a_bad_name_is_told(name, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["init", name]) == 2
    assert reason in capsys.readouterr().err
