"""Start the nedhpc command in processes that a test can stop, kill and start again."""

import os
import subprocess
import sys
import time
from pathlib import Path

from nedhpc.files import checkpoint

ROOT = Path(__file__).parents[1]
TIMEOUT = 180
CONFIG = """
[problem]
name = "poisson"
dim = 1
[network]
hidden = [8]
[sampling]
interior = 40
rule = "uniform"
resample_every = 7
[stepper]
type = "{stepper}"
dt = {dt}
[run]
max_steps = {steps}
[checkpoint]
every_steps = {every}
[output]
every_steps = 10
[device]
threads = 1
"""


def write_config(folder, stepper="euler", dt=1e-4, steps=100_000_000, every=50, name="case.toml"):
    path = folder / name
    path.write_text(CONFIG.format(stepper=stepper, dt=dt, steps=steps, every=every))
    return path


def start(*args, ranks=None, cwd=None, env=(), prefix=(), program=("-P", "-m", "nedhpc")):
    """Start `nedhpc args`, with mpirun if `ranks` is given. Returns the Popen.

    `program` replaces the command by other words for Python.
    """
    launch = (
        []
        if ranks is None
        else ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
    )
    clean = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("OMPI_COMM", "PMIX", "PRTE", "SLURM"))
    }
    clean |= {
        "OMP_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    } | dict(env)
    return subprocess.Popen(
        [*prefix, *launch, sys.executable, *program, *map(str, args)],
        text=True,
        env=clean,
        cwd=cwd or ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def finish(process, timeout=TIMEOUT):
    """Wait until a process ends by itself, and return (exit code, stdout, stderr)."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        out, err = process.communicate()
        raise AssertionError(f"hangs:\n{out}\n{err}") from None
    return process.returncode, out, err


def run(*args, **options):
    return finish(start(*args, **options))


def wait_for_step(run_dir, step, process, timeout=TIMEOUT):
    """Wait until there is a checkpoint of `step` or of a later step."""
    deadline = time.monotonic() + timeout
    while not (files := checkpoint.paths(run_dir)) or int(files[-1].stem[-10:]) < step:
        if process.poll() is not None or time.monotonic() > deadline:
            os.killpg(process.pid, 9) if process.poll() is None else None
            raise AssertionError("no checkpoint:\n" + "\n".join(process.communicate()))
        time.sleep(0.02)
