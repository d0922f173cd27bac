"""When a run ends: the target, the limits of the config, signals and the scheduler's time limit.

All ranks decide the same, because they use rank 0's clock and numbers that are reduced over ranks.
"""

import time

import numpy as np

from nedhpc.config import Config
from nedhpc.parallel.comm import maximum
from nedhpc.running.measured import Moment
from nedhpc.running.observers import Observer, Stop
from nedhpc.running.signals import LIMIT, MARGIN_SECONDS, StopSignals, describe, slurm_end
from nedhpc.running.trust import LARGE

FIRST_SHARE = 0.5
"""Share of run.max_wall_time that a run has if a second solution follows it."""


def time_limit(config: Config, is_compared: bool) -> float:
    """Seconds after which a run ends, infinity without a limit. Local.

    Args:
        config: the config.
        is_compared: True if a second solution follows the run.
    """
    limit = config.run.max_wall_time
    return np.inf if limit is None else limit * (FIRST_SHARE if is_compared else 1.0)


def ending(config: Config, moment: Moment, clock: "Clock", run_dir) -> Stop | None:
    """The reason why a run ends at this moment, or None. Local.

    Only this function decides it, for new and for resumed runs.

    Args:
        config: the config, of which the limits are used.
        moment: the state, and its error if that was measured.
        clock: the clock after its last look.
        run_dir: run folder, for the message.
    """
    limits, state, info = config.run, moment.state, moment.info
    error = None if moment.known is None else moment.known.relative_l2
    if error is not None and error <= limits.target_relative_l2:
        return Stop("converged", f"the target {limits.target_relative_l2:g} is reached")
    if info.steady:
        return Stop("converged", "the flow is steady by the tolerance of the time stepper")
    poor = moment.known is not None and moment.known.balanced_held_out_energy > LARGE
    if info.vanished and not poor:
        return Stop("converged", "the gradient vanished to rounding")
    if info.stalled:
        cause = f"; {info.cause}" if info.cause else ""
        return Stop("stalled", f"no step lowers the energy further{cause}")
    # A step that ends at max_time may miss it by rounding.
    if limits.max_time is not None and state.time >= limits.max_time * (1 - 1e-14):
        return Stop("max_time")
    if state.step >= limits.max_steps:
        return Stop("max_steps")
    if clock.seconds >= clock.limit:
        return Stop("wall_time")
    if clock.reason:
        return Stop(
            "stopped", f"stopped {describe(clock.reason)}; `nedhpc resume {run_dir}` continues"
        )
    return None


class Clock:
    """Wall time and reasons to stop, the same on every rank. Collective on comm.

    Args:
        comm: all ranks of the run.
        wall_before: seconds of wall time before this start or resume.
        started: time.monotonic() at this start or resume.
        signals: signals that may stop the run; default: none.
        limit: seconds after which the run ends.
    """

    def __init__(
        self,
        comm,
        wall_before: float,
        started: float,
        signals: StopSignals | None = None,
        limit: float = np.inf,
    ):
        self.comm, self.started, self.wall_before = comm, started, wall_before
        self.signals, self.limit = signals or StopSignals(), limit
        self.scheduled_end = slurm_end() if comm.rank == 0 else None
        self.longest_step = self.longest_save = 0.0
        self.last_step = 0.0  # seconds between the last two looks, the same on every rank
        self.wall_time, self.reason = wall_before, 0
        self._last_look: float | None = None

    @property
    def seconds(self) -> float:
        """Wall time since the run was started or continued, at the last look. Local."""
        return self.wall_time - self.wall_before

    @property
    def left(self) -> float:
        """Seconds until the limit, at the last look. Local."""
        return self.limit - self.seconds

    def look(self) -> None:
        """Set wall_time, including resumes, and reason: a signal, LIMIT or 0. Collective."""
        now, reason = time.monotonic(), self.signals.signal
        self.longest_step = max(self.longest_step, now - (self._last_look or now))
        self._last_look = now
        margin = MARGIN_SECONDS + 2 * (self.longest_step + self.longest_save)
        if self.scheduled_end is not None and self.scheduled_end - time.time() < margin:
            reason = LIMIT
        mine = now - self.started + self.wall_before if self.comm.rank == 0 else -np.inf
        wall_time, reason = maximum(self.comm, [mine, reason])
        self.last_step = float(wall_time) - self.wall_time
        self.wall_time, self.reason = float(wall_time), int(reason)


class Limits(Observer):
    """Ends the run if `ending` says so. The last state is measured first, for its error counts."""

    def start(self, run, moment):
        return self.step(run, moment)

    def step(self, run, moment):
        stop = ending(run.config, moment, run.clock, run.run_dir)
        if stop is not None and moment.known is None:
            moment.measured()
            stop = ending(run.config, moment, run.clock, run.run_dir)
        return stop
