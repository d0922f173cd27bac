"""Where the ranks run: cores and threads, GPUs. Everything is collective on comm; torch is imported only after the thread count is known."""

import logging
import os
import platform
from collections import Counter
from dataclasses import dataclass

from mpi4py import MPI

from nedhpc.errors import UsageError

log = logging.getLogger("nedhpc")


@dataclass(slots=True)
class Place:
    """Where one rank runs."""

    host: str
    local_rank: int
    """Rank among those of this host, of which there are `local_size`."""
    local_size: int
    cores: list[int]
    """Cores that the rank may run on."""
    threads: int
    device: str
    gpu: str = ""
    """What tells the GPU from every other of the host, however few a rank sees; "" on the CPU."""


def neighbours(comm, x):
    """(Rank among those of this node, x of each of them). Collective on comm."""
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    found = node.rank, node.allgather(x)
    node.Free()
    return found


def threads_per_rank(comm):
    """OMP_NUM_THREADS, or the rank's share of its cores: a core that k ranks may use counts 1/k. Collective on comm.

    That is right whether the launcher binds each rank to its own cores or lets all run on all. Where SLURM gives fewer cores than it
    binds to, they are shared out.
    """
    own = os.sched_getaffinity(0)
    _, affinities = neighbours(comm, own)
    users = Counter(core for cores in affinities for core in cores)
    share = sum(1 / users[core] for core in own)
    given = os.environ.get("SLURM_CPUS_ON_NODE", "")
    if given.isdigit():
        share = min(share, int(given) / len(affinities))
    chosen = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(chosen) if chosen.isdigit() and int(chosen) else max(1, int(share + 1e-9))


def choose_device(comm, kind, threads):
    """The rank's torch device; sets torch's thread count to `threads`, or to threads_per_rank; logs every rank's place. Collective on comm.

    CUDA devices go round by local rank, which is right whether a rank sees one GPU or all of the node's.
    """
    import torch

    from nedhpc.parallel.comm import agree

    local_rank, ranks = neighbours(comm, comm.rank)
    torch.set_num_threads(threads or threads_per_rank(comm))
    has_cuda = torch.cuda.is_available()
    agree(
        comm,
        UsageError(
            f"device.type = 'cuda': torch sees no CUDA device on {platform.node()}; use 'auto' or 'cpu', or a CUDA build "
            "of torch"
        )
        if kind == "cuda" and not has_cuda
        else None,
    )
    device, name, gpu = torch.device("cpu"), "cpu", ""
    if has_cuda and kind != "cpu":
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        name, gpu = (
            f"{device} ({torch.cuda.get_device_name(device)})",
            str(getattr(torch.cuda.get_device_properties(device), "uuid", device)),
        )
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


def describe(places):
    """A line for each rank's place."""
    return [
        f"rank {rank} on {p.host}, local rank {p.local_rank} of {p.local_size}, {p.threads} thread{'s' * (p.threads > 1)} on "
        f"core{'s' * (len(p.cores) > 1)} {ranges(p.cores)}, {p.device}"
        for rank, p in enumerate(places)
    ]


def ranges(numbers):
    """[0, 1, 2, 5] as "0-2,5"."""
    parts = []
    for n in numbers:
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def shared_gpus(places):
    """A warning for each GPU that several ranks are on."""
    ranks = {}
    for rank, place in enumerate(places):
        if place.gpu:
            ranks.setdefault((place.host, place.gpu), []).append(rank)
    return [
        f"ranks {ranges(sharing)} share {places[sharing[0]].device} of {host}: each waits for the other; start as many ranks a node "
        "as it has GPUs (SLURM: --ntasks-per-node equal to --gpus-per-node)"
        for (host, _), sharing in ranks.items()
        if len(sharing) > 1
    ]
