"""Who, what, where: the versions, hosts and job that made a file."""

import datetime
import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from nedhpc import problems
from nedhpc.errors import UsageError

PACKAGES = ("torch", "petsc4py", "mpi4py", "h5py", "numpy", "scipy")


def utc():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def collect(comm, device):
    """A flat dict of strings and numbers. Collective on comm."""
    hosts = comm.allgather(platform.node())
    devices = comm.allgather(str(device))
    entry = {
        "argv": " ".join(sys.argv),
        "hosts": " ".join(dict.fromkeys(hosts)),
        "num_ranks": comm.size,
        "pid": comm.bcast(os.getpid(), 0),
        "devices": " ".join(devices),
        "utc": utc(),
        "python": platform.python_version(),
        "git": _git(),
    }
    entry |= {f"version_{name}": version(name) for name in ("nedhpc", *PACKAGES)}
    entry |= {
        name.lower(): os.environ[name]
        for name in ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")
        if name in os.environ
    }
    return entry


def inputs(comm, config):
    """Check that all ranks read the same config, files and code; UsageError with what differs and where. Collective on comm.

    Then whatever is wrong with an input is found by every rank alike.
    """
    found = {
        "config": hashlib.sha256(config.toml().encode()).hexdigest(),
        **problems.digests(config),
        "nedhpc": _sources(),
        **{name: version(name) for name in PACKAGES},
    }
    every = comm.allgather((platform.node(), found))
    differing = (
        [
            f"  {key}: {found[key]} on {every[0][0]} (rank 0), {other[key]} on {host} (rank {rank})"
            for key in found
            for rank, (host, other) in enumerate(every)
            if other[key] != found[key]
        ]
        if comm.rank == 0
        else None
    )
    differing = comm.bcast(differing, 0)
    if differing:
        raise UsageError(
            "\n".join(
                [
                    "the ranks would not compute the same; give all of them the same files and environment:",
                    *differing[:10],
                ]
            )
        )


def _sources():
    """SHA-256 of this package's Python files."""
    digest, folder = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def _git():
    """The checkout's revision, or "" for an installed package."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
