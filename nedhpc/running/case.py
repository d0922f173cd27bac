"""A plan made concrete on this rank: device, parameters, flow, sample and evaluation."""

import os
import time

import torch
from torch import Tensor

from nedhpc.files.checkpoint import State
from nedhpc.flows.descent import Flow
from nedhpc.parallel.parameters import Parameters
from nedhpc.parallel.placement import (
    choose_device,
    choose_threads,
    given_threads,
    threads_per_rank,
    threads_worth_trying,
)
from nedhpc.plan import Plan
from nedhpc.running.evaluation import Evaluation
from nedhpc.sampling.points import Sampler
from nedhpc.sampling.sample import Sample
from nedhpc.solvers import SOLVERS
from nedhpc.steppers.ts import TimeStepper


class Case:
    """The objects of a run. Collective on comm.

    Args:
        comm: all ranks.
        plan: the same on every rank.
        threads: CPU threads of a rank before a resume; None for a new run.

    Raises:
        UsageError: the device is missing, or the problem's `exact` does not fit. The error is the
            same on every rank.
    """

    def __init__(self, comm, plan: Plan, threads: int | None = None):
        config, energy, problem = plan.config, plan.energy, plan.problem
        self.comm, self.plan, self.config = comm, plan, config
        self._stored_threads = threads
        self.device = choose_device(comm, config.device.type, config.device.threads or threads or 0)
        self.dtype = getattr(torch, config.device.dtype)
        coefficients = tuple(problem.coefficients)
        self.parameters = Parameters(
            comm, energy.num_network, coefficients, self.dtype, self.device
        )
        solver = None
        if plan.solver != "none":
            settings = config.solver.krylov if plan.solver == "krylov" else None
            solver = SOLVERS[plan.solver](comm, config.solver.rtol, settings)
        self.flow = Flow(comm, energy, plan.metric, solver, plan.is_factored)
        sampler = Sampler(
            comm.rank,
            comm.size,
            problem,
            plan.counts,
            config.sampling.rule,
            config.run.seed,
            self.device,
            self.dtype,
            config.sampling.grow_draws,
            {term.on for term in plan.terms if "n" in term.roles},
        )
        self.sample = Sample(comm, sampler, config.sampling.residual, energy.residual_size)
        self.evaluation = Evaluation(comm, plan, self.device, self.dtype)

    def draw_number(self, step: int) -> int:
        """Number of the draw that a step uses. Local."""
        every = self.config.sampling.resample_every
        return step // every if every else 0

    def draw(self, step: int, theta_P: Tensor | None = None) -> bool:
        """Put the step's draw into the sample and the flow; True if it is new.

        Collective on comm with rule `residual`, else local.

        Args:
            step: number of steps made.
            theta_P: parameters whose residual rule `residual` chooses by.
        """
        with self.flow.phases("sample"):
            is_new = self.sample.at(self.draw_number(step), theta_P)
        self.flow.sample = self.sample.points
        return is_new

    def take_up(self, state: State) -> Tensor:
        """The state's parameters on the device; its sample is put into the flow. Collective."""
        theta_P = self.parameters.join(state.theta_P, state.coefficients)
        self.sample.load(state.selection)
        self.draw(state.step, theta_P)
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
        draw, selection = self.draw_number(step), self.sample.state()
        return State(theta_P, coefficients, step, time, dt, stepper, draw=draw, selection=selection)

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
        worth_it = threads_worth_trying(self.plan.cost.flops) and self.device.type == "cpu"
        if given is None and worth_it and self.plan.solver != "none":
            share = threads_per_rank(self.comm)

            def time_step(_: int) -> float:
                started = time.perf_counter()
                self.flow.linearise(theta_P, 0.0).descent(1.0)
                return time.perf_counter() - started

            threads = choose_threads(self.comm, share, time_step)
        torch.set_num_threads(threads)
        return threads
