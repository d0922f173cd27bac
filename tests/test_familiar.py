"""Opening a run runs no code of somebody else, and a changed problem file is noticed."""

import os
import re
import stat
import subprocess
import sys

import pytest
from conftest import make_table
from mpi4py import MPI
from processes import ROOT, run

import nedhpc
from nedhpc import api
from nedhpc.errors import UsageError
from nedhpc.files import checkpoint, familiar
from nedhpc.postprocess.fresh import fresh_energy
from nedhpc.postprocess.plot import plot
from nedhpc.user_code import load_class

POISSON = ROOT / "configs" / "poisson_1d.toml"
COMM = MPI.COMM_SELF
PROBLEM = """
import nedhpc
from pathlib import Path
from helper import VALUE

(Path(__file__).parent / "ran").touch()

class P(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])

    @nedhpc.residual("interior")
    def pde(self, j):
        return j.u_x - VALUE
"""
NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(1, 1)

    def forward(self, x):
        return self.a(x)
"""


@pytest.fixture(autouse=True)
def state_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "nedhpc" / familiar.NAME


def table(tmp_path, steps=2, **tables):
    (tmp_path / "p.py").write_text(PROBLEM)
    (tmp_path / "helper.py").write_text("VALUE = 1.0\n")
    problem = {"name": f"{tmp_path}/p.py:P"}
    return make_table(problem=problem, run={"max_steps": steps, "start": "random"}, **tables)


def forget(state_home):
    state_home.unlink()


def test_the_code_of_a_run_is_familiar_to_the_user_who_ran_it(tmp_path, state_home):
    out = nedhpc.run(table(tmp_path), tmp_path / "run", COMM).run_dir
    assert stat.S_IMODE(state_home.stat().st_mode) == 0o600
    assert nedhpc.load(out)([[0.5]]).shape == (1, 1)
    before = state_home.read_bytes()
    api.resume(COMM, out, ["run.max_steps=3"])
    assert state_home.read_bytes() == before


@pytest.mark.parametrize(
    "use",
    [
        nedhpc.load,
        lambda out: plot([out], out / "a.png"),
        lambda out: fresh_energy(out, 10),
        lambda out: api.resume(COMM, out, ["run.max_steps=3"]),
    ],
    ids=["load", "plot", "fresh", "resume"],
)
def test_code_that_only_somebody_else_ran_is_not_run(tmp_path, state_home, use):
    settings = table(tmp_path)
    out = nedhpc.run(settings, tmp_path / "run", COMM).run_dir
    (tmp_path / "ran").unlink()
    forget(state_home)
    with pytest.raises(UsageError, match="have not run before .*`nedhpc resume RUN_DIR --set"):
        use(out)
    assert not (tmp_path / "ran").exists()
    nedhpc.run(settings, tmp_path / "mine", COMM)  # these settings name the file
    use(out)


def test_check_names_a_file_as_the_error_says(tmp_path, state_home):
    out = nedhpc.run(table(tmp_path), tmp_path / "run", COMM).run_dir
    forget(state_home)
    code, text, err = run("check", out / "config.toml")
    assert code == 0, text + err
    nedhpc.load(out)


@pytest.mark.parametrize("options", [("-P",), ()])
def test_modules_of_the_current_folder_are_not_imported(tmp_path, options):
    for name in ("random", "h5py", "argparse", "torch"):
        (tmp_path / f"{name}.py").write_text(f"open('{name} ran', 'w')")
    code, _, err = run("check", POISSON, cwd=tmp_path, program=(*options, "-m", "nedhpc"))
    assert code == 0 and not list(tmp_path.glob("* ran")), err


def test_scripts_and_pages_start_nedhpc_without_the_current_folder():
    folders = ("scripts", "slurm", "docs")
    files = [f for folder in folders for f in (ROOT / folder).iterdir() if f.is_file()]
    for file in [*files, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        text = file.read_bytes().decode("utf-8", "replace").replace('"', " ").replace(",", " ")
        for words in re.findall(r"\S+ +-m nedhpc\b", text):
            assert words.split()[0] == "-P", f"{file}: {words}"


def test_who_names_the_class_may_run_it(tmp_path, state_home):
    out = nedhpc.run(table(tmp_path), tmp_path / "run", COMM).run_dir
    forget(state_home)
    api.resume(COMM, out, ["run.max_steps=3", f"problem.name={tmp_path}/p.py:P"])
    assert nedhpc.load(out).state.step == 3


def test_a_familiar_file_beside_a_foreign_module_is_not_run(tmp_path, state_home):
    """A checkpoint that names a familiar file may come with another helper, and not mention it."""
    out = nedhpc.run(table(tmp_path), tmp_path / "run", COMM).run_dir
    _, state, record, _ = checkpoint.newest(out)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "p.py").write_text(PROBLEM)
    (foreign / "helper.py").write_text("raise SystemExit\n")
    record.config = record.config.replace(f"{tmp_path}/p.py", f"{foreign}/p.py")
    record.user_files.pop("problem.name:helper")
    checkpoint.write(out, state, record, 3)
    with pytest.raises(UsageError, match="have not run before"):
        nedhpc.load(out)


def test_a_network_file_is_code_too(tmp_path, state_home):
    (tmp_path / "net.py").write_text(NETWORK)
    network = {"name": f"{tmp_path}/net.py:Net", "scaling": "none"}
    settings = make_table(run={"max_steps": 1, "start": "random"})
    out = nedhpc.run(settings | {"network": network}, tmp_path / "run", COMM).run_dir
    nedhpc.load(out)
    forget(state_home)
    with pytest.raises(UsageError, match="network.name: .* not run before"):
        nedhpc.load(out)


@pytest.mark.parametrize("kind", ["file", "no folder", "fifo", "directory"])
def test_a_home_that_cannot_be_written_does_not_end_a_run(tmp_path, state_home, kind, caplog):
    caplog.set_level("INFO")
    if kind == "file":
        (tmp_path / "state").write_text("")
    elif kind == "no folder":
        os.environ["XDG_STATE_HOME"] = "/proc/nowhere"
    else:
        state_home.parent.mkdir(parents=True)
        os.mkfifo(state_home) if kind == "fifo" else state_home.mkdir()
    assert nedhpc.run(table(tmp_path, 1), tmp_path / "run", COMM).status == "max_steps"
    assert "cannot record which problem file" in caplog.text
    with pytest.raises(UsageError, match="have not run before"):
        nedhpc.load(tmp_path / "run")


def test_a_record_that_others_may_write_does_not_count(state_home):
    familiar.remember(["a" * 64])
    assert familiar.familiar() == {"a" * 64}
    state_home.chmod(0o622)
    assert familiar.familiar() == set()
    familiar.remember(["b" * 64])
    assert stat.S_IMODE(state_home.stat().st_mode) == 0o600


def test_runs_that_end_together_all_record_their_code(state_home):
    program = (
        "import sys; from nedhpc.files.familiar import remember\n"
        "for k in range(50): remember([sys.argv[1] * 61 + f'{k:03d}'])"
    )
    command = [sys.executable, "-c", program]
    writers = [subprocess.Popen([*command, letter], cwd=ROOT) for letter in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert familiar.familiar() == {letter * 61 + f"{k:03d}" for letter in "abc" for k in range(50)}


@pytest.mark.parametrize("file", ["p.py", "helper.py"])
def test_resume_auto_refuses_a_changed_file(tmp_path, file):
    """A job script always continues so; with an edited file it would solve another problem."""
    out = nedhpc.run(table(tmp_path, 1), tmp_path / "run", COMM).run_dir
    settings = table(tmp_path, 2)
    (tmp_path / file).write_text((tmp_path / file).read_text() + "\n# edited\n")
    with pytest.raises(UsageError, match=rf"{file} is not the file .* --set problem.name"):
        nedhpc.run(settings, out, COMM, resume="auto")
    assert checkpoint.newest(out)[1].step == 1
    edit = "    def exact(self, x):\n        return x[:, 0]\n"
    (tmp_path / "p.py").write_text(PROBLEM + edit)
    problem = load_class(f"{tmp_path}/p.py:P", nedhpc.Problem, "problem.name")
    nedhpc.run(settings, out, COMM, resume="auto", problem=problem)
    assert checkpoint.newest(out)[1].step == 2


def test_resume_auto_takes_a_changed_file_that_is_named_and_records_it(tmp_path):
    out = nedhpc.run(table(tmp_path, 1), tmp_path / "run", COMM).run_dir
    (tmp_path / "helper.py").write_text("VALUE = 2.0\n")
    args = ("run", out / "config.toml", "--out", out, "--resume", "auto")
    code, _, err = run(*args, "--set", f"problem.name={tmp_path}/p.py:P")
    assert code == 0, err
    changes = checkpoint.newest(out)[2].changes
    assert "problem.name:helper: the file's content changed" in changes[-1], changes
