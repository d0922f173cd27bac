"""Failures of one rank: why it failed, and the end of the job that would wait for it."""

import platform
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nedhpc.errors import NedError
from nedhpc.parallel.comm import all_come


class AloneError(RuntimeError):
    """Only this rank failed: all_come has already waited for the other ranks."""


@contextmanager
def ends_together(comm: Any) -> Iterator[None]:
    """Context manager that ends the whole job if not all ranks leave it. Collective on comm.

    If an exception leaves the block on some ranks only, the others would wait for these ranks for
    ever, and so would the exit of the process, because PETSc's finalisation is collective. Then
    the exception is printed and the job is aborted. If all ranks fail, each raises its exception.
    On one rank this changes nothing.
    """
    if comm.size == 1:
        yield
        return
    own = comm.Dup()
    try:
        yield
    except BaseException as error:
        if isinstance(error, AloneError) or not all_come(own):
            explain(error, comm.rank)
            comm.Abort(error.exit_code if isinstance(error, NedError) else 1)
        own.Free()
        raise
    own.Free()


def explain(error: BaseException, rank: int) -> None:
    """Print why this rank failed: a remedy if memory was full, else a traceback."""
    if out_of_memory(error):
        what = (str(error) or type(error).__name__).splitlines()[0]
        print(
            f"nedhpc: rank {rank} on {platform.node()} ran out of memory: {what}\n"
            "  Fewer points or parameters, a smaller solver.chunk, solver.type = 'krylov' or more "
            "nodes need less; `nedhpc check` predicts it. The checkpoints are untouched.",
            file=sys.stderr,
        )
    else:
        print(f"nedhpc: rank {rank} failed", file=sys.stderr)
        traceback.print_exc()
    sys.stderr.flush()
    sys.stdout.flush()


def out_of_memory(error: BaseException) -> bool:
    """True if numpy, torch on a CPU, or CUDA had no memory left."""
    texts = ("can't allocate memory", "out of memory")
    is_torch = isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    return isinstance(error, MemoryError) or is_torch
