"""A run meets strange names, hosts, streams and disks, and says or keeps what is true."""

import errno
import fcntl
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import evolve, make_config, make_table
from mpi4py import MPI
from processes import ROOT, finish, run, start, wait_for_step, write_config
from test_storage import disk  # noqa: F401

import nedhpc
from nedhpc import config
from nedhpc.cli.run import report
from nedhpc.errors import ConfigError, UsageError
from nedhpc.files import checkpoint, provenance
from nedhpc.files.lock import is_held, locked
from nedhpc.files.record import RunRecord
from nedhpc.plan import Plan
from nedhpc.postprocess.info import info, status

FOREIGN = os.fsdecode(b"r\xff")
"""The name of a file whose bytes are not UTF-8."""
ELSEWHERE = {"hosts": "other", "pid": 1}
"""Provenance of a run on another host."""


def test_a_run_folder_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nedhpc", "run", "--out", FOREIGN])
    evolve(make_config(run={"max_steps": 2}), tmp_path / FOREIGN, MPI.COMM_SELF)
    assert info(tmp_path / FOREIGN)["step"] == 2


def test_a_name_that_no_config_can_hold_is_refused(tmp_path):
    (tmp_path / FOREIGN).mkdir()
    (tmp_path / FOREIGN / "case.toml").write_text('[problem]\nname = "p.py:P"\n')
    with pytest.raises(ConfigError, match="problem.name = .*PYTHONUTF8"):
        Plan.read(tmp_path / FOREIGN / "case.toml")
    for table in ({"file": FOREIGN}, {"inputs": ["x", FOREIGN]}, {"more": {"a": FOREIGN}}):
        with pytest.raises(ConfigError, match=r"problem\.\w+(\.a)? = .*rename"):
            config.validate({"problem": {"name": "regression", **table}})


class Logarithm(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])

    @nedhpc.residual()
    def fit(self, j):
        return j.u

    def exact(self, x):
        return 0 * x[:, 0]

    def metrics(self, x, u, y):
        return {"log": torch.log(u[:, 0] - 1e6), "size": u[:, 0].abs()}


def test_a_metric_may_be_nan_at_the_end(tmp_path, capsys):
    table = make_table(problem={}, run={"max_steps": 2})
    nedhpc.run(table, tmp_path / "run", MPI.COMM_SELF, problem=Logarithm)
    report(MPI.COMM_SELF, tmp_path / "run")
    assert " size " in (line := capsys.readouterr().out) and " log " not in line
    assert info(tmp_path / "run")["metrics"]["log"] is None


@pytest.mark.parametrize("streams", [("stderr",), ("stdout", "stderr")])
def test_a_process_may_have_no_streams(tmp_path, monkeypatch, streams):
    for name in streams:
        monkeypatch.setattr(sys, name, None)
    nedhpc.run(make_table(run={"max_steps": 3}), tmp_path / "run", MPI.COMM_SELF)
    assert info(tmp_path / "run")["step"] == 3


def test_a_run_does_not_start_on_a_full_disk(disk):  # noqa: F811
    with pytest.raises(OSError), open(disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    message = "cannot write in .*No space left.*--out"
    with pytest.raises(UsageError, match=message), locked(MPI.COMM_SELF, disk / "run"):
        pass


@pytest.mark.parametrize("count", [3, 5000])
def test_a_network_may_have_many_arrays(tmp_path, count):
    """An attribute of HDF5 holds only about 4000 texts."""
    state = checkpoint.State(np.arange(float(count)), {}, 1, 0.0, 0.1)
    layout = [f"W{k} 1 {k}" for k in range(count)]
    path = checkpoint.write(tmp_path, state, RunRecord("a = 1\n", layout=layout), 2)
    assert checkpoint.read(path)[1].layout == layout


def test_a_data_file_is_read_once(tmp_path, monkeypatch):
    rows, opened, real = np.linspace(0, 1, 40)[:, None], [], np.load
    np.savez(tmp_path / "a.npz", x=rows, y=rows**2)
    monkeypatch.setattr(np, "load", lambda *a, **k: (opened.append(a), real(*a, **k))[1])
    for steps in (1, 2):
        problem = {"name": "regression", "file": str(tmp_path / "a.npz")}
        table = make_table(problem=problem, run={"max_steps": steps}, sampling={})
        nedhpc.run(table, tmp_path / "run", MPI.COMM_SELF, resume="auto")
        assert len(opened) == steps


def test_git_is_asked_once_by_a_process(monkeypatch):
    """Some networks of MPI do not allow to start processes."""
    calls, real = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: (calls.append(a), real(*a, **k))[1])
    provenance.revision.cache_clear()
    for _ in range(3):
        provenance.collect(MPI.COMM_SELF, "cpu")
    assert len(calls) == 1


def other_host(number):
    """Words before a command that run it on a host of another name; skips if root is needed."""
    words = ["unshare", "--uts", "sh", "-c", f'hostname node{number} && exec "$@"', "sh"]
    if subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("only root may give a process another host name")
    return words


def test_a_run_continues_on_another_host(tmp_path):
    out, config_file = tmp_path / "run", write_config(tmp_path)
    process = start("run", config_file, "--out", out, prefix=other_host(1))
    wait_for_step(out, 50, process)
    # The process is on another host, but the file system shows its lock.
    assert is_held(out) and info(out)["status"] == "running"
    assert "host node1" in (out / ".lock").read_text()
    process.kill()
    finish(process)
    assert not is_held(out) and info(out)["status"] == "interrupted"
    steps = info(out)["step"] + 20
    words = ("resume", out, "--set", f"run.max_steps={steps}")
    code, _, err = run(*words, prefix=other_host(2))
    assert code == 0 and info(out)["step"] == steps, err
    assert checkpoint.newest(out)[2].provenance["hosts"] == "node2"
    whole = config.load(write_config(tmp_path, steps=steps))
    state = evolve(whole, tmp_path / "whole", MPI.COMM_SELF)[1]
    assert np.array_equal(checkpoint.newest(out)[1].theta_P, state.theta_P)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, 524])
def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog, number):
    def fail(*arguments):
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "lockf", fail)
    monkeypatch.setattr(fcntl, "fcntl", fail)
    with locked(MPI.COMM_SELF, tmp_path / "run"):
        pass
    assert caplog.text.count("file system without locks") == 1
    assert is_held(tmp_path / "run") is None


@pytest.mark.parametrize("is_mine", [True, False])
def test_without_locks_the_process_of_this_host_counts(tmp_path, monkeypatch, is_mine):
    monkeypatch.setattr("nedhpc.postprocess.info.is_held", lambda path: None)
    here = {"hosts": platform.node() + " other", "pid": os.getpid() if is_mine else 2**22 + 1}
    for facts, expected in (
        (here, "running" if is_mine else "interrupted"),
        (ELSEWHERE, "running"),
    ):
        assert status(tmp_path, "running", RunRecord("", provenance=facts)) == expected


def test_to_look_at_a_lock_does_not_release_it(tmp_path):
    """POSIX releases the locks of a process when it closes any descriptor of the file."""
    program = "import sys; from nedhpc.files.lock import is_held; print(is_held(sys.argv[1]))"

    def seen():
        words = [sys.executable, "-P", "-c", program, tmp_path]
        return subprocess.run(words, capture_output=True, text=True, cwd=ROOT).stdout.strip()

    assert is_held(tmp_path) is None
    with locked(MPI.COMM_SELF, tmp_path):
        assert is_held(tmp_path) and is_held(tmp_path) and seen() == "True"
    assert is_held(tmp_path) is False and seen() == "False"
