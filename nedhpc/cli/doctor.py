"""The command doctor: what of the machine and the environment is wrong, and how to mend it.

Each check is a function that returns a Finding. What may abort a process, such as an MPI that does
not start, is tried in another process.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nedhpc.cli.versions import MISSING, versions
from nedhpc.errors import NedError
from nedhpc.running.triggers import without_mpi

SECONDS = 120
"""A process that takes longer is taken for one that hangs."""
MIN_DISK = 2**30
"""Bytes that should be free for runs."""
RANKS = "from petsc4py import PETSc; from mpi4py import MPI; print('sizes', MPI.COMM_WORLD.size, "
RANKS += "PETSc.COMM_WORLD.size)"
EXTRAS = {
    "plot": ("matplotlib",),
    "data": ("pandas", "pyarrow"),
    "shapes": ("shapely", "trimesh"),
    "tensorboard": ("tensorboard",),
    "tune": ("optuna",),
    "completion": ("shtab",),
}
"""{extra: its packages}. None is needed for a run without these features."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    name: str
    text: str
    remedy: str = ""
    """How to mend what is wrong; "" if nothing is."""


def doctor(args) -> None:
    """Print a line for each check, and the remedy if something is wrong.

    Raises:
        NedError: a check failed, so that the exit code is 1.
    """
    wrong = 0
    for check in CHECKS:
        found = check()
        wrong += bool(found.remedy)
        print(f"{'WRONG' if found.remedy else 'ok':6} {found.name:9} {found.text}", flush=True)
        if found.remedy:
            print(f"{'':16} mend it: {found.remedy}", flush=True)
    if wrong:
        raise NedError(f"{wrong} of {len(CHECKS)} checks failed")


def packages() -> Finding:
    """The versions, and what cannot be loaded."""
    found = versions()
    bad = [name for name, text in found.items() if text.startswith((MISSING, "cannot"))]
    text = ", ".join(f"{name} {value}" for name, value in found.items())
    remedy = f"install {', '.join(bad)}: run `scripts/setup`, and activate its environment"
    return Finding("packages", text, remedy if bad else "")


def mpi() -> Finding:
    """Two ranks start, and PETSc sees them both: it was built with the MPI that mpi4py uses."""
    launcher = shutil.which("mpirun") or shutil.which("mpiexec")
    if launcher is None:
        remedy = "activate the environment that scripts/setup made, or load the MPI module"
        return Finding("MPI", "there is no mpirun on PATH", remedy)
    own = ["--oversubscribe"] if "Open MPI" in _output([launcher, "--version"]) else []
    output = _output([launcher, *own, "-n", "2", sys.executable, "-c", RANKS])
    lines = [line.split()[1:] for line in output.splitlines() if line.startswith("sizes ")]
    if lines == [["2", "2"]] * 2:
        return Finding("MPI", f"{launcher} starts ranks, and PETSc sees them")
    if lines == [["1", "1"]] * 2:
        remedy = (
            "mpi4py was built with another MPI than this mpirun: put that MPI's mpirun first on "
            "PATH, or delete .venv and run `scripts/setup` with this MPI loaded"
        )
        return Finding("MPI", f"{launcher} starts two processes that do not see each other", remedy)
    if lines == [["2", "1"]] * 2:
        remedy = (
            "PETSc was built without this MPI: pip cache remove petsc; pip cache remove petsc4py; "
            "delete .venv and run `scripts/setup` again"
        )
        return Finding("MPI", "mpi4py sees two ranks and PETSc sees one", remedy)
    remedy = "see the message"
    if "as root" in output:
        remedy = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    return Finding("MPI", f"{launcher} -n 2 fails: {_last(output)}", remedy)


def torch() -> Finding:
    """torch computes in float64."""
    code = "import torch; x = torch.eye(3, dtype=torch.float64); print('trace', (x @ x).trace())"
    output = _output([sys.executable, "-c", code])
    good = "trace tensor(3., dtype=torch.float64)" in output
    remedy = "install torch again: `scripts/setup`, or pip install --force-reinstall torch"
    return Finding(
        "torch",
        "multiplies matrices" if good else f"fails: {_last(output)}",
        "" if good else remedy,
    )


def gpu() -> Finding:
    """torch sees the GPUs that nvidia-smi sees."""
    there = 0
    if shutil.which("nvidia-smi"):
        lines = _output(["nvidia-smi", "-L"]).splitlines()
        there = sum(line.startswith("GPU ") for line in lines)
    seen = _output([sys.executable, "-c", "import torch; print(torch.cuda.device_count())"])
    count = int(seen.split()[-1]) if seen.split() and seen.split()[-1].isdigit() else 0
    if there and count < there and os.environ.get("CUDA_VISIBLE_DEVICES") is None:
        remedy = (
            "torch is a build for CPUs, or for a newer driver: delete .venv, then "
            "`NEDHPC_TORCH=torch scripts/setup`"
        )
        return Finding("GPU", f"nvidia-smi shows {there}, torch sees {count}", remedy)
    return Finding("GPU", f"torch sees {count}" if count else "none; runs use the CPU")


def hdf5() -> Finding:
    """A file can be written, flushed and read in the current folder."""
    code = (
        "import h5py, sys\n"
        "with h5py.File(sys.argv[1], 'w') as f: f['x'] = 1.5; f.flush()\n"
        "with h5py.File(sys.argv[1]) as f: print('read', f['x'][()])"
    )
    try:
        with tempfile.TemporaryDirectory(dir=".", prefix=".nedhpc-doctor-") as folder:
            output = _output([sys.executable, "-c", code, f"{folder}/probe.h5"])
    except OSError as error:
        remedy = "run in a folder that you may write: `cd`, or `--out FOLDER`"
        return Finding("HDF5", f"cannot write in {Path.cwd()}: {error.strerror}", remedy)
    if "read 1.5" in output:
        return Finding("HDF5", f"writes and reads in {Path.cwd()}")
    locked = "lock" in output
    remedy = "export HDF5_USE_FILE_LOCKING=FALSE" if locked else "use another file system"
    return Finding("HDF5", f"fails in {Path.cwd()}: {_last(output)}", remedy)


def threads() -> Finding:
    """OMP_NUM_THREADS does not ask for more threads than there are cores."""
    from nedhpc.parallel.placement import cgroup_cpus

    cores = len(os.sched_getaffinity(0))
    usable, asked = min(cores, cgroup_cpus()), os.environ.get("OMP_NUM_THREADS", "")
    text = f"{usable:g} cores for this process, OMP_NUM_THREADS {asked or 'is not set'}"
    if asked.isdigit() and int(asked) > usable:
        remedy = "unset OMP_NUM_THREADS, or divide the cores by the ranks of a node"
        return Finding("threads", text, remedy)
    return Finding("threads", text)


def slurm() -> Finding:
    """srun can start MPI ranks, if SLURM is there and the job scripts use srun."""
    if shutil.which("sbatch") is None:
        return Finding("SLURM", "not on this machine")
    plugins = _output(["srun", "--mpi=list"]).lower()
    job = os.environ.get("SLURM_JOB_ID")
    where = f"in job {job}" if job else "outside a job"
    if "pmi" not in plugins:
        uses_srun = os.environ.get("NEDHPC_LAUNCHER") == "srun"
        remedy = "unset NEDHPC_LAUNCHER, or set it to mpirun" if uses_srun else ""
        text = f"{where}; srun has no PMI plugin and cannot start ranks, so that mpirun must"
        return Finding("SLURM", text, remedy)
    return Finding("SLURM", f"{where}; srun has: {' '.join(plugins.split())}")


def disk() -> Finding:
    """There is room for checkpoints in the current folder."""
    free = shutil.disk_usage(".").free
    text = f"{free / 2**30:.1f} GiB free in {Path.cwd()}"
    return Finding("disk", text, "" if free >= MIN_DISK else "free space, or use `--out FOLDER`")


def extras() -> Finding:
    """The optional packages. A missing one is nothing wrong."""
    from importlib.util import find_spec

    missing = [extra for extra, names in EXTRAS.items() if None in map(find_spec, names)]
    text = f"not installed: {', '.join(missing)} (pip install 'nedhpc[...]')" if missing else "all"
    return Finding("extras", text)


CHECKS: Sequence[Callable[[], Finding]] = (
    packages,
    mpi,
    torch,
    gpu,
    hdf5,
    threads,
    slurm,
    disk,
    extras,
)


def _output(words: Sequence[str]) -> str:
    """What a program prints on both streams, or why it cannot run."""
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=without_mpi(os.environ),
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"{words[0]} did not end within {SECONDS} s"
    except OSError as error:
        return f"{words[0]}: {error.strerror}"
    return done.stdout + done.stderr


def _last(output: str) -> str:
    """The last line of an output that says something."""
    lines = [line.strip(" -") for line in output.splitlines()]
    return next((line for line in reversed(lines) if line), "no output")
