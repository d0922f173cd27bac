"""The ranks of a node agree on cores and threads, and the log names places and shared GPUs."""

import os

import pytest
import torch

from nedhpc.errors import UsageError
from nedhpc.parallel import placement
from nedhpc.parallel.placement import Place
from nedhpc.parallel.placement import cgroup_cpus as quota

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(placement, "cgroup_cpus", lambda: float("inf"))


def test_unbound_ranks_share_the_cores(comm, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    assert placement.threads_per_rank(comm) == 12 // comm.size


def test_bound_ranks_keep_their_cores(comm, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4 * comm.rank + k for k in range(4)})
    assert placement.threads_per_rank(comm) == 4


def test_more_ranks_than_cores_have_one_thread(comm, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert placement.threads_per_rank(comm) == 1


def test_ranks_share_the_cores_that_slurm_gives(comm, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert placement.threads_per_rank(comm) == 6 // comm.size


@pytest.mark.parametrize("value", ["5", "5,2"])
def test_omp_num_threads_wins(value):
    environ = {"OMP_NUM_THREADS": value, "SLURM_CPUS_ON_NODE": "6"}
    assert placement.given_threads(0, environ, stored=2) == 5


def test_the_config_then_the_user_then_the_record_give_the_threads():
    assert placement.given_threads(3, {"OMP_NUM_THREADS": "5"}, 2) == 3
    assert placement.given_threads(0, {}, 2) == 2
    for text in ("", "0", "many", " "):
        assert placement.given_threads(0, {"OMP_NUM_THREADS": text}) is None


@pytest.fixture
def threads():
    """Restore the thread count of torch after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("speedup, chosen", [(1.1, 1), (1.19, 1), (1.21, 2), (0.01, 1)])
def test_threads_are_used_if_they_pay(comm, threads, caplog, speedup, chosen):
    caplog.set_level("INFO", "nedhpc")
    calls = []

    def time_step(count):
        assert torch.get_num_threads() == count
        calls.append(count)
        # The slowest rank decides for all ranks.
        return 1.0 if count == 1 else 1 / speedup if comm.rank == comm.size - 1 else 1e-3

    assert placement.choose_threads(comm, 2, time_step) == chosen == torch.get_num_threads()
    assert calls.count(2) == 1 and len(set(comm.allgather(tuple(calls)))) == 1
    if comm.rank == 0:
        assert (f"1 thread: 2 would be {speedup:.1f}" in caplog.text) == (chosen == 1)


def test_threads_are_chosen_within_seconds_and_by_the_median(comm, threads):
    times = {1: iter([0.09, 0.1, 0.1, 9.0, 0.1, 0.1]), 2: iter([0.3, 0.05, 0.05, 0.05, 7.0, 0.05])}
    assert placement.choose_threads(comm, 2, lambda count: next(times[count])) == 2
    assert len(list(times[1])) == 0  # the first call and five repeats
    assert len(list(times[2])) == 4  # the first call and 0.5 s / 0.3 s = one repeat


def test_one_core_is_not_measured(comm, threads):
    assert placement.choose_threads(comm, 1, None) == 1 == torch.get_num_threads()


def test_small_problems_always_have_one_thread():
    assert not placement.threads_worth_trying(2 * 1020 * 257**2)  # poisson_2d
    assert placement.threads_worth_trying(2 * 10_000 * 4000**2)


def test_idle_threads_sleep_unless_the_user_says_otherwise():
    environ = {}
    placement.quiet_threads(environ)
    assert environ["OMP_WAIT_POLICY"] == "PASSIVE" and int(environ["GOMP_SPINCOUNT"]) <= 10_000
    assert environ["OPENBLAS_NUM_THREADS"] == "1" and "OMP_NUM_THREADS" not in environ
    environ = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "4"}
    placement.quiet_threads(environ)
    assert environ["OMP_WAIT_POLICY"] == "ACTIVE" and "OPENBLAS_NUM_THREADS" not in environ


@pytest.mark.parametrize(
    "membership, file, content, cores",
    [
        ("0::/", "cpu.max", "150000 100000\n", 1.5),
        ("0::/", "cpu.max", "max 100000\n", float("inf")),
        ("0::/a/b", "a/cpu.max", "300000 100000\n", 3.0),
        ("4:cpu,cpuacct:/a\n0::/", "cpu,cpuacct/a/cpu.cfs_quota_us", "200000\n", 2.0),
        ("4:cpu:/a", "cpu/a/cpu.cfs_quota_us", "-1\n", float("inf")),
        ("", "other", "", float("inf")),
    ],
)
def test_the_quota_of_a_container_is_read(tmp_path, membership, file, content, cores):
    path = tmp_path / "cgroup" / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    (path.parent / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "membership").write_text(membership)
    assert quota(tmp_path / "cgroup", tmp_path / "membership") == cores


def test_ranks_share_a_quota(comm, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr(placement, "cgroup_cpus", lambda: 6.5)
    assert placement.threads_per_rank(comm) == int(6.5 / comm.size)


def test_absurd_thread_counts_are_refused(comm):
    with pytest.raises(UsageError, match="device.threads = 100000: .* cores; use at most"):
        placement.choose_device(comm, "cpu", 100000)


def place(host, gpu, device="cuda:0"):
    return Place(host, 0, 1, [0, 1, 2, 7], 4, device, gpu)


def test_a_shared_gpu_is_reported():
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
