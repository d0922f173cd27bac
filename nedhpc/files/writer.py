"""Files of a run are written in the background, one after another. Collective on comm.

The stall of a step is the time of a copy. A write that fails is raised at the next `submit` or
`wait`, on every rank.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from nedhpc.errors import StorageError
from nedhpc.files.lock import Lock
from nedhpc.parallel.comm import on_rank_0


class Writer:
    """Writes in a run folder in a thread of rank 0.

    Args:
        comm: all ranks of the run.
        run_dir: the folder, for messages.
        lock: the lock of run_dir, which is checked before each write; None if there is none.
    """

    def __init__(self, comm, run_dir: Path, lock: Lock | None):
        self.comm, self.run_dir, self.lock = comm, run_dir, lock
        self.longest = 0.0
        """Seconds of the longest write, on rank 0."""
        self._last: Future | None = None
        self._busy = threading.Lock()

    def submit(self, write: Callable[[], object]) -> None:
        """Begin to call write() on rank 0, if the write before has ended. Collective.

        Args:
            write: it must not use anything that the run changes.

        Raises:
            StorageError: the write before failed. The error is the same on every rank.
        """
        self.wait()
        if self.comm.rank == 0:
            executor = ThreadPoolExecutor(1)
            self._last = executor.submit(self.at_once, write)
            executor.shutdown(wait=False)  # the thread ends after this write

    def wait(self) -> None:
        """Return if everything is on disk. Collective. Raises as `submit`."""
        on_rank_0(self.comm, self._result)

    def finish(self) -> None:
        """Return if nothing is being written, even if the last write failed. Local."""
        if self._last is not None:
            self._last.exception()

    def _result(self):
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def at_once(self, write: Callable[[], object]) -> None:
        """Call write() in the caller's thread, after the write that is going on. Local, on rank 0.

        Raises:
            StorageError: this write failed.
        """
        with self._busy:
            started = time.monotonic()
            if self.lock is not None:
                self.lock.check()
            try:
                write()
            except OSError as caught:
                raise StorageError(
                    f"cannot write in {self.run_dir}: {caught.strerror or caught}; the checkpoints "
                    "that are there are untouched: free space or restore the folder, then `nedhpc "
                    f"resume {self.run_dir}`"
                ) from caught
            self.longest = max(self.longest, time.monotonic() - started)
