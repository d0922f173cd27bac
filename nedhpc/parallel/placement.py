"""The place of each rank: its cores, threads and GPU.

Functions here import torch only when they are called: its thread pool reads the environment, which
`quiet_threads` must set first.
"""

import logging
import os
import platform
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from mpi4py import MPI

from nedhpc.errors import UsageError
from nedhpc.parallel.comm import agree, maximum

log = logging.getLogger("nedhpc")

QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "0"}
"""Environment that lets idle threads of GNU's and Intel's OpenMP sleep, GNU's after some 10 us.

If they slept at once, two threads would take 1.3 to 2 times as long as one, because waking a thread
costs more than a small product. GNU's default, 300,000 turns, holds a core for milliseconds.
"""
MIN_SPEEDUP = 1.2
"""Several threads are used only if a step is at least this many times as fast with them."""
MIN_FLOPS = 1e10
"""Several threads are tried only if a step has at least this work on a rank."""
MEASURE_SECONDS = 0.5
"""Seconds for the repeats with one thread count. A longer piece of work runs once."""
REPEATS = 5
HOPELESS = 3.0
"""If the first run with more threads takes this many times as long, it is not repeated."""
MAX_THREADS_PER_CORE = 4
CGROUP, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(slots=True)
class Place:
    """The place of one rank."""

    host: str
    local_rank: int
    """Number of the rank among the ranks of this host."""
    local_size: int
    """Number of ranks of this host."""
    cores: list[int]
    """Cores that the rank may run on."""
    threads: int
    device: str
    gpu: str = ""
    """Unique name of the GPU on its host, even if a rank sees only one; "" on the CPU."""


def neighbours(comm, x):
    """(number of this rank on its node, x of each rank of the node). Collective on comm."""
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    found = node.rank, node.allgather(x)
    node.Free()
    return found


def quiet_threads(environ: MutableMapping[str, str]) -> None:
    """Let idle threads sleep. Call it before torch and numpy are imported. Local.

    By default an idle OpenMP thread spins. On a busy machine it then holds the core of the thread
    that it waits for, and a step takes a hundred times as long. numpy's linear algebra has its own
    threads, which would use all cores of the node on every rank, so it gets one thread. Variables
    that the user has set stay as they are.
    """
    for name, value in QUIET.items():
        environ.setdefault(name, value)
    if user_threads(environ) is None:
        environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def user_threads(environ: Mapping[str, str]) -> int | None:
    """The user's OMP_NUM_THREADS, or None. Local."""
    text = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(text) if text.isdigit() and int(text) else None


def given_threads(
    configured: int, environ: Mapping[str, str], stored: int | None = None
) -> int | None:
    """The thread count that needs no measurement, or None. Local.

    Args:
        configured: device.threads, which comes first; 0 for automatic.
        environ: the environment, whose OMP_NUM_THREADS comes second.
        stored: number of threads before a resume (RunRecord.threads). A resumed run keeps it,
            because another number of threads gives different rounding errors.
    """
    return configured or user_threads(environ) or stored


def threads_per_rank(comm) -> int:
    """The rank's share of its cores, at least 1. Collective on comm.

    A core that k ranks may use counts as 1/k. So the result is right both if the launcher binds
    each rank to its own cores and if all ranks may run on all cores. If SLURM grants fewer cores
    than it binds to, or if a cgroup (a container) has a CPU quota, the ranks share that number.
    """
    own = os.sched_getaffinity(0)
    _, affinities = neighbours(comm, own)
    users = Counter(core for cores in affinities for core in cores)
    share = sum(1 / users[core] for core in own)
    given = os.environ.get("SLURM_CPUS_ON_NODE", "")
    if given.isdigit():
        share = min(share, int(given) / len(affinities))
    share = min(share, cgroup_cpus() / len(affinities))
    return max(1, int(share + 1e-9))


def cgroup_cpus(root: Path = CGROUP, membership: Path = MEMBERSHIP) -> float:
    """The cgroup's CPU quota as a number of cores; infinity without a quota. Local.

    Reads cpu.max (cgroup v2) or cpu.cfs_quota_us (v1) of this process's cgroup and its parents.
    """
    folders = [root]
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        if not controllers:  # v2
            base = root
        elif "cpu" in controllers.split(","):  # v1
            base = root / controllers
        else:
            continue
        inner = base / path.lstrip("/")
        folders += [inner, *(parent for parent in inner.parents if root in parent.parents)]
    return min(_quota(folder) for folder in folders)


def _quota(folder):
    """Quota / period of one cgroup folder."""
    both = _lines(folder / "cpu.max")
    parts = both[0].split() if both else []
    if not parts:
        parts = _lines(folder / "cpu.cfs_quota_us")[:1] + _lines(folder / "cpu.cfs_period_us")[:1]
    if len(parts) == 2 and all(part.isdigit() for part in parts) and int(parts[1]):
        return int(parts[0]) / int(parts[1])
    return float("inf")  # "max", or -1 in v1


def _lines(path):
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def threads_worth_trying(flops: float) -> bool:
    """True if a step's work on a rank is large enough to measure thread counts. Local.

    A run must be repeatable to the bit, but another number of threads gives different rounding
    errors. So a small problem, whose steps would gain little, always has one thread. For a large
    one the measurement decides, unless device.threads fixes the number.

    Args:
        flops: floating-point operations of a step on a rank.
    """
    return flops >= MIN_FLOPS


def choose_threads(comm, share: int, time_step: Callable[[int], float]) -> int:
    """Set torch's thread count: one, or the share if it is faster. Collective on comm.

    Args:
        comm: communicator of the run.
        share: cores of this rank, as threads_per_rank returns them.
        time_step: function of the thread count that does a representative piece of work on all
            ranks and returns its seconds. It does not set the thread count.

    Returns:
        This rank's thread count: `share` on all ranks if the slowest rank's median time with it is
        at most 1 / 1.2 of that with one thread, else 1 on all ranks. The measurement takes about
        2 s, or four pieces of work if they are longer.
    """
    import torch

    if maximum(comm, share)[()] <= 1:
        torch.set_num_threads(1)
        return 1

    def median(threads, limit):
        """Median seconds; the number of repeats is the same on all ranks, which agree on times."""
        torch.set_num_threads(threads)
        first = float(maximum(comm, time_step(threads)))  # this call also starts the threads
        if first > min(MEASURE_SECONDS, limit):
            return first
        count = min(REPEATS, max(1, int(MEASURE_SECONDS / max(first, 1e-9))))
        return statistics.median(float(maximum(comm, time_step(threads))) for _ in range(count))

    one = median(1, float("inf"))
    speedup = one / median(share, HOPELESS * one)
    chosen = share if speedup >= MIN_SPEEDUP else 1
    torch.set_num_threads(chosen)
    if comm.rank == 0:
        if chosen > 1:
            log.info("%d threads: %.1f times as fast as 1", chosen, speedup)
        else:
            log.info("1 thread: %d would be %.1f times as fast", share, speedup)
    return chosen


def choose_device(comm, kind: str, threads: int):
    """The rank's torch device. Collective on comm.

    It also sets torch's thread count and logs every rank's place. CUDA devices are assigned in turn
    by local rank, which is right both if a rank sees one GPU and if it sees all of the node's.

    Args:
        comm: communicator of the run.
        kind: "auto", "cpu" or "cuda".
        threads: torch threads of this rank; 0: the user's OMP_NUM_THREADS, or one until
            `choose_threads` finds that more are faster.

    Raises:
        UsageError: there is no CUDA device, or `threads` is far above the number of cores.
    """
    import torch

    agree(comm, _device_error(kind, threads, torch.cuda.is_available()))
    torch.set_num_threads(given_threads(threads, os.environ) or 1)
    local_rank, ranks = neighbours(comm, comm.rank)
    device, name, gpu = torch.device("cpu"), "cpu", ""
    if torch.cuda.is_available() and kind != "cpu":
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        name = f"{device} ({torch.cuda.get_device_name(device)})"
        gpu = str(getattr(torch.cuda.get_device_properties(device), "uuid", device))
    place = Place(
        platform.node(),
        local_rank,
        len(ranks),
        sorted(os.sched_getaffinity(0)),
        torch.get_num_threads(),
        name,
        gpu,
    )
    places = comm.gather(place, 0)
    if comm.rank == 0:
        for line in describe(places):
            log.info("%s", line)
        for warning in shared_gpus(places):
            log.warning("%s", warning)
    return device


def _device_error(kind, threads, has_cuda):
    """The UsageError of a [device] table that this host cannot satisfy, or None."""
    cores = os.cpu_count() or 1
    if threads > MAX_THREADS_PER_CORE * cores:
        return UsageError(
            f"device.threads = {threads}: {platform.node()} has {cores} cores; use at most "
            f"{MAX_THREADS_PER_CORE * cores}"
        )
    if kind == "cuda" and not has_cuda:
        return UsageError(
            f"device.type = 'cuda': torch sees no CUDA device on {platform.node()}; use 'auto' or "
            "'cpu', or a CUDA build of torch"
        )
    return None


def describe(places: list[Place]) -> list[str]:
    """A line of text for each rank's place. Local."""
    return [
        f"rank {rank} on {p.host}, local rank {p.local_rank} of {p.local_size}, "
        f"{p.threads} thread{'s' * (p.threads > 1)} on "
        f"core{'s' * (len(p.cores) > 1)} {ranges(p.cores)}, {p.device}"
        for rank, p in enumerate(places)
    ]


def ranges(numbers: list[int]) -> str:
    """Sorted numbers as text, e.g. [0, 1, 2, 5] as "0-2,5". Local."""
    parts = []
    for n in numbers:
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def shared_gpus(places: list[Place]) -> list[str]:
    """A warning for each GPU that several ranks use. Local."""
    ranks = {}
    for rank, place in enumerate(places):
        if place.gpu:
            ranks.setdefault((place.host, place.gpu), []).append(rank)
    return [
        f"ranks {ranges(sharing)} share {places[sharing[0]].device} of {host}: each waits for the "
        "other; start as many ranks per node as it has GPUs (SLURM: --ntasks-per-node equal to "
        "--gpus-per-node)"
        for (host, _), sharing in ranks.items()
        if len(sharing) > 1
    ]
