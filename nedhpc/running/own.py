"""The observer that calls those of the user, and keeps their states for the checkpoint."""

import copy
import logging
from collections.abc import Sequence

from nedhpc.running.observers import Observer, Stop

log = logging.getLogger("nedhpc")


class Own(Observer):
    """Calls the given observers in their order. Collective on run.comm.

    Args:
        observers: the user's, and those that the config names.
    """

    def __init__(self, observers: Sequence[Observer]):
        self.observers = _named(observers)
        self.states: dict[str, dict] = {}
        """State by name of the observers that have one, as of the last call."""

    def start(self, run, moment):
        stored = moment.state.observers if run.is_resumed else {}
        for name in stored.keys() & self.observers.keys():
            self.observers[name].load(stored[name])
        return self._ask("start", run, moment)

    def step(self, run, moment):
        return self._ask("step", run, moment)

    def end(self, run, stop):
        for observer in self.observers.values():
            observer.end(run, stop)
        self._keep()

    def error(self, run, error):
        for name, observer in self.observers.items():
            try:
                observer.error(run, error)
            except Exception:  # the first error is what the user must see
                log.exception("observer %s failed while it was told of an error", name)

    def _ask(self, event: str, run, moment) -> Stop | None:
        """Call every observer, and return the first Stop."""
        stops = [getattr(observer, event)(run, moment) for observer in self.observers.values()]
        self._keep()
        return next((stop for stop in stops if stop is not None), None)

    def _keep(self) -> None:
        states = {name: observer.state() for name, observer in self.observers.items()}
        self.states = {name: copy.deepcopy(state) for name, state in states.items() if state}


def _named(observers: Sequence[Observer]) -> dict[str, Observer]:
    """{name: observer}. Another one of the same name gets a number. Local."""
    found: dict[str, Observer] = {}
    for observer in observers:
        name = base = getattr(observer, "name", type(observer).__name__)
        number = 2
        while name in found:
            name, number = f"{base}-{number}", number + 1
        found[name] = observer
    return found
