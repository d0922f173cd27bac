"""Where a run's time goes: seconds by phase on this rank. Local."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

PHASES = ("sample", "rows", "solve", "energy", "output")
"""Points drawn; tangent rows and gradients; factorisations and solves; energies of trial steps;
errors measured and files written."""


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
