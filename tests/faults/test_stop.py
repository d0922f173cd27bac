"""A signal or a time limit ends a run with a checkpoint and exit code 75.

The continued run equals a run that was never stopped.
"""

import os
import signal
import time

import numpy as np
import pytest
from processes import finish, run, start, wait_for_step, write_config

from nedhpc.files import checkpoint
from nedhpc.postprocess.info import info
from nedhpc.running import signals as stop


@pytest.mark.parametrize(
    "number, ranks",
    [(number, None) for number in stop.SIGNALS] + [(signal.SIGUSR1, 2), (signal.SIGUSR2, 2)],
)
def test_a_signal_stops_a_run_that_then_continues(tmp_path, number, ranks):
    out, whole = tmp_path / "run", tmp_path / "whole"
    process = start("run", write_config(tmp_path), "--out", out, ranks=ranks)
    wait_for_step(out, 50, process)
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
