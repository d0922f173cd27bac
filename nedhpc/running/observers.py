"""Observers of a run: what happens between steps. A new one is one class.

    class Trace(nedhpc.Observer):
        def step(self, run, moment):
            print(moment.state.step, moment.measured().energy)

Every method is called on every rank at the same moments, and may use collectives of `run.comm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nedhpc.running.evolve import Run
    from nedhpc.running.measured import Moment


@dataclass(frozen=True, slots=True)
class Stop:
    """The run ends here."""

    status: str
    """As `nedhpc info` reports it:

    converged, stalled, max_steps, max_time, wall_time or stopped.
    """
    message: str = ""


class Observer:
    """Base class, whose methods do nothing. Collective on run.comm."""

    def start(self, run: Run, moment: Moment) -> Stop | None:
        """Before the first step, with the state that the run starts or continues from."""

    def step(self, run: Run, moment: Moment) -> Stop | None:
        """After each accepted step. A Stop ends the run; it must be the same on every rank."""

    def end(self, run: Run, stop: Stop) -> None:
        """After the last step, before the final checkpoint; also if the run failed."""
