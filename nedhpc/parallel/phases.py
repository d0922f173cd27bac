"""The time of a run on this rank: seconds by phase. Local."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

PHASES = ("sample", "rows", "solve", "energy", "output")
"""Names of the phases of a run.

    sample  drawing points
    rows    rows of the Jacobian, and gradients
    solve   factorisations and solves
    energy  energies of trial steps
    output  measuring errors and writing files
"""


class Phases:
    """`with phases("rows"): ...` adds the block's wall time to that phase. Blocks do not nest."""

    def __init__(self):
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started

    def take(self) -> dict[str, float]:
        """Seconds by phase since the last call."""
        taken, self.seconds = self.seconds, dict.fromkeys(PHASES, 0.0)
        return taken
