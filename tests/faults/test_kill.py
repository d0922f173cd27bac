"""After kill -9 at a random moment, every file opens and the run continues.

The continued run equals an uninterrupted run to the bit.
"""

import os
import random
import signal
import time

import numpy as np
import psutil
import pytest
from conftest import evolve
from mpi4py import MPI
from processes import TIMEOUT, finish, run, start, wait_for_step, write_config

from nedhpc.config import load
from nedhpc.files import checkpoint, series

STEPS, EVERY = 200, 20
STEPPERS = {"euler": 1e-4, "spring": 0.5}
"""{stepper: dt}. Euler does not remember past steps; spring does."""


def reached(out):
    files = checkpoint.paths(out)
    return int(files[-1].stem[-10:]) if files else -1


def start_and_kill(config, out, random):
    """Start `run --resume auto`, kill it at a random moment and return its exit code.

    The moment is shortly after a random checkpoint, or before the first. Then all files must open.
    """
    process = start("run", config, "--out", out, "--resume", "auto")
    wanted, deadline = random.randrange(-EVERY, STEPS, EVERY), time.monotonic() + TIMEOUT
    while process.poll() is None and reached(out) < wanted and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.3))
    process.kill()
    code, _, err = finish(process)
    assert code in (0, -signal.SIGKILL), err
    for path in checkpoint.paths(out):
        checkpoint.read(path)
    if (out / "series.h5").exists():
        series.read(out / "series.h5")
    return code


def check_kills(tmp_path, kills, seed):
    """Kill each run twice, unless it ends before, and compare it with an uninterrupted run."""
    dice, whole, count, done = random.Random(seed), {}, 0, 0
    while done < kills:
        stepper = list(STEPPERS)[count % 2]
        config, out, count = (
            write_config(tmp_path, stepper, STEPPERS[stepper], STEPS, EVERY),
            tmp_path / f"run{count}",
            count + 1,
        )
        if stepper not in whole:
            whole[stepper] = evolve(load(config), tmp_path / stepper, MPI.COMM_SELF)[1].theta_P
        done += sum(start_and_kill(config, out, dice) == -signal.SIGKILL for _ in range(2))
        code, _, err = run("run", config, "--out", out, "--resume", "auto")
        assert code == 0, err
        assert np.array_equal(checkpoint.newest(out)[1].theta_P, whole[stepper])
        # The series has no gap, and no step appears twice.
        assert list(series.read(out / "series.h5")["step"]) == list(range(0, STEPS + 1, 10))
        assert {path.name for path in out.iterdir()} == {
            "config.toml",
            "series.h5",
            ".lock",
            *(path.name for path in checkpoint.paths(out)),
        }
        assert count <= 2 * kills


def test_ten_kills_continue_to_the_bit(tmp_path):
    check_kills(tmp_path, 10, 1)


@pytest.mark.slow
def test_fifty_kills_continue_to_the_bit(tmp_path):
    check_kills(tmp_path, 50, 2)


def test_a_killed_rank_ends_the_job(tmp_path):
    out = tmp_path / "run"
    process = start("run", write_config(tmp_path), "--out", out, ranks=3)
    wait_for_step(out, 50, process)
    ranks = [
        child.pid
        for child in psutil.Process(process.pid).children(recursive=True)
        if "nedhpc" in child.cmdline()
    ]
    assert len(ranks) == 3
    begun = time.monotonic()
    os.kill(ranks[1], signal.SIGKILL)
    code, _, _ = finish(process, 60)
    assert code != 0 and time.monotonic() - begun < 10
    assert checkpoint.newest(out)[1].step >= 50


def test_a_run_continues_on_other_numbers_of_ranks(tmp_path):
    """A run on 1, 2, 3 and again 1 rank is compared with a run on 1 rank."""
    out, whole, config = tmp_path / "run", tmp_path / "whole", write_config(tmp_path, steps=STEPS)
    for ranks, steps in ((None, 60), (2, 110), (3, 160), (None, STEPS)):
        code, _, err = run(
            "run",
            config,
            "--set",
            f"run.max_steps={steps}",
            "--out",
            out,
            "--resume",
            "auto",
            ranks=ranks,
        )
        assert code == 0, err
    assert run("run", config, "--out", whole)[0] == 0
    theta, expected = (checkpoint.newest(folder)[1].theta_P for folder in (out, whole))
    assert np.linalg.norm(theta - expected) < 1e-8 * np.linalg.norm(expected)
