"""Run folders: their path, their lock, the user's files in them, and files that do not open."""

import errno
import fcntl
import os
import shutil

import numpy as np
import pytest
from conftest import evolve, make_config, make_table
from mpi4py import MPI

import nedhpc
from nedhpc.cli.main import main
from nedhpc.errors import StorageError, UsageError
from nedhpc.files import checkpoint, lock, sealed, series
from nedhpc.files.folder import new_folder
from nedhpc.files.lock import locked
from nedhpc.files.resume import load_resume
from nedhpc.postprocess.info import info

OTHERS = (
    ".notes.backup.2024",
    ".python.env.3",
    ".checkpoint-mine.h5.1",
    ".series.h5.old",
    "checkpoint-mybackup01.h5",
    "checkpoint-0000000004 (copy).h5",
    "checkpoint-٠١٢٣٤٥٦٧٨٩.h5",
    "checkpoint-best.h5.aside",
    "series.h5.bak",
)
"""Files of the user with names like those of nedhpc."""
LEFT = (".checkpoint-0000000002.h5.123", ".series.h5.7", ".config.toml.99")


def settings(steps, **tables):
    return make_config(run={"max_steps": steps}, **tables)


def test_only_files_of_nedhpc_are_deleted_renamed_or_read(tmp_path):
    for name in OTHERS:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".venv.py.3.11").mkdir()
    (tmp_path / ".config.toml.5").symlink_to(tmp_path / "series.h5.bak")
    evolve(settings(2), tmp_path, MPI.COMM_SELF)
    for name in LEFT:
        (tmp_path / name).write_text("half")
    shutil.copy(checkpoint.paths(tmp_path)[-1], tmp_path / "checkpoint-mybackup02.h5")
    evolve(settings(4), tmp_path, MPI.COMM_SELF, load_resume(MPI.COMM_SELF, tmp_path))
    assert all((tmp_path / name).read_text() == "mine" for name in OTHERS)
    assert not any((tmp_path / name).exists() for name in LEFT)
    assert (tmp_path / ".venv.py.3.11").is_dir() and (tmp_path / ".config.toml.5").is_symlink()
    assert info(tmp_path)["step"] == 4 and list(tmp_path.glob("*.aside")) == [
        tmp_path / "checkpoint-best.h5.aside"
    ]


def test_an_empty_path_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (["run", "x.toml", "--out", ""], ["resume", ""], ["info", ""], ["seal", ""]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert "is empty" in capsys.readouterr().err
    with pytest.raises(UsageError, match="is empty"):
        nedhpc.run(settings(1), "", MPI.COMM_SELF)
    assert list(tmp_path.iterdir()) == []


MOVING = """
import os, nedhpc
os.chdir("/")
class P(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])
    @nedhpc.residual()
    def fit(self, x, j):
        os.chdir("/tmp")
        return j.u - 1
"""


@pytest.mark.parametrize("out", ["here", None])
def test_a_problem_that_changes_the_current_folder_does_not_move_the_run(
    tmp_path, monkeypatch, out
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.py").write_text(MOVING)
    table = make_table(problem={"name": f"{tmp_path}/p.py:P"}, run={"max_steps": 3})
    outcome = nedhpc.run(table, out, MPI.COMM_SELF)
    assert outcome.run_dir.parent == (tmp_path if out else tmp_path / "runs")
    assert info(outcome.run_dir)["step"] == 3
    monkeypatch.chdir(tmp_path)
    table["run"]["max_steps"] = 5
    nedhpc.run(table, outcome.run_dir.relative_to(tmp_path), MPI.COMM_SELF, resume="auto")
    assert info(outcome.run_dir)["step"] == 5


def test_a_deleted_current_folder_is_a_usage_error(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UsageError, match="current folder was deleted"):
        nedhpc.run(settings(1), "out", MPI.COMM_SELF)
    assert nedhpc.run(settings(1), tmp_path / "out", MPI.COMM_SELF).run_dir.is_dir()
    monkeypatch.chdir(tmp_path)  # pytest needs one


def test_folders_of_the_same_second_do_not_collide(tmp_path):
    assert len({new_folder(tmp_path / "runs", "case") for _ in range(30)}) == 30
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--out"):
        new_folder(tmp_path / "file", "case")


def damage(path):
    path.write_bytes(path.read_bytes()[:-9])


def test_files_that_do_not_open_are_set_aside_under_names_of_their_own(tmp_path):
    """Each time anew: an earlier file that was set aside is not overwritten."""
    tables = {"checkpoint": {"every_steps": 2, "keep": 4}}
    evolve(settings(6, **tables), tmp_path, MPI.COMM_SELF)
    for _ in range(3):
        damage(tmp_path / "series.h5")
        damage(checkpoint.paths(tmp_path)[-1])
        resumed = load_resume(MPI.COMM_SELF, tmp_path)
        assert evolve(settings(6, **tables), tmp_path, MPI.COMM_SELF, resumed)[1].step == 6
    found = sorted(path.name for path in tmp_path.glob("*.aside*"))
    ends = ("aside", "aside.1", "aside.2")
    assert found == [
        f"{name}.{end}" for name in ("checkpoint-0000000006.h5", "series.h5") for end in ends
    ]


def test_a_series_that_cannot_be_read_at_present_is_left_alone(tmp_path, monkeypatch):
    evolve(settings(2), tmp_path, MPI.COMM_SELF)
    before = (tmp_path / "series.h5").read_bytes()
    resumed = load_resume(MPI.COMM_SELF, tmp_path)
    real = sealed._read

    def fail(path, start):
        if str(path).endswith("series.h5"):
            raise StorageError("EIO")
        return real(path, start)

    monkeypatch.setattr(sealed, "_read", fail)
    with pytest.raises(StorageError, match="EIO"):
        evolve(settings(4), tmp_path, MPI.COMM_SELF, resumed)
    assert (tmp_path / "series.h5").read_bytes() == before


def test_columns_of_the_series_come_and_go(tmp_path):
    """A resumed run may have other metrics. Entries without one hold NaN."""

    def problem(*names):
        class P(nedhpc.Problem):
            domain = nedhpc.Box([0.0], [1.0])

            @nedhpc.residual()
            def fit(self, x, j):
                return j.u - x[:, 0]

            def exact(self, x):
                return x[:, 0]

            def metrics(self, x, u, y):
                return {name: (u - y)[:, 0].abs() for name in names}

        return P

    steps = 0
    for names in (("a",), ("a", "b"), ("b",), (), ("c", "a")):
        steps += 2
        table = make_table(problem={}, run={"max_steps": steps}, output={"every_steps": 1})
        nedhpc.run(table, tmp_path, MPI.COMM_SELF, problem=problem(*names), resume="auto")
    found = series.read(tmp_path / "series.h5")
    known = {name: np.isfinite(found[f"metrics/{name}"]).astype(int).tolist() for name in "abc"}
    assert known == {
        "a": [1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1],
        "b": [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0],
        "c": [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
    }
    assert list(found["step"]) == list(range(11)) and not list(tmp_path.glob("*.aside"))


@pytest.mark.parametrize("limit", [{"max_steps": 5}, {"max_time": 5e-4}])
@pytest.mark.parametrize("kind", ["euler", "rk", "beuler", "ptc"])
def test_a_run_that_petsc_ends_keeps_its_last_step(tmp_path, kind, limit):
    """Even if neither the series nor a checkpoint was due there."""
    ((name, number),) = limit.items()
    options = f"-ts_{name} {number}"
    stepper = {"type": kind, "dt": 1e-4, "petsc_options": f"{options} -ts_adapt_type none"}
    if kind == "ptc":
        stepper = {"type": "ptc", "petsc_options": options}
    config = settings(100, stepper=stepper, output={"every_steps": 100})
    status, state = evolve(config, tmp_path, MPI.COMM_SELF)
    assert status == name
    assert state.step == (1 if kind == "ptc" and name == "max_time" else 5)
    assert checkpoint.newest(tmp_path)[1].step == state.step == info(tmp_path)["step"]
    assert series.read(tmp_path / "series.h5")["step"][-1] == state.step


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_an_error_of_locking_that_passes_is_retried(tmp_path, monkeypatch, number):
    real, left = fcntl.lockf, [2]

    def lockf(file, command):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(number, os.strerror(number))
        real(file, command)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    monkeypatch.setattr(lock, "RETRY_SECONDS", (0.0, 0.0))
    with locked(MPI.COMM_SELF, tmp_path) as held:
        held.check()
    left[0] = 3
    with pytest.raises(UsageError, match="another job"), locked(MPI.COMM_SELF, tmp_path):
        pass


class Second(nedhpc.Observer):
    """An observer that begins another run in the same folder."""

    def __init__(self, config):
        self.config, self.refused = config, []

    def start(self, run, moment):
        for resume in ("never", "auto"):
            with pytest.raises(UsageError, match="another job is writing .*this process") as error:
                nedhpc.run(self.config, run.run_dir, MPI.COMM_SELF, resume=resume)
            self.refused.append(error)


def test_a_process_does_not_write_twice_into_a_folder(tmp_path):
    """A lock of fcntl does not refuse the process that holds it."""
    second = Second(settings(4))
    nedhpc.run(settings(2), tmp_path / "run", MPI.COMM_SELF, observers=[second])
    assert len(second.refused) == 2 and info(tmp_path / "run")["step"] == 2
    nedhpc.run(settings(4), tmp_path / "run", MPI.COMM_SELF, resume="auto")
    assert info(tmp_path / "run")["step"] == 4 and not lock._own
