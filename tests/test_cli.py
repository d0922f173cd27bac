"""The command as a person uses it, in processes of its own: exit codes, mpirun, resume, failures that must not hang."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nedhpc import checkpoint

ROOT = Path(__file__).parent.parent
POISSON = str(ROOT / "configs" / "poisson_1d.toml")
FAILS = '''
import os, nedhpc, torch
class P(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])
    terms = [nedhpc.Residual("pde", jets=("u", "lap_u"))]
    calls = 0
    def pde(self, x, j, c):
        P.calls += 1
        if P.calls > 20 and os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "1":
            @ACTION@
        return j.lap_u + 1
'''


def command(*args, ranks=None, cwd=None, timeout=120):
    """CompletedProcess of `nedhpc args`, under mpirun for a number of ranks."""
    launch = [] if ranks is None else ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_COMM", "PMIX", "PRTE"))}
    env = clean | {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return subprocess.run([*launch, sys.executable, "-m", "nedhpc", *map(str, args)], capture_output=True, text=True, timeout=timeout,
                          env=env, cwd=cwd, stdin=subprocess.DEVNULL)


def test_run_info_plot_resume(tmp_path):
    out = tmp_path / "run"
    first = command("run", POISSON, "--set", "run.max_steps=10", "--out", out)
    assert first.returncode == 0 and first.stdout.startswith("max_steps  step 10"), first.stderr
    again = command("run", POISSON, "--out", out)
    assert again.returncode == 2 and "nedhpc resume" in again.stderr
    more = command("resume", out, "--set", "run.max_steps=20")
    assert more.returncode == 0 and "step 20" in more.stdout, more.stderr
    facts = json.loads(command("info", out, "--json").stdout)
    assert facts["step"] == 20 and facts["status"] == "max_steps"
    assert command("plot", out, "-o", tmp_path / "a.png").returncode == 0 and (tmp_path / "a.png").stat().st_size > 10_000
    auto = command("run", POISSON, "--set", "run.max_steps=25", "--out", out, "--resume", "auto")
    assert auto.returncode == 0 and "step 25" in auto.stdout


def test_petsc_options_reach_ts_and_are_kept(tmp_path):
    out = tmp_path / "run"
    args = ("run", POISSON, "--set", "stepper.type=rk", "--set", "stepper.dt=1e-4", "--set", "run.max_steps=3", "--out", out)
    done = command(*args, "--", "-ts_rk_type", "5dp", "-ts_view")
    assert done.returncode == 0 and "5dp" in done.stdout, done.stderr
    assert "5dp" in (out / "config.toml").read_text()
    wrong = command(*args[:-1], tmp_path / "other", "--", "-ts_rk_typ", "5dp")
    assert wrong.returncode == 2 and "ts_rk_typ" in wrong.stderr


@pytest.mark.parametrize("args", [("run", "missing.toml"), ("info", "nowhere"), ("resume", "nowhere"), ("run", POISSON, "--set", "run.sed=1")])
def test_usage_errors_exit_2(args):
    done = command(*args)
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_agree_on_poisson_2d(tmp_path, ranks):
    thetas = []
    for n in (1, ranks):
        out = tmp_path / f"run{n}"
        done = command("run", ROOT / "configs" / "poisson_2d.toml", "--set", "run.max_steps=20", "--out", out, ranks=n)
        assert done.returncode == 0, done.stderr
        thetas.append(checkpoint.newest(out)[1].theta_P)
    assert np.linalg.norm(thetas[0] - thetas[1]) < 1e-9 * np.linalg.norm(thetas[0])


@pytest.mark.parametrize("action, part", [("raise RuntimeError('a bug here')", "a bug here"), ("os._exit(3)", "")])
def test_one_failing_rank_ends_the_job(tmp_path, action, part):
    problem = tmp_path / "p.py"
    problem.write_text(FAILS.replace("@ACTION@", action))
    config = tmp_path / "case.toml"
    config.write_text('[problem]\nname = "p.py:P"\n[sampling]\ninterior = 50\n[run]\nmax_steps = 1000000\n[stepper]\ntype = "euler"\ndt = 1e-9\n')
    started = time.monotonic()
    done = command("run", config, "--out", tmp_path / "run", ranks=3, timeout=60)
    assert done.returncode not in (0, 2) and time.monotonic() - started < 40
    assert part in done.stderr
    if part:
        assert "Traceback" in done.stderr and "rank 1" in done.stderr


def test_nan_is_agreed_on(tmp_path):
    problem = tmp_path / "p.py"
    problem.write_text(FAILS.replace("@ACTION@", "return j.u * float('nan')"))
    config = tmp_path / "case.toml"
    config.write_text('[problem]\nname = "p.py:P"\n[sampling]\ninterior = 50\n')
    done = command("run", config, "--out", tmp_path / "run", ranks=2)
    assert done.returncode == 1 and done.stderr.count("is not finite") == 1 and "step" in done.stderr, done.stderr
    assert np.isfinite(checkpoint.newest(tmp_path / "run")[1].theta_P).all()
