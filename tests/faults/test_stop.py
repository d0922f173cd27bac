"""A signal or a time limit ends a run with a checkpoint and exit code 75.

The continued run equals a run that was never stopped.
"""

import os
import re
import signal
import sys
import time

import numpy as np
import pytest
from conftest import evolve
from mpi4py import MPI
from processes import ROOT, finish, run, start, wait_for_step, write_config

from nedhpc.config import load, override, validate
from nedhpc.files import checkpoint
from nedhpc.files.resume import load_resume
from nedhpc.postprocess.info import info
from nedhpc.running import signals as stop

SCRIPT = re.search("^hold='(.*?)'$", (ROOT / "slurm" / "launch.sh").read_text(), re.M | re.S)[1]
HOLD = (sys.executable, "-P", "-c", SCRIPT)
"""Words before a command that start it as the job scripts do."""
TWICE = (signal.SIGHUP, signal.SIGUSR2)
"""Signals to a run alone that other tests send too."""


@pytest.mark.parametrize(
    "number, ranks",
    [
        # test_streams.py sends HUP, and mpirun passes on USR2.
        pytest.param(number, None, marks=[pytest.mark.slow] * (number in TWICE))
        for number in stop.SIGNALS
    ]
    + [(signal.SIGUSR1, 2), (signal.SIGUSR2, 2)],
)
def test_a_signal_stops_a_run_that_then_continues(tmp_path, number, ranks):
    """Also if TERM is blocked at the start, as in job scripts. mpirun then survives it."""
    out, whole = tmp_path / "run", tmp_path / "whole"
    is_held = number == (signal.SIGUSR2 if ranks else signal.SIGTERM)
    prefix = HOLD if is_held else ()
    process = start("run", write_config(tmp_path), "--out", out, ranks=ranks, prefix=prefix)
    wait_for_step(out, 50, process)
    if ranks and is_held:
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        wait_for_step(out, checkpoint.newest(out)[1].step + 50, process)
    process.send_signal(number)
    code, _, err = finish(process)
    assert code == 75 and "Traceback" not in err, err
    facts = info(out)
    assert facts["status"] == "stopped" and signal.Signals(number).name in facts["message"]
    if number != signal.SIGUSR1 or ranks:
        return
    steps = (facts["step"] // 50 + 2) * 50 + 3
    code, _, err = run("resume", out, "--set", f"run.max_steps={steps}")
    assert code == 0, err
    code, _, err = run("run", write_config(tmp_path, steps=steps), "--out", whole)
    assert code == 0, err
    assert np.array_equal(checkpoint.newest(out)[1].theta_P, checkpoint.newest(whole)[1].theta_P)


SLOW = """
import nedhpc, torch
from mpi4py import MPI
from pathlib import Path
class Slow(nedhpc.Problem):
    "With a file `slow`, the last rank soon spends many seconds in one operation of torch."
    fast = 20
    domain = nedhpc.Box([0.0], [1.0])
    terms = [nedhpc.Residual("pde", jets=("u", "lap_u"))]
    def pde(self, x, j, c):
        here = Path(__file__).parent
        if (here / "slow").exists() and MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1:
            self.fast -= 1
            if self.fast < 0:
                (here / "seen").touch()
                torch.linalg.svd(torch.rand(3000, 3000))
        return j.lap_u + 1
"""


@pytest.mark.parametrize(
    "number, ranks",
    [
        (signal.SIGTERM, None),
        pytest.param(signal.SIGCONT, None, marks=pytest.mark.slow),
        (signal.SIGTERM, 2),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 2, marks=pytest.mark.slow),
    ],
)
def test_the_last_finished_step_is_saved_while_the_next_one_goes_on(tmp_path, number, ranks):
    """mpirun kills its ranks half a second later, and a run alone is killed here.

    On a busy machine, half a second of time is not half a second of a processor.
    """
    for attempt in range(2 if ranks else 1):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        (folder / "slow.py").write_text(SLOW)
        config, out = write_config(folder, every=100_000_000), folder / "run"
        config.write_text(config.read_text().replace('"poisson"\ndim = 1', '"slow.py:Slow"'))
        code, err = end_in_a_step(config, out, number, ranks)
        assert code == (1 if ranks else -signal.SIGKILL), err
        if saved := checkpoint.newest(out)[1].step >= 10:
            break
    if ranks and not saved and os.getloadavg()[0] > 2 * os.cpu_count():
        pytest.skip(f"the load is {os.getloadavg()[0]:.0f}, so half a second is too short")
    assert saved, err
    if ranks is None:
        check_continuation(config, out, folder / "whole")


def end_in_a_step(config, out, number, ranks):
    """(exit code, stderr) of a run that gets a signal in a long step."""
    flag, deadline = config.with_name("slow"), time.monotonic() + 60
    process = start("run", config, "--out", out, ranks=ranks)
    wait_for_step(out, 0, process)
    flag.touch()
    while not flag.with_name("seen").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # the other rank finishes the step before
    process.send_signal(number)
    if ranks is None:
        while len(checkpoint.paths(out)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    code, _, err = finish(process)
    flag.unlink()
    return code, err


def check_continuation(config, out, whole):
    """The run in `out`, continued here, equals a run of its config without interruption."""
    steps = info(out)["step"] + 20
    settings = validate(override(load(config).model_dump(), [f"run.max_steps={steps}"]))
    ends = [
        evolve(settings, folder, MPI.COMM_SELF, resumed)[1].theta_P
        for folder, resumed in ((out, load_resume(MPI.COMM_SELF, out)), (whole, None))
    ]
    assert np.array_equal(*ends)


def test_a_second_interrupt_ends_the_run_at_once(tmp_path):
    # A step takes minutes here, and the run reacts to the first Ctrl-C only at the end of a step.
    config = write_config(tmp_path, stepper="lbfgs")
    out = tmp_path / "run"
    process = start(
        "run",
        config,
        "--out",
        out,
        "--set",
        "stepper.lbfgs.iterations=1000000",
        "--set",
        "stepper.lbfgs.line_search=none",
        "--set",
        "stepper.lbfgs.lr=1e-9",
    )
    wait_for_step(out, 0, process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, _, _ = finish(process, 30)
    assert code == -signal.SIGINT
    assert checkpoint.newest(out)[1].step == 0


def test_a_run_stops_before_the_limit_of_slurm(tmp_path):
    limit = time.time() + stop.MARGIN_SECONDS + 12
    process = start(
        "run",
        write_config(tmp_path),
        "--out",
        tmp_path / "run",
        env={"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(limit))},
    )
    code, _, err = finish(process)
    assert code == 75 and time.time() < limit, err
    facts = info(tmp_path / "run")
    assert facts["status"] == "stopped" and "time limit" in facts["message"]


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("1-02:03:04", 93784),
        ("2:03", 123),
        ("00:01:40", 100),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("", None),
    ],
)
def test_squeue_tells_when_the_job_ends(tmp_path, monkeypatch, text, seconds):
    squeue = tmp_path / "squeue"
    squeue.write_text(f'#!/bin/sh\n[ "$*" = "-h -j 7 -o %L" ] && echo "{text}"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    end = stop.slurm_end()
    assert end is None if seconds is None else abs(end - time.time() - seconds) < 5
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1700000000")  # of an earlier job
    assert (stop.slurm_end() is None) == (seconds is None)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "99999999999")
    assert stop.slurm_end() == 99999999999
    monkeypatch.delenv("SLURM_JOB_ID")
    assert stop.slurm_end() is None
