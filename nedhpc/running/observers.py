"""Observers act between the steps of a run. A new one is one class, of about ten lines:

    class Patience(nedhpc.Observer):
        name = "patience"
        best, waits = float("inf"), 0

        def step(self, run, moment):
            energy = moment.measured().energy
            self.waits = 0 if energy < self.best else self.waits + 1
            self.best = min(energy, self.best)
            return nedhpc.Stop("stopped", "no progress") if self.waits == 50 else None

        def state(self):
            return {"best": self.best, "waits": self.waits}

        def load(self, state):
            self.best, self.waits = float(state["best"]), int(state["waits"])

`start`, `step` and `end` are called on every rank at the same moments, and may use collectives of
`run.comm`. A run takes observers as objects from Python, `nedhpc.run(..., observers=[Patience()])`,
and by name from its config: `[output] observers = ["patience"]`, with the class in the problem's
file. A named observer acts again if the run is resumed from the command line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nedhpc.errors import ConfigError, UsageError
from nedhpc.names import subclasses_by_name, unknown

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
    """Base class, whose methods do nothing. Collective on run.comm, except where "Local" is said.

    A subclass whose body sets `name` can be named in `output.observers`. It is then made without
    arguments.
    """

    def start(self, run: Run, moment: Moment) -> Stop | None:
        """Called before the first step, with the state that the run starts or continues from."""

    def step(self, run: Run, moment: Moment) -> Stop | None:
        """Called after each accepted step. To end the run, return the same Stop on every rank."""

    def end(self, run: Run, stop: Stop) -> None:
        """Called after the last step, before the final checkpoint.

        It is called with the status "failed" too, unless the run folder cannot be written.
        """

    def error(self, run: Run, error: BaseException) -> None:
        """Called if an exception ends the run, before `end`. Local: other ranks may not be here."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this observer: numbers, texts and arrays by name. Local.

        The state of rank 0 is stored. It is copied at each step.
        """
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Called before `start` if the run continues, with the stored state. Local."""


def made(names: Iterable[str]) -> list[Observer]:
    """New observers of the classes with these names: ready ones and those of the user. Local.

    Raises:
        ConfigError: output.observers holds an unknown name.
    """
    from nedhpc.running import ready  # noqa: F401  # its classes are found by their names

    known = subclasses_by_name(Observer)
    wrong = [name for name in names if name not in known]
    if wrong:
        key = "output.observers"
        raise ConfigError([unknown(f"{key} = [{n!r}]", "value", n, sorted(known)) for n in wrong])
    return [known[name]() for name in names]


def checked(observers: Iterable[Observer]) -> tuple[Observer, ...]:
    """The observers that a user gave. Local.

    Raises:
        UsageError: one of them is a class, or not derived from Observer.
    """
    observers = tuple(observers)
    for observer in observers:
        if not isinstance(observer, Observer):
            name = getattr(observer, "__name__", type(observer).__name__)
            raise UsageError(
                f"observers: {name} is not an object of a class derived from nedhpc.Observer; "
                f"write `class {name}(nedhpc.Observer):`, and give an object, `{name}()`"
            )
    return observers
