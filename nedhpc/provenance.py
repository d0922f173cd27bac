"""Who, what, where: the versions, hosts and job that made a file."""

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


def utc():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def collect(comm, device):
    """A flat dict of strings and numbers. Collective on comm."""
    hosts = comm.allgather(platform.node())
    devices = comm.allgather(str(device))
    entry = {"argv": " ".join(sys.argv), "hosts": " ".join(dict.fromkeys(hosts)), "num_ranks": comm.size, "pid": comm.bcast(os.getpid(), 0),
             "devices": " ".join(devices), "utc": utc(), "python": platform.python_version(), "git": _git()}
    entry |= {f"version_{name}": version(name) for name in ("nedhpc", "torch", "petsc4py", "mpi4py", "h5py", "numpy")}
    entry |= {name.lower(): os.environ[name] for name in ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")
              if name in os.environ}
    return entry


def _git():
    """The checkout's revision, or "" for an installed package."""
    try:
        return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True,
                              text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
