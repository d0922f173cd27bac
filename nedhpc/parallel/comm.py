"""Communicator helpers: blocks of indices, reductions in a fixed order, agreement on failure.

Every function says whether it is collective. Reductions follow a binary tree by rank, so that a
result depends only on the number of ranks; they are float64 on the host.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nedhpc.errors import NedError

MESSAGE_BYTES = 2**30
"""Longest message. It is limited because MPI counts in 32 bits."""
ARRIVAL_SECONDS = 5.0
"""Seconds for which a failing rank waits for the others to fail too, before it ends the job."""


def block(num_global: int, rank: int, size: int) -> tuple[int, int]:
    """A rank's contiguous share [start, stop) of num_global indices. Local.

    The sizes of the shares differ by at most one. A share may be empty.

    Args:
        num_global: number of all indices.
        rank: the rank.
        size: number of ranks.
    """
    return num_global * rank // size, num_global * (rank + 1) // size


def tree_reduce(comm, x: np.ndarray, combine: Callable) -> np.ndarray | None:
    """combine(x_0, x_1, ...) over ranks along a binary tree. Collective on comm.

    Args:
        comm: communicator.
        x: this rank's float64 array; the shapes of the ranks may differ.
        combine: function of two arrays.

    Returns:
        The result on rank 0, None elsewhere.
    """
    rank, size, step = comm.rank, comm.size, 1
    while step < size:
        if rank % (2 * step):
            _send(comm, x, rank - step)
            return None
        if rank + step < size:
            x = combine(x, _receive(comm, rank + step))
        step *= 2
    return x


def _pieces(x):
    """A float64 array's bytes in messages below MPI's count limit."""
    flat = x.reshape(-1)
    return (flat[k : k + MESSAGE_BYTES // 8] for k in range(0, flat.size, MESSAGE_BYTES // 8))


def _send(comm, x, dest):
    x = np.ascontiguousarray(x, dtype=np.float64)
    comm.send(x.shape, dest)
    for piece in _pieces(x):
        comm.Send(piece, dest)


def _receive(comm, source):
    x = np.empty(comm.recv(source=source))
    for piece in _pieces(x):
        comm.Recv(piece, source)
    return x


def total(comm, x) -> np.ndarray:
    """Sum of float64 arrays over ranks in a fixed order, the same bits on every rank.

    Collective on comm.
    """
    x = np.array(x, dtype=np.float64)
    if comm.size == 1:
        return x
    y = tree_reduce(comm, x, np.add)
    return broadcast(comm, y if comm.rank == 0 else np.empty_like(x))


def broadcast(comm, x: np.ndarray) -> np.ndarray:
    """Rank 0's float64 array on every rank. Collective on comm.

    The other ranks pass an array of the same shape, which is overwritten and returned.
    """
    for piece in _pieces(x):
        comm.Bcast(piece, 0)
    return x


def maximum(comm, x) -> np.ndarray:
    """Largest of float64 arrays over ranks, element by element. Collective on comm."""
    # Import it here: it initialises MPI, which commands that only read do not need.
    from mpi4py import MPI

    x = np.array(x, dtype=np.float64)
    comm.Allreduce(MPI.IN_PLACE, x, MPI.MAX)
    return x


def agree(comm, error: NedError | None) -> None:
    """If a rank has an error, raise that of the lowest such rank on every rank.

    Collective on comm.

    Args:
        comm: communicator.
        error: this rank's error, or None.
    """
    if comm.size > 1:
        found = comm.allgather(None if error is None else (type(error).__name__, str(error)))
        first = next((e for e in found if e is not None), None)
        if first is not None and error is None:
            kind = {c.__name__: c for c in _subclasses(NedError)}[first[0]]
            error = kind.__new__(kind)
            Exception.__init__(error, first[1])
    if error is not None:
        raise error


def on_rank_0(comm, function: Callable, *args) -> Any:
    """Call function(*args) on rank 0; return or raise the same on every rank. Collective on comm.

    Only a NedError is raised on every rank.
    """
    return comm.bcast(agreed(comm, function if comm.rank == 0 else _nothing, *args), 0)


def agreed(comm, function: Callable, *args) -> Any:
    """This rank's function(*args); a NedError of one rank is raised on every rank.

    Collective on comm.
    """
    result = error = None
    try:
        result = function(*args)
    except NedError as caught:
        error = caught
    agree(comm, error)
    return result


def _nothing(*args):
    return None


def all_come(comm) -> bool:
    """True if all ranks arrive within ARRIVAL_SECONDS. Collective on comm.

    Args:
        comm: a duplicate of the run's communicator that is used for nothing else, since other
            ranks may be inside a collective on the run's communicator.
    """
    barrier, deadline = comm.Ibarrier(), time.monotonic() + ARRIVAL_SECONDS
    while not barrier.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _subclasses(cls):
    return [cls, *(c for child in cls.__subclasses__() for c in _subclasses(child))]
