"""What nedhpc.load gives: series as xarray, a torch module; also from a run that is going on."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import make_table
from mpi4py import MPI
from processes import finish, start, wait_for_step, write_config

import nedhpc
from nedhpc.files import checkpoint
from nedhpc.postprocess.export import export
from nedhpc.postprocess.plot import plot
from nedhpc.postprocess.watch import frame


class Decay(nedhpc.Problem):
    """u_t + u = 0, and a second output that a hard condition sets on the walls."""

    domain = nedhpc.SpaceTime([0.0], [1.0], 1.0)
    outputs = ("u", "v")
    hard = {"boundary": {"v": 1.0}}

    @nedhpc.residual("interior")
    def fit(self, x, j):
        return torch.stack([j.u_t + j.u, j.v_t], 1)

    @nedhpc.residual("initial")
    def begin(self, x, j):
        return torch.stack([j.u - torch.sin(x[:, 0]), j.v - 1], 1)


@pytest.fixture(scope="module")
def decay(tmp_path_factory):
    table = {
        "network": {"hidden": [6, 6]},
        "sampling": {"interior": 60, "initial": 20},
        "run": {"max_steps": 2, "start": "random"},
    }
    folder = tmp_path_factory.mktemp("decay") / "run"
    nedhpc.run(table, folder, MPI.COMM_SELF, problem=Decay)
    # A checkpoint as of a later time window, whose solved windows have other parameters.
    _, state, record, _ = checkpoint.newest(folder)
    solved = [(0.0, 0.3), (0.3, 0.5)]
    state.pieces = tuple(
        checkpoint.Piece(*times, (k + 2) * state.theta_P, state.scaling)
        for k, times in enumerate(solved)
    )
    state.window, state.step = (0.5, 1.0), state.step + 1
    checkpoint.write(folder, state, record, 2)
    return nedhpc.load(folder, Decay)


def test_the_module_is_the_solution_on_each_window(decay):
    assert len(decay.state.pieces) == 2
    x = torch.rand(50, 2, dtype=torch.float64, requires_grad=True)
    u = decay.module()(x)
    np.testing.assert_allclose(u.detach(), decay(x), rtol=1e-12, atol=1e-14)
    (slope,) = torch.autograd.grad(u[:, 1].sum(), x)
    np.testing.assert_allclose(slope, decay.gradient(x)[:, 1], rtol=1e-9, atol=1e-11)
    assert sum(p.numel() for p in decay.module().parameters()) == len(decay.state.theta_P) * (
        1 + len(decay.state.pieces)
    )


def test_torch_exports_the_module_for_any_number_of_points(decay):
    given = torch.rand(7, 2, dtype=torch.float64)
    sizes = ({0: torch.export.Dim("N", min=1, max=10**6)},)
    program, file = (
        torch.export.export(decay.module(), (given,), dynamic_shapes=sizes),
        io.BytesIO(),
    )
    torch.export.save(program, file)
    file.seek(0)
    again, x = torch.export.load(file).module(), torch.rand(33, 2, dtype=torch.float64)
    np.testing.assert_allclose(again(x).detach(), decay(x), rtol=1e-12, atol=1e-14)


def test_the_series_is_a_dataset_of_xarray(decay):
    data = decay.to_xarray()
    assert set(data.variables) == set(decay.series) and data.sizes == {"step": len(data.step)}
    assert data["wall_time"].attrs == {"units": "s", "long_name": "wall time, resumes included"}
    for name, values in decay.series.items():
        np.testing.assert_array_equal(data[name], values)
    assert float(data["energy"].sel(step=data.step[-1])) == decay.series["energy"][-1]


def look(folder, tmp_path):
    """Everything that reads a run folder; returns the step that it found."""
    u = nedhpc.load(folder)
    assert np.isfinite(u([[0.5]])).all()
    plot([folder], tmp_path / "a.png", ("convergence", "fields"))
    export(folder, tmp_path / "a.vtkhdf", grid=(5,))
    assert "step" in frame(folder, 80)[0]
    return u.state.step


def test_a_run_that_is_being_written_can_be_read(tmp_path):
    """It writes a checkpoint every few milliseconds and deletes all but two."""
    process = start("run", write_config(tmp_path, every=5), "--out", tmp_path / "run")
    try:
        wait_for_step(tmp_path / "run", 10, process)
        steps = [look(tmp_path / "run", tmp_path) for _ in range(2)]
        code, out, err = finish(start("info", tmp_path / "run", "--json"))
        assert code == 0 and json.loads(out)["status"] == "running", err
        assert steps == sorted(steps) and steps[-1] > steps[0] and process.poll() is None
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.parametrize("damaged", ["checkpoint", "series.h5", "both"])
def test_a_run_with_a_torn_file_can_be_read(tmp_path, damaged):
    table = make_table(run={"max_steps": 10}, checkpoint={"every_steps": 5})
    folder = nedhpc.run(table, tmp_path / "run", MPI.COMM_SELF).run_dir
    files = [checkpoint.paths(folder)[-1], folder / "series.h5"]
    for file in {"checkpoint": files[:1], "series.h5": files[1:], "both": files}[damaged]:
        file.write_bytes(file.read_bytes()[:-200])
    if damaged == "checkpoint":
        assert look(folder, tmp_path) == 5
    else:
        u = nedhpc.load(folder)
        assert u.series == {} and u.state.step == (5 if damaged == "both" else 10)
        assert frame(folder, 80)[0].startswith("no positive energy")


NOTEBOOK = """
import nedhpc, torch, sys
class Cell(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])
    @nedhpc.residual("interior")
    def ode(self, j): return j.u_x + j.u
    @nedhpc.residual("boundary")
    def ends(self, x, j): return j.u - torch.exp(-x[:, 0])
table = {"network": {"hidden": [6]}, "sampling": {"interior": 30}, "run": {"max_steps": 3}}
for k in range(2):
    outcome = nedhpc.run(table, f"run{k}", problem=Cell)
    assert outcome.status in ("max_steps", "converged", "stalled"), outcome
a, b = (nedhpc.load(f"run{k}", Cell) for k in range(2))
assert (a([[0.3]]) == b([[0.3]])).all()
"""


def test_a_class_of_a_notebook_cell_runs_twice_in_one_process(tmp_path):
    """The cell is code without a file, as in IPython."""
    code = f"exec(compile({NOTEBOOK!r}, '<cell 1>', 'exec'), {{'__name__': '__main__'}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
