"""Thread counts, places and shared GPUs; the ranks of a node agree on who uses which core."""

import os

import pytest

from nedhpc.parallel import placement
from nedhpc.parallel.placement import Place

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


def test_unbound_ranks_share_the_cores(comm, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    assert placement.threads_per_rank(comm) == 12 // comm.size


def test_bound_ranks_keep_their_cores(comm, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4 * comm.rank + k for k in range(4)})
    assert placement.threads_per_rank(comm) == 4


def test_more_ranks_than_cores_have_one_thread(comm, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert placement.threads_per_rank(comm) == 1


def test_what_slurm_gives_is_shared(comm, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert placement.threads_per_rank(comm) == 6 // comm.size


@pytest.mark.parametrize("value", ["5", "5,2"])
def test_omp_num_threads_wins(comm, monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert placement.threads_per_rank(comm) == 5


def place(host, gpu, device="cuda:0"):
    return Place(host, 0, 1, [0, 1, 2, 7], 4, device, gpu)


def test_a_shared_gpu_is_told():
    shared = placement.shared_gpus(
        [
            place("a", "x"),
            place("a", "y"),
            place("a", "x"),
            place("b", "x"),
            place("b", "", "cpu"),
            place("b", "", "cpu"),
        ]
    )
    assert len(shared) == 1 and shared[0].startswith("ranks 0,2 share cuda:0 of a")


def test_every_rank_has_a_line():
    lines = placement.describe([place("a", "x"), place("b", "", "cpu")])
    assert lines == [
        "rank 0 on a, local rank 0 of 1, 4 threads on cores 0-2,7, cuda:0",
        "rank 1 on b, local rank 0 of 1, 4 threads on cores 0-2,7, cpu",
    ]
