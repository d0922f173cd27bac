"""The nedhpc command as the user runs it: exit codes, mpirun and resume."""

import json
import subprocess
import sys

import numpy as np
import pytest
from processes import ROOT, finish, start

from nedhpc.files import checkpoint

POISSON = str(ROOT / "configs" / "poisson_1d.toml")


def command(*args, timeout=120, **options):
    """Run `nedhpc args` to its end. The options are those of processes.start."""
    return subprocess.CompletedProcess(args, *finish(start(*args, **options), timeout))


def test_a_run_can_be_read_plotted_and_resumed(tmp_path):
    out = tmp_path / "run"
    first = command("run", POISSON, "--set", "run.max_steps=10", "--out", out)
    assert first.returncode == 0 and first.stdout.startswith("max_steps  step 10"), first.stderr
    again = command("run", POISSON, "--out", out)
    assert again.returncode == 2 and "nedhpc resume" in again.stderr
    more = command("resume", out, "--set", "run.max_steps=20")
    assert more.returncode == 0 and "step 20" in more.stdout, more.stderr
    facts = json.loads(command("info", out, "--json").stdout)
    assert facts["step"] == 20 and facts["status"] == "max_steps"
    assert command("plot", out, "-o", tmp_path / "a.png").returncode == 0
    assert (tmp_path / "a.png").stat().st_size > 10_000
    auto = command("run", POISSON, "--set", "run.max_steps=25", "--out", out, "--resume", "auto")
    assert auto.returncode == 0 and "step 25" in auto.stdout


def test_check_says_which_network_is_chosen_and_why(tmp_path):
    config = tmp_path / "only.toml"
    config.write_text('[problem]\nname = "poisson"\ndim = 2\n')
    text = command("check", config).stdout
    assert "2-24-24-1 (chosen: two layers for 2 coordinates), tanh units, or sin units if" in text
    text = command(
        "check", config, "--set", "network.hidden=[9]", "--set", "run.start=random"
    ).stdout
    assert "network       2-9-1, tanh units\n" in text


def test_check_reads_the_petsc_options():
    done = command("check", POISSON, "--", "-ts_type", "rk")
    assert done.returncode == 2
    assert "stepper.type" in done.stderr and "ts_type" in done.stderr


def test_petsc_options_reach_ts_and_are_kept(tmp_path):
    out = tmp_path / "run"
    args = (
        "run",
        POISSON,
        "--set",
        "stepper.type=rk",
        "--set",
        "stepper.dt=1e-4",
        "--set",
        "run.max_steps=3",
        "--out",
        out,
    )
    done = command(*args, "--", "-ts_rk_type", "5dp", "-ts_view")
    assert done.returncode == 0 and "5dp" in done.stdout, done.stderr
    assert "5dp" in (out / "config.toml").read_text()
    wrong = command(*args[:-1], tmp_path / "other", "--", "-ts_rk_typ", "5dp")
    assert wrong.returncode == 2 and "ts_rk_typ" in wrong.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("run", "missing.toml"),
        ("info", "nowhere"),
        ("resume", "nowhere"),
        ("run", POISSON, "--set", "run.sed=1"),
    ],
)
def test_usage_errors_exit_2(args):
    done = command(*args)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_agree_on_poisson_2d(tmp_path, ranks):
    thetas = []
    for n in (1, ranks):
        out = tmp_path / f"run{n}"
        done = command(
            "run",
            ROOT / "configs" / "poisson_2d.toml",
            "--set",
            "run.max_steps=20",
            "--out",
            out,
            ranks=n,
        )
        assert done.returncode == 0, done.stderr
        thetas.append(checkpoint.newest(out)[1].theta_P)
    assert np.linalg.norm(thetas[0] - thetas[1]) < 1e-9 * np.linalg.norm(thetas[0])


def test_a_reader_that_closes_the_pipe_is_no_error():
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "nedhpc", "problems"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    child.stdout.close()
    assert child.wait(60) == 0 and child.stderr.read() == b""
