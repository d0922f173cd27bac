"""The origin of a file: the versions, hosts and job that made it."""

import datetime
import functools
import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from nedhpc.config import Config
from nedhpc.errors import UsageError

PACKAGES = ("torch", "petsc4py", "mpi4py", "h5py", "numpy", "scipy")
SHOWN = 10
"""Largest number of differences between ranks that an error lists."""


def utc() -> str:
    """The time now, UTC, as ISO 8601. Local."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def collect(comm, device) -> dict[str, str | int]:
    """Versions, hosts, devices and job of a start, as a flat dict. Collective on comm.

    Args:
        comm: communicator of the run.
        device: this rank's torch device.
    """
    hosts = comm.allgather(platform.node())
    devices = comm.allgather(str(device))
    facts = {
        "argv": " ".join(sys.argv),
        "hosts": " ".join(dict.fromkeys(hosts)),
        "num_ranks": comm.size,
        "pid": comm.bcast(os.getpid(), 0),
        "devices": " ".join(devices),
        "utc": utc(),
        "python": platform.python_version(),
        "git": comm.bcast(revision() if comm.rank == 0 else None, 0),
    }
    facts |= {f"version_{name}": version(name) for name in ("nedhpc", *PACKAGES)}
    facts |= {
        name.lower(): os.environ[name]
        for name in ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")
        if name in os.environ
    }
    return facts


def inputs(comm, config: Config, user_files: dict[str, str]) -> None:
    """Check that all ranks read the same config, files and code. Collective on comm.

    If an input has a fault, every rank then finds the same one.

    Args:
        comm: communicator of the run.
        config: this rank's config.
        user_files: SHA-256 of the files that the config names, as this rank reads them.

    Raises:
        UsageError: what differs, and where.
    """
    found = {
        "config": hashlib.sha256(config.toml().encode()).hexdigest(),
        **user_files,
        "nedhpc": _sources(),
        **{name: version(name) for name in PACKAGES},
    }
    same_everywhere(comm, found)


def same_everywhere(comm, found: dict[str, str]) -> None:
    """Check that all ranks found the same. Collective on comm.

    Args:
        comm: communicator of the run.
        found: what this rank found, by name.

    Raises:
        UsageError: what differs, and where. The error is the same on every rank.
    """
    gathered = comm.gather((platform.node(), found), 0)
    differing = comm.bcast(_differences(gathered) if comm.rank == 0 else None, 0)
    if differing:
        title = "the ranks would not compute the same; give them the same files and environment:"
        raise UsageError("\n".join([title, *differing[:SHOWN]]))


def _differences(gathered):
    """A line for each item in which a rank differs from rank 0."""
    host, first = gathered[0]
    return [
        f"  {key}: {first[key]} on {host} (rank 0), {found.get(key)} on {other} (rank {rank})"
        for key in first
        for rank, (other, found) in enumerate(gathered)
        if found.get(key) != first[key]
    ]


def _sources():
    """SHA-256 of this package's Python files."""
    digest, folder = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def revision() -> str:
    """The checkout's git revision, or "" for an installed package. Local.

    A process asks git once, because some networks of MPI do not allow to start processes.
    """
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
