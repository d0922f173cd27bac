"""The job scripts work on a real SLURM of one node: run, requeue, array, time limit, scaling.

The tests start this SLURM with scripts/slurm_sandbox.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from nedhpc.files import checkpoint
from nedhpc.postprocess.info import info

# One process runs all of them, because there is one SLURM.
pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

ROOT = Path(__file__).parents[2]
PREFIX = sys.prefix
SANDBOX = ROOT / "scripts" / "slurm_sandbox"
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY"}
PROBLEM = """
import os, signal, time, nedhpc
class Paced(nedhpc.Problem):
    "A step needs at least `pause` seconds on any machine."
    domain = nedhpc.Box([0.0], [1.0])
    terms = [nedhpc.Residual("pde", jets=("u", "lap_u"))]
    def __init__(self, *, pause: float = 0.1, signals_itself: bool = False):
        self.pause, self.signals_itself = pause, signals_itself
    def pde(self, x, j, c):
        time.sleep(self.pause)
        if self.signals_itself:
            os.kill(os.getpid(), signal.SIGUSR1)
        return j.lap_u + 1
"""
# The program chooses nothing here, because each trial would cost many pauses.
CONFIG = """
[problem]
name = "{problem}:Paced"
[network]
hidden = [6]
activation = "tanh"
scaling = "none"
[sampling]
interior = 30
adapt = "none"
[weights]
balance = "none"
[stepper]
type = "euler"
dt = 1e-4
[run]
max_steps = 40
start = "random"
windows = 1
[checkpoint]
every_steps = 2
"""


class Slurm:
    """Jobs on the sandbox, submitted from the checkout."""

    def __init__(self, folder, conf):
        self.folder = folder
        # The jobs use the environment that runs the tests. There are few cores, so ranks that wait
        # must leave them to other ranks.
        clean = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("OMPI_", "PMIX", "PRTE", "SLURM", "OMP_"))
        }
        self.env = clean | {
            "SLURM_CONF": conf,
            "VIRTUAL_ENV": PREFIX,
            "OMPI_MCA_mpi_yield_when_idle": "1",
        }

    def __call__(self, *command, timeout=60, **env):
        """Run a SLURM command and return its stdout."""
        done = subprocess.run(
            [str(c) for c in command],
            cwd=ROOT,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, script, *args, options=(), **env):
        """Submit a job of 2 ranks and return its id."""
        output = (
            self.folder / "job-%A-%a.out"
            if any("--array" in o for o in options)
            else self.folder / "job-%j.out"
        )
        return self(
            "sbatch",
            "--parsable",
            "--ntasks=2",
            f"--output={output}",
            *options,
            script,
            *args,
            **env,
        ).strip()

    def jobs(self, job):
        """The facts of a job: a list with one dict, or with one dict for each task of an array."""
        lines = self("scontrol", "show", "job", "-o", job).splitlines()
        return [
            dict(fact.split("=", 1) for fact in line.split() if "=" in fact)
            for line in lines
            if "JobState=" in line
        ]

    def wait(self, job, timeout=600):
        """Wait until all tasks of a job have ended, and return their facts."""
        self.until(lambda: all(facts["JobState"] in ENDED for facts in self.jobs(job)), timeout)
        return self.jobs(job)

    def until(self, condition, timeout=600):
        """Wait until condition() is true; call it twice a second."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                pytest.fail(
                    f"the condition is still false after {timeout} s\n{self('squeue')}\n"
                    + "\n".join(self.outputs())
                )
            time.sleep(0.5)

    def outputs(self):
        return [f"== {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.out"))]

    def output(self, job):
        return (self.folder / f"job-{job}.out").read_text()


@pytest.fixture(scope="module")
def sandbox():
    possible = subprocess.run([SANDBOX, "possible"], capture_output=True, text=True)
    if possible.returncode:
        pytest.skip(f"SLURM cannot be started here: {possible.stdout.strip()}")
    # SLURM needs another folder than pytest's, because other users may not enter pytest's.
    env = os.environ | {"SLURM_SANDBOX": tempfile.mkdtemp(prefix="nedhpc-slurm-")}
    started = subprocess.run(
        [SANDBOX, "start"], capture_output=True, text=True, env=env, timeout=600
    )
    if started.returncode == 3:
        pytest.skip(f"SLURM cannot be installed here: {started.stderr.strip()}")
    assert started.returncode == 0, started.stderr
    yield started.stdout.strip()
    subprocess.run([SANDBOX, "stop"], check=True, env=env, timeout=120)
    left = subprocess.run([SANDBOX, "status"], capture_output=True, text=True, env=env, timeout=60)
    assert left.returncode and left.stdout.count("not running") == 3, left.stdout


@pytest.fixture
def slurm(sandbox, tmp_path):
    return Slurm(tmp_path, sandbox)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    (folder / "paced.py").write_text(PROBLEM)
    (folder / "paced.toml").write_text(CONFIG.format(problem=folder / "paced.py"))
    return folder / "paced.toml"


@pytest.fixture(scope="module")
def uninterrupted(sandbox, config, tmp_path_factory):
    """The final parameters of a run of the config on 2 ranks."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    slurm = Slurm(folder, sandbox)
    (job,) = slurm.wait(slurm.submit("slurm/run.sbatch", config, folder / "run"))
    assert job["JobState"] == "COMPLETED", slurm.outputs()
    return final(folder / "run", 40)


def final(run_dir, step):
    _, state, _, _ = checkpoint.newest(run_dir)
    assert state.step == step
    return state.theta_P


@pytest.mark.parametrize("launcher", ["mpirun", "srun"])
def test_a_run_completes_under_each_launcher(slurm, config, uninterrupted, launcher, tmp_path):
    submitted = slurm.submit("slurm/run.sbatch", config, tmp_path / "run", NEDHPC_LAUNCHER=launcher)
    (job,) = slurm.wait(submitted)
    text = slurm.output(submitted)
    assert job["JobState"] == "COMPLETED" and job["ExitCode"] == "0:0", text
    assert np.array_equal(final(tmp_path / "run", 40), uninterrupted)
    assert re.search(r"^rank 0 on \S+, local rank 0 of 2, 1 thread on", text, re.M)
    assert "rank 1 on" in text
    _, _, record, _ = checkpoint.newest(tmp_path / "run")
    assert record.provenance["slurm_job_id"] == submitted


@pytest.mark.parametrize("launcher", ["mpirun", "srun"])
def test_a_requeued_run_ends_with_the_same_result(slurm, config, uninterrupted, launcher, tmp_path):
    submitted = slurm.submit(
        "slurm/requeue.sbatch", config, tmp_path / "run", NEDHPC_LAUNCHER=launcher
    )
    slurm.until(lambda: len(checkpoint.paths(tmp_path / "run")) > 1)
    slurm("scancel", "--batch", "--signal=USR1", submitted)
    (job,) = slurm.wait(submitted)
    text = slurm.output(submitted)
    assert job["JobState"] == "COMPLETED" and job["Restarts"] == "1", text
    stopped_at = int(re.search(r"^stopped  step (\d+)", text, re.M)[1])
    assert 2 <= stopped_at < 40  # the signal came after the checkpoints of steps 0 and 2
    assert np.array_equal(final(tmp_path / "run", 40), uninterrupted)
    _, _, record, _ = checkpoint.newest(tmp_path / "run")
    assert record.provenance["slurm_restart_count"] == "1"


@pytest.mark.parametrize("launcher", ["mpirun", "srun"])
def test_a_cancelled_run_is_saved_and_not_requeued(slurm, config, launcher, tmp_path):
    """scancel sends TERM to all processes of the job, and mpirun must survive it.

    A step is longer than the time after which mpirun would kill its ranks.
    """
    options = ("--set", "problem.pause=0.4", "--set", "checkpoint.every_steps=1000000")
    submitted = slurm.submit(
        "slurm/requeue.sbatch", config, tmp_path / "run", *options, NEDHPC_LAUNCHER=launcher
    )
    slurm.until(lambda: checkpoint.paths(tmp_path / "run"))
    time.sleep(2)
    slurm("scancel", submitted)
    (job,) = slurm.wait(submitted)
    text = slurm.output(submitted)
    assert job["JobState"] == "CANCELLED" and job["Restarts"] == "0", text
    slurm.until(lambda: "stopped  step" in slurm.output(submitted), 30)
    facts = info(tmp_path / "run")
    assert facts["status"] == "stopped" and facts["step"] > 0, text


def test_restarts_without_progress_end_with_an_error(slurm, config, tmp_path):
    text = config.read_text().replace("[network]", "signals_itself = true\n[network]")
    (tmp_path / "stuck.toml").write_text(text)
    submitted = slurm.submit(
        "slurm/requeue.sbatch",
        tmp_path / "stuck.toml",
        tmp_path / "run",
        options=["--ntasks=1"],
        NEDHPC_MAX_RESTARTS="1",
    )
    (job,) = slurm.wait(submitted)
    text = slurm.output(submitted)
    # The first restart counts as progress, because it finds a checkpoint and the start found none.
    assert job["JobState"] == "FAILED" and job["ExitCode"] == "1:0" and job["Restarts"] == "2", text
    assert text.count("stopped  step 0") == 2
    assert "no new checkpoint in 1 restarts (newest: step 0)" in text


def test_array_requeues_only_the_task_that_was_signalled(slurm, config, tmp_path):
    (tmp_path / "runs.txt").write_text(
        "".join(f"{config} --set run.seed={seed}\n" for seed in (3, 4))
    )
    submitted = slurm.submit(
        "slurm/sweep.sbatch",
        tmp_path / "runs.txt",
        tmp_path / "runs",
        options=["--ntasks=1", "--array=1-2"],
    )
    # Signal the last task, because its own job id is the id of the whole array.
    slurm.until(lambda: len(checkpoint.paths(tmp_path / "runs" / "2")) > 1)
    slurm("scancel", "--batch", "--signal=USR1", f"{submitted}_2")
    jobs = slurm.wait(submitted)
    assert [job["JobState"] for job in jobs] == ["COMPLETED"] * 2, slurm.outputs()
    assert {job["ArrayTaskId"]: job["Restarts"] for job in jobs} == {"1": "0", "2": "1"}, (
        slurm.outputs()
    )
    assert not np.array_equal(
        final(tmp_path / "runs" / "1", 40), final(tmp_path / "runs" / "2", 40)
    )


def test_a_run_stops_before_the_time_limit(slurm, config, tmp_path):
    """A run that would never end stops before a limit of two minutes, with a signal and without.

    Without a signal, the run itself checks the time that SLURM leaves it.
    """
    endless = ("--set", "run.max_steps=1000000", "--set", "checkpoint.every_steps=1000000")
    signalled = slurm.submit(
        "slurm/run.sbatch",
        config,
        tmp_path / "signalled",
        *endless,
        options=["--ntasks=1", "--time=2", "--signal=B:USR1@30"],
    )
    watched = slurm(
        "sbatch",
        "--parsable",
        "--ntasks=1",
        "--time=2",
        f"--output={tmp_path}/job-%j.out",
        "--wrap",
        f". scripts/env; exec python -P -m nedhpc run {config} --out {tmp_path}/watched "
        + " ".join(endless),
        prefix=PREFIX,
        root=str(ROOT),
    ).strip()
    for submitted, run_dir in (
        (signalled, tmp_path / "signalled"),
        (watched, tmp_path / "watched"),
    ):
        (job,) = slurm.wait(submitted)
        assert job["JobState"] == "FAILED" and job["ExitCode"] == "75:0", slurm.output(submitted)
        facts = info(run_dir)
        assert facts["status"] == "stopped" and facts["step"] > 0
    assert "time limit" in slurm.output(watched)


def test_a_job_with_gpus_does_not_run_on_cpus(slurm, config, tmp_path):
    """The GPUs of the sandbox are not real, so torch sees no device."""
    submitted = slurm.submit(
        "slurm/run.sbatch",
        config,
        tmp_path / "run",
        options=["--gpus-per-node=2"],
        CUDA_VISIBLE_DEVICES="",
    )
    (job,) = slurm.wait(submitted)
    assert "torch sees no CUDA device" in slurm.output(submitted)
    assert job["ExitCode"] == "2:0", slurm.output(submitted)


def test_the_scaling_table_has_a_row_for_each_number_of_ranks(slurm, config, tmp_path):
    for kind in ("strong", "weak"):
        submitted = slurm.submit(
            "slurm/scaling.sbatch",
            config,
            tmp_path / "scaling",
            kind,
            "--set",
            "problem.pause=0.01",
        )
        (job,) = slurm.wait(submitted)
        assert job["JobState"] == "COMPLETED", slurm.output(submitted)
    table = [
        line.split() for line in (tmp_path / "scaling" / "scaling.txt").read_text().splitlines()
    ]
    assert [row[:3] for row in table[1:]] == [
        ["strong", "1", "30"],
        ["strong", "2", "30"],
        ["weak", "1", "30"],
        ["weak", "2", "60"],
    ]
    assert all(float(row[3]) >= 0.01 for row in table[1:]), table
    assert all(
        np.isclose(float(row[5]), float(row[4]) / int(row[1]), atol=0.01) for row in table[1:]
    ), table
