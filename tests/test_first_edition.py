"""Run folders of the first edition (schema 1) open and continue to what that edition reached."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from processes import run

from nedhpc.files import checkpoint, series
from nedhpc.postprocess.info import info

FOLDER = Path(__file__).parent / "fixtures" / "first_edition"
CASES = sorted(path.name for path in FOLDER.iterdir())
MEASURED = {"status", "file"}
"""Keys of `nedhpc info` that depend on where the folder is and whether its process lives."""


def parameters(state):
    return np.concatenate([state.theta_P, list(state.coefficients.values())])


@pytest.mark.parametrize("name", CASES)
def test_a_run_folder_opens(name):
    folder = FOLDER / name / "run"
    state, _ = checkpoint.read(folder / "checkpoint-0000000004.h5")
    assert state.step == 4
    assert state.theta_P.shape == ((25,) if name == "heat" else (19,))
    assert list(series.read(folder / "series.h5")["step"]) == [0, 1, 2, 3, 4]
    then, now = json.loads((FOLDER / name / "info.json").read_text()), info(folder)
    for key in then.keys() - MEASURED:
        assert now[key] == then[key], key


@pytest.mark.parametrize("name", CASES)
def test_a_run_continues_as_the_first_edition_did(tmp_path, name):
    copy = shutil.copytree(FOLDER / name / "run", tmp_path / "run")
    settings = ["--set", "run.max_steps=7"]
    if name == "coefficient":
        settings += ["--set", f"problem.name={FOLDER / name / 'decay.py'}:Decay"]
    code, _, err = run("resume", copy, *settings)
    assert code == 0, err
    _, state, *_ = checkpoint.newest(copy)
    expected = np.load(FOLDER / name / "theta.npy")
    error = np.linalg.norm(parameters(state) - expected) / np.linalg.norm(expected)
    assert state.step == 7 and error < 1e-10, error
    assert list(series.read(copy / "series.h5")["step"]) == list(range(8))
