"""What an expert would change between steps: sample, scales, start, time windows. Collective.

Every CHECK_EVERY steps the energy on held-out points is compared with that on the sample:

- If it is more than OVERFIT times as large, as many points are chosen again where the residual is
  large; the sample is doubled if it is small, if that does not help, or if the energy is small.
- If the energy hardly falls any more, the outputs are rescaled by the solution itself and the rows
  are balanced again. If that was done, a state whose energy is above POOR is given up: a window in
  time is made shorter, and any other problem starts again with a wider network, if its size is the
  program's choice, or from other parameters. A window that did not help gets a wider network too.
- If the state of a window is good, the next window continues it.

All decisions use numbers that are the same on every rank, and their memory is part of the state, so
that a resumed run decides as an uninterrupted one.
"""

import dataclasses
import logging

import numpy as np

from nedhpc.errors import UsageError
from nedhpc.files.checkpoint import Piece, State
from nedhpc.plan import Plan
from nedhpc.problems.windows import why_not
from nedhpc.running.best import remember, remembered
from nedhpc.running.case import Case
from nedhpc.running.growth import carried_over, first_leg, wider_plan
from nedhpc.running.memory import check
from nedhpc.running.start import fresh, rebalanced
from nedhpc.running.trust import POOR, Known, known, moments
from nedhpc.sampling.points import ADAPTED

log = logging.getLogger("nedhpc")

CHECK_EVERY = 5
"""Steps between two checks."""
OVERFIT = 1.5
"""Ratio of the held-out energy to that of the sample from which the sample grows."""
ROUNDING = 1e-20
"""Energies below this are rounding errors: their ratio means nothing."""
SLOW, PATIENCE = 0.5, 4
"""The energy falls slowly if PATIENCE checks left more than the share SLOW of it."""
SLOW_IF_GOOD = 0.1
"""The share in place of SLOW in a window whose energy is below EASY: the next one can begin."""
HOPELESS, HOPELESS_STEPS, HOPELESS_FALL = 1e-2, 30, 0.2
"""A window whose energy is still above HOPELESS after so many steps is made shorter.

It may go on if PATIENCE checks left less than the share HOPELESS_FALL of its energy.
"""
GIVE_UP = 1e-4
"""Energy of a window above which a slow fall, without a stall, makes it shorter."""
WRONG = 0.1
"""A state with a larger energy tells nothing about the size of the solution."""
EASY = 1e-9
"""If a window ends with less energy, the next one is twice as long."""
RESCALE = 3.0
"""Ratio of an output's spread to its size from which the outputs are rescaled."""
MAX_RESCALES = 3
MAX_ROWS = 40
"""The sample grows to this many rows for each parameter at most."""
MAX_GROWTH = 8
ENOUGH_ROWS = 2
"""A sample of so many rows for each parameter is moved to the residual rather than doubled.

It is doubled if PATIENCE moves left more than the share SLOW of the held-out energy, or if that is
below POOR: even points then serve better than points at the largest residuals.
"""
NOISE_STEPS = 60
"""Steps without a lower energy on held-out rows after which a fit to data ends."""
MAX_STARTS = 3
"""Most starts of a problem without windows."""
KNOWN = ("error_M", "spread_M", "sensitivity", "error_f")
"""Fields of trust.Known that the memory holds: what is known of the windows before."""
KEPT = ("first_time", "starts", "first_draw", "can_widen", *KNOWN)
"""Entries of the memory that a new start keeps."""
SHORTEST = 2.0**-24
"""A window shorter than this share of the time interval is not tried."""


class Adaptation:
    """Decides between steps whether the run continues with another window, sample or scales.

    Args:
        run: the run, of which case, plan, clock and config are used.
        state: the state that the run starts or continues from.
    """

    def __init__(self, run, state: State):
        self.run, self.case, self.plan = run, run.case, run.plan
        """The case and plan with which the run goes on; the run takes them up after a change."""
        config = run.config
        reason = why_not(run.plan.problem, run.plan.terms)
        self.is_active = run.plan.stepper.lowers_energy
        self.has_windows = self.is_active and not reason and config.run.windows != 1
        self.adapts = config.sampling.adapt == "auto" and not config.sampling.resample_every
        is_residual = run.plan.energy.is_least_squares
        has_others = ADAPTED in run.plan.counts and run.plan.domain.parts[ADAPTED].dim > 0
        self.moves = config.sampling.rule != "grid" and is_residual and has_others
        """True if the sample may be moved to the residual."""
        check(state.adaptation, run.plan)
        self.memory = self._new_memory(**state.adaptation)
        self.ended = ""
        """The reason why the run ends; "" if it goes on."""

    def _new_memory(self, **known) -> dict:
        return {
            "energies": np.empty(0),
            "first_time": 0.0,
            "begun": self.run.clock.wall_time,
            "checks": 0,
            "rescales": 0,
            "starts": 1,
            "first_draw": 0,
            "can_widen": int(self.plan.chooses_hidden and not self.plan.data),
            "failed": 0,
            "held_out": np.empty(0),
            "moves": np.empty(0),
        } | known

    def change(self, theta_P, state: State, info) -> State | None:
        """The state to continue from after a change; None if nothing changes. Collective.

        Args:
            theta_P: parameters on the device.
            state: the state after a step.
            info: StepInfo of the step.
        """
        memory = self.memory
        if not self.is_active or (state.step % CHECK_EVERY and not info.stalled):
            return None
        E, held_out = float(info.E_K.sum()), self.case.held_out_energy(theta_P)
        for name, value in (("energies", E), ("held_out", held_out)):
            memory[name] = np.append(memory[name], value)[-PATIENCE - 1 :]
        if self._has_passed_the_minimum(theta_P, state):
            self.ended = (
                "the energy on held-out rows has passed its minimum, because the data are noisy or "
                f"the network is too large for them; the state after step {memory['best_step']} is "
                "kept"
            )
            return state
        memory["checks"] += 1
        if self._is_hopeless(held_out):
            other = self._give_up(theta_P, state, held_out)
            if other is not None:
                return other
        can_go_on = self.is_followed(state) and held_out < POOR
        if can_go_on and self._time_left(state) < 0:
            return self._next(theta_P, state, held_out)
        if self.adapts and held_out > OVERFIT * E and held_out > ROUNDING:
            if self._move_helps(state, held_out):
                return self._moved(state, held_out)
            grown = self._grow(state)
            if grown is not None:
                return grown
            if can_go_on:  # more steps on this sample would not help
                return self._next(theta_P, state, held_out)
            changed = None
            if info.stalled or _is_slow(memory["held_out"], SLOW):
                changed = self._slow(theta_P, state, held_out, info.stalled)
            if changed is None and self.moves:
                changed = self._moved(state, held_out)
            return changed
        is_good = state.window is not None and held_out < EASY
        share = SLOW_IF_GOOD if is_good else SLOW
        if not (info.stalled or _is_slow(memory["energies"], share)):
            return None
        return self._slow(theta_P, state, held_out, info.stalled)

    def _is_hopeless(self, held_out: float) -> bool:
        """True if this window is too long, so that its end need not be waited for."""
        enough = self.memory["checks"] * CHECK_EVERY >= HOPELESS_STEPS
        falls = held_out < HOPELESS_FALL * self.memory["held_out"][0]
        return self.has_windows and enough and held_out > HOPELESS and not falls

    def _move_helps(self, state: State, held_out: float) -> bool:
        """True if a move is likely to lower the energy more than a larger sample would."""
        leg, before = self.case.leg, self.memory["moves"]
        is_large = leg.num_rows >= ENOUGH_ROWS * leg.energy.num_parameters and state.growth >= 0
        helped = len(before) < PATIENCE or held_out < SLOW * before[0]
        return self.moves and is_large and helped and held_out > POOR

    def _grow(self, state: State) -> State | None:
        """Twice as many points; None if there is no more room for them."""
        leg = self.case.leg
        enough = leg.num_rows > MAX_ROWS * leg.energy.num_parameters or state.growth >= MAX_GROWTH
        larger = dataclasses.replace(
            state,
            growth=state.growth + 1,
            draw=state.draw and state.draw + 1,
            selection={},
            stepper={},
        )
        try:
            more = self.plan.leg(larger)
        except UsageError:
            return None
        if (
            enough
            or more.counts == leg.counts
            or not self._can_afford(more, self._time_left(state))
        ):
            return None
        self.memory |= {"energies": np.empty(0), "moves": np.empty(0)}
        self._say(
            state,
            f"the sample grows to {sum(more.counts.values())} points: the energy on "
            "held-out points has left that on the sample behind",
        )
        return rebalanced(self.case, larger)

    def _moved(self, state: State, held_out: float) -> State:
        """As many points, of which more lie where the residual is large."""
        memory = self.memory
        memory["energies"] = np.empty(0)
        memory["moves"] = np.append(memory["moves"], held_out)[-PATIENCE:]
        self._say(state, "the sample moves to where the residual is large")
        moved = dataclasses.replace(state, draw=state.draw + 1, selection={}, stepper={})
        return rebalanced(self.case, moved)

    def _slow(self, theta_P, state: State, held_out: float, stalled: bool) -> State | None:
        """What follows if the energy falls slowly or not at all."""
        memory = self.memory
        if memory["rescales"] < MAX_RESCALES and held_out < WRONG:
            memory["rescales"] += 1
            rescaled = self._rescaled(theta_P, state)
            if rescaled is not None:
                memory["energies"] = np.empty(0)
                return rescaled
        is_poor = held_out > (POOR if stalled else GIVE_UP)
        if self.has_windows:
            if is_poor:
                return self._give_up(theta_P, state, held_out)
            if self.is_followed(state):
                return self._next(theta_P, state, held_out)
        elif held_out > HOPELESS:
            wider = self._wider(theta_P, state, held_out)
            if wider is None and stalled and memory["starts"] < self.max_starts:
                return self._again(theta_P, state, held_out)
            return wider
        return None

    def _give_up(self, theta_P, state: State, held_out: float) -> State | None:
        """A shorter window; if that did not help before, a wider network."""
        wider = None
        if held_out > HOPELESS_FALL * self.memory["failed"] > 0:
            wider = self._wider(theta_P, state, held_out)
        return wider or self._shorter(state, held_out)

    def _wider(self, theta_P, state: State, held_out: float) -> State | None:
        """A new start with a wider network; None if the network is given or cannot be wider."""
        plan = wider_plan(self.plan) if self.memory["can_widen"] else None
        clock = self.run.clock
        if plan is None or not self._can_afford(first_leg(plan, state), clock.left):
            return None
        remember(self.case, self.memory, state, theta_P)
        wide, memory = carried_over(state, self.memory, self.plan.ansatz, plan.ansatz)
        self._say(
            state,
            f"the energy on held-out points stays at {held_out:.1e}; hidden layers "
            f"{plan.config.network.hidden} are tried",
        )
        self.case, self.plan = Case(self.case.comm, plan, device=self.case.device), plan
        self.memory = self._new_memory(**_kept(memory), **remembered(memory))
        return fresh(self.case, wide)

    @property
    def max_starts(self) -> int:
        limits = self.run.config.run
        if limits.initial is not None or limits.start == "random" and not limits.starts:
            return 1
        return limits.starts or MAX_STARTS

    def _again(self, theta_P, state: State, held_out: float) -> State:
        """Another start from other random parameters; the best state is remembered."""
        remember(self.case, self.memory, state, theta_P)
        starts = self.memory["starts"] + 1
        self._say(
            state,
            f"the energy on held-out points stays at {held_out:.1e}; start {starts} "
            "with other random parameters",
        )
        kept = _kept(self.memory)
        self.memory = self._new_memory(**kept | {"starts": starts}, **remembered(self.memory))
        draw = (int(kept["first_draw"]) + starts - 1) % self.max_starts
        return fresh(self.case, state, draw)

    def _has_passed_the_minimum(self, theta_P, state: State) -> bool:
        """True if the energy on held-out rows of noisy data has risen for some time."""
        has_rows = any(len(data.held_out_x) for data in self.plan.data.values())
        if not has_rows or not self.adapts:
            return False
        remember(self.case, self.memory, state, theta_P)
        return state.step - self.memory["best_step"] >= NOISE_STEPS

    @property
    def _times(self):
        domain = self.plan.problem.domain
        return float(domain.low[-1]), float(domain.high[-1])

    def is_followed(self, state: State) -> bool:
        """True if there is a window after the present one."""
        return state.window is not None and state.window[1] < self._times[1]

    def _time_left(self, state: State) -> float:
        """Seconds that are left of the present window's share; infinity without a limit."""
        clock = self.run.clock
        share = 1.0
        if state.window is not None:
            start, end = state.window
            share = (end - start) / (self._times[1] - start)
        begun = max(self.memory["first_time"], clock.wall_before)
        return share * (clock.limit - (begun - clock.wall_before)) - (clock.wall_time - begun)

    def _can_afford(self, more: Plan, left: float) -> bool:
        """True if some steps of a larger leg fit into the seconds that are left."""
        ratio = more.cost.flops / self.case.leg.cost.flops
        return 2 * CHECK_EVERY * ratio * self.run.clock.last_step <= left

    def _rescaled(self, theta_P, state: State) -> State | None:
        """Sizes of the outputs from the solution itself; None if they fit."""
        plan, case = self.plan, self.case
        if not plan.balanced or plan.config.network.scaling == "none":
            return None
        if plan.ansatz.linear_columns is None:
            return None
        mean_M, spread_M = moments(case, theta_P)
        old = plan.ansatz.scaling
        floor_M = 1e-8 * np.maximum(np.abs(mean_M), 1e-8 * old.size_M)
        ratio_M = np.maximum(spread_M, floor_M) / old.size_M
        if (ratio_M < RESCALE).all() and (ratio_M > 1 / RESCALE).all():
            return None
        new = old.outputs(mean_M, np.maximum(spread_M, floor_M))
        self._say(
            state,
            "the outputs are rescaled to the sizes "
            + ", ".join(f"{size:.3g}" for size in new.size_M),
        )
        resized = dataclasses.replace(
            state,
            theta_P=plan.ansatz.resized(state.theta_P, new),
            scaling=new.arrays,
            stepper={},
        )
        return rebalanced(case, resized)

    def _shorter(self, state: State, held_out: float) -> State | None:
        start, end = state.window or self._times
        first, last = self._times
        length = (end - start) / (4 if held_out > 1e-2 else 2)
        clock = self.run.clock
        spent = clock.wall_time - self.memory["begun"]
        if length < SHORTEST * (last - first) or clock.left < spent:
            return None
        self._say(
            state,
            f"the energy on held-out points stays at {held_out:.1e}; a shorter time "
            f"window is tried, from {start:.6g} to {start + length:.6g}",
        )
        return self._window(state, start, start + length, failed=held_out)

    def _next(self, theta_P, state: State, held_out: float) -> State:
        start, end = state.window
        piece = Piece(start, end, state.theta_P, state.scaling)
        found = self.known(theta_P)
        new_end = self._end_after(start, end, held_out)
        self._say(state, f"the next time window, from {end:.6g} to {new_end:.6g}")
        state = dataclasses.replace(state, pieces=(*state.pieces, piece), growth=0)
        before = {name: getattr(found, name) for name in KNOWN}
        return self._window(state, end, new_end, failed=0, **before)

    def _end_after(self, start: float, end: float, held_out: float) -> float:
        """End of the window that follows one from start to end."""
        first, last = self._times
        number = self.run.config.run.windows
        if number > 1:
            ends = np.linspace(first, last, number + 1)
            return float(ends[ends > end + 1e-9 * (last - first)][0])
        was_easy = self.memory["failed"] == 0 and held_out < EASY
        length = (end - start) * (2 if was_easy else 1)
        # The rest is not left shorter than half a window.
        return last if end + length > last - 0.5 * length else end + length

    def known(self, theta_P) -> Known:
        """What is known of the error, in this window and those before. Collective."""
        before = {name: self.memory[name] for name in KNOWN if name in self.memory}
        return known(self.case, theta_P, Known(**before) if before else None)

    def _window(self, state: State, start: float, end: float, failed: float, **before) -> State:
        kept = _kept(self.memory)
        if not failed:
            kept |= {"first_time": state.wall_time, **before}
        self.memory = self._new_memory(failed=failed, **kept)
        return fresh(self.case, dataclasses.replace(state, window=(start, end)))

    def _say(self, state, text):
        if self.case.comm.rank == 0:
            log.info("after step %d: %s", state.step, text)


def _kept(memory: dict) -> dict:
    """The entries of the memory that a new start keeps. Local."""
    return {name: memory[name] for name in KEPT if name in memory}


def _is_slow(energies: np.ndarray, share: float) -> bool:
    """True if PATIENCE checks left more than a share of the energy."""
    return len(energies) > PATIENCE and energies[-1] > share * energies[0]
