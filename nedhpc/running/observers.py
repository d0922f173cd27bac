"""Observers act between the steps of a run. A new one is one class.

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
    """An observer returns it to end the run."""

    status: str
    """One of converged, stalled, max_steps, max_time, wall_time, stopped; as in `nedhpc info`."""
    message: str = ""
    """The reason in words, for the user."""


class Observer:
    """Base class, whose methods do nothing. Collective on run.comm."""

    def start(self, run: Run, moment: Moment) -> Stop | None:
        """Called before the first step, with the state that the run starts or continues from."""

    def step(self, run: Run, moment: Moment) -> Stop | None:
        """Called after each accepted step. To end the run, return the same Stop on every rank."""

    def end(self, run: Run, stop: Stop) -> None:
        """Called after the last step, before the final checkpoint.

        It is called with the status "failed" too, unless the run folder cannot be written.
        """
