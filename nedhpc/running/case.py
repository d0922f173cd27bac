"""A plan made concrete on this rank: device, parameters, flow, sample and evaluation."""

import logging
import os
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nedhpc.files.checkpoint import State
from nedhpc.flows.descent import Flow
from nedhpc.flows.energy import Energy
from nedhpc.flows.evolution import Evolution
from nedhpc.flows.integrals import integrated
from nedhpc.flows.stage import Desk
from nedhpc.parallel.comm import maximum, total
from nedhpc.parallel.parameters import Parameters
from nedhpc.parallel.phases import Phases
from nedhpc.parallel.placement import (
    choose_device,
    choose_threads,
    given_threads,
    threads_per_rank,
    threads_worth_trying,
)
from nedhpc.plan import Plan
from nedhpc.problems.integrals import sampled
from nedhpc.running.evaluation import Evaluation
from nedhpc.sampling.points import Points, Sampler
from nedhpc.sampling.sample import Sample
from nedhpc.solvers import SOLVERS
from nedhpc.steppers.ts import TimeStepper

log = logging.getLogger("nedhpc")


class Case:
    """The objects of a run. Collective on comm.

    Args:
        comm: all ranks.
        plan: the same on every rank.
        threads: CPU threads of a rank before a resume; None for a new run.
        device: this rank's; default: chosen among the ranks of its node.

    Raises:
        UsageError: the device is missing, or the problem's `exact` does not fit. The error is the
            same on every rank.
    """

    def __init__(
        self,
        comm,
        plan: Plan,
        threads: int | None = None,
        device: torch.device | None = None,
    ):
        config, problem = plan.config, plan.problem
        self.comm, self.plan, self.config = comm, plan, plan.config
        self._stored_threads = threads
        self.begin()
        given = config.device.threads or threads or 0
        self.device = device or choose_device(comm, config.device.type, given)
        self.dtype = getattr(torch, config.device.dtype)
        coefficients = tuple(problem.coefficients)
        self.parameters = Parameters(
            comm, plan.energy.num_network, coefficients, self.dtype, self.device
        )
        self.phases = Phases()
        self.evaluation = Evaluation(comm, plan, self.device, self.dtype)
        self._leg: tuple | None = None
        self._draw = 0
        self._enter(State(np.empty(0), {}, 0, 0.0, config.stepper.dt))

    def begin(self) -> None:
        """Note that a start begins, for `has_spent`. Local."""
        self._begun = time.monotonic()

    def has_spent(self, share: float) -> bool:
        """True if a start took more than a share of run.max_wall_time so far. Collective."""
        limit = self.config.run.max_wall_time
        if limit is None:
            return False
        seconds = time.monotonic() - self._begun if self.comm.rank == 0 else -np.inf
        return float(maximum(self.comm, [seconds])[0]) > share * limit

    def _enter(self, state: State) -> None:
        """Build flow and sample for a state's window, scales and size of the sample.

        They are kept if the last state had the same.
        """
        names = ("scaling", "reference_P", "growth", "window", "pieces")
        leg = tuple(getattr(state, name) for name in names)
        if self._leg is not None and all(a is b for a, b in zip(leg, self._leg, strict=True)):
            return
        self._leg, base = leg, self.plan
        self.leg = plan = base.enter(state)
        solver = None
        if plan.solver != "none":
            settings = self.config.solver.krylov if plan.solver == "krylov" else None
            solver = SOLVERS[plan.solver](self.comm, self.config.solver.rtol, settings)
        given = (self.comm, plan.energy, plan.metric, solver, plan.is_factored, self.phases)
        self.flow = Flow(*given) if plan.desk is None else self._evolution(plan.desk, given)
        conserved = () if plan.desk is None else plan.desk.conserved
        sampler = Sampler(
            self.comm.rank,
            self.comm.size,
            plan.domain,
            base.data,
            plan.counts,
            self.config.sampling.rule,
            self.config.run.seed,
            self.device,
            self.dtype,
            self.config.sampling.grow_draws,
            {term.on for term in (*sampled(plan.terms), *conserved) if "n" in term.roles},
        )
        sampling = self.config.sampling
        # Without resample_every, only running.adaptation draws again: to follow the residual.
        by_residual = sampling.rule == "residual" or not sampling.resample_every
        self.sample = Sample(
            self.comm, sampler, by_residual, sampling.residual, self._residual_size
        )
        self._held_out = self._balanced(sampler.held_out(base.counts))
        self.evaluation.pieces = plan.pieces

    def _evolution(self, desk: Desk, given: tuple) -> Evolution:
        """The flow of a march. Its steps meet the times of output and the end."""
        config = self.config
        stops = sorted({*config.output.times, config.run.max_time})
        return Evolution(desk, stops, config.flow.parameters == "last_layer", *given)

    def say_scales(self) -> None:
        """Log the scales and sizes in use. Local."""
        if self.comm.rank or not self._leg[0]:
            return
        scaling, balance = self.plan.ansatz.scaling, self.leg.energy.balance
        names = self.plan.problem.outputs
        text = [f"{u} = {o:.4g} + {s:.4g} v" for u, o, s in zip(names, *scaling.sizes, strict=True)]
        for name, size_K in balance.typical.items() if balance else ():
            text.append(f"{name} / {', '.join(f'{size:.2g}' for size in size_K.tolist())}")
        log.info("scales: %s", "; ".join(text))

    def _balanced(self, points: dict[str, Points]) -> dict[str, Points]:
        """The points with the factors of the balance."""
        energy = self.leg.energy
        return {on: replace(p, factors=energy.factors(on, p)) for on, p in points.items()}

    def _residual_size(self, theta_P: Tensor, on: str, x_ND: Tensor) -> Tensor:
        """|r| (N,) at points of a part. Collective."""
        return self._integrated(theta_P, self.held_out).residual_size(theta_P, on, x_ND)

    def _integrated(self, theta_P: Tensor, points: dict[str, Points]) -> Energy:
        """The energy of the leg with the values of its integrals. Collective."""
        return integrated(self.comm, self.leg.energy, theta_P, points, slopes=False)

    @property
    def held_out(self) -> dict[str, Points]:
        """Points that are not trained on; in a march with the base of the present stage. Local."""
        flow = self.flow
        return flow.posed(self._held_out) if isinstance(flow, Evolution) else self._held_out

    def held_out_energy(self, theta_P: Tensor) -> float:
        """Energy on the held-out points. Collective. Cost: a residual at these points."""
        points = self.held_out
        with torch.no_grad():
            E_K, _ = self._integrated(theta_P, points).evaluate(theta_P, points)
        return float(total(self.comm, E_K.cpu().numpy()).sum())

    def held_out_energies(self, theta_P: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Energies on the held-out points by term: (as written, balanced), (K,). Collective."""
        points = self.held_out
        energy = self._integrated(theta_P, points)
        with torch.no_grad():
            balanced_K, _ = energy.evaluate(theta_P, points)
        both = torch.cat([energy.as_written(theta_P, points), balanced_K.double()])
        written_K, balanced_K = np.split(total(self.comm, both.cpu().numpy()), 2)
        return written_K, balanced_K

    def energies_as_written(
        self, theta_P: Tensor, E_K: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Energies by term as the user wrote them, and the balanced held-out one. Collective.

        Args:
            theta_P: parameters, (P,).
            E_K: balanced energy by term on the sample.

        Returns:
            (those on the sample, those on the held-out points, the balanced sum on these).
        """
        energy, (written_K, balanced_K) = self.leg.energy, self.held_out_energies(theta_P)
        if energy.balance is None:
            return np.asarray(E_K), written_K, float(balanced_K.sum())
        sample = self.flow.sample
        sample_K = self._integrated(theta_P, sample).as_written(theta_P, sample)
        return total(self.comm, sample_K.cpu().numpy()), written_K, float(balanced_K.sum())

    def conserved(self, theta_P: Tensor) -> dict[str, float]:
        """The conserved quantities of a march by name. Collective."""
        flow = self.flow
        if not isinstance(flow, Evolution):
            return {}
        return dict(zip(flow.quantity_names, flow.quantities(theta_P).tolist(), strict=True))

    def draw_number(self, step: int) -> int:
        """Number of the draw that a step uses. Local."""
        every = self.config.sampling.resample_every
        return step // every if every else self._draw

    def draw(self, step: int, theta_P: Tensor | None = None) -> bool:
        """Put the step's draw into the sample and the flow; True if it is new.

        Collective on comm if the points are chosen by the residual.

        Args:
            step: number of steps made.
            theta_P: parameters whose residual they are chosen by.
        """
        with self.flow.phases("sample"):
            is_new = self.sample.at(self.draw_number(step), theta_P)
            if is_new or self.flow.sample is None:
                self.flow.sample = self._balanced(self.sample.points)
        return is_new

    def take_up(self, state: State) -> Tensor:
        """The state's parameters on the device; its sample is put into the flow. Collective."""
        self._enter(state)
        self._draw = state.draw
        theta_P = self.parameters.join(state.theta_P, state.coefficients)
        self.sample.load(state.selection)
        self.flow.sample = None
        self.draw(state.step, theta_P)
        if isinstance(self.flow, Evolution):
            self.flow.rest(theta_P, state.time)
        return theta_P

    def state(self, parameters: Tensor, step: int, time: float, dt: float, stepper: dict) -> State:
        """The State after a step, without its wall time. Local.

        Args:
            parameters: theta and the coefficients, (P,).
            step: number of steps made.
            time: time of the flow.
            dt: time step for the next step.
            stepper: the stepper's own state.
        """
        theta_P, coefficients = self.parameters.split(parameters)
        scaling, reference_P, growth, window, pieces = self._leg
        return State(
            theta_P,
            coefficients,
            step,
            time,
            dt,
            stepper,
            draw=self.draw_number(step),
            selection=self.sample.state(),
            scaling=scaling,
            reference_P=reference_P,
            growth=growth,
            window=window,
            pieces=pieces,
        )

    def time_stepper(self) -> TimeStepper:
        """A TimeStepper for the config, to be used as a context manager. Collective."""
        limits = self.config.run
        return TimeStepper(
            self.comm,
            self.flow,
            self.config.stepper,
            self.parameters,
            limits.max_steps,
            limits.max_time,
        )

    def set_threads(self, theta_P: Tensor) -> int:
        """Set and return this rank's CPU threads: the given number, or a measured one. Collective.

        If a step has little work, one thread is used without a measurement, so that a run is
        repeatable to the bit.
        """
        given = given_threads(self.config.device.threads, os.environ, self._stored_threads)
        threads = given or 1
        worth_it = threads_worth_trying(self.leg.cost.flops) and self.device.type == "cpu"
        if given is None and worth_it and self.plan.solver != "none":
            share = threads_per_rank(self.comm)

            def time_step(_: int) -> float:
                started = time.perf_counter()
                self.flow.linearise(theta_P, 0.0).descent(1.0)
                return time.perf_counter() - started

            threads = choose_threads(self.comm, share, time_step)
        torch.set_num_threads(threads)
        return threads
