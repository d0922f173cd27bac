"""First-order baselines: torch.optim's SGD, Adam and L-BFGS on the flow's energy and samples.

The gradient is summed over ranks and is the same on each, so every rank runs the same optimiser on
the same numbers. The time t advances by the learning rate. These rules use no metric and solve no
system.
"""

import warnings
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch.optim import lr_scheduler

from nedhpc.config import Count, Positive, Section
from nedhpc.errors import NotAStateError
from nedhpc.steppers.base import StepInfo, StepRule


class Schedule(Section):
    """The learning rate of a first-order stepper as a function of the step."""

    schedule: Literal["constant", "exponential", "cosine", "one_cycle"] = "constant"
    """Its fall from lr to schedule_end times lr. one_cycle first rises from lr / 25 to lr."""
    schedule_steps: Count = 2000
    """Length of the schedule in steps. After it the learning rate stays the same."""
    schedule_end: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Last learning rate, in units of lr."""


SCHEDULES = {
    "constant": lambda optimiser, s: lr_scheduler.ConstantLR(optimiser, factor=1.0),
    "exponential": lambda optimiser, s: lr_scheduler.ExponentialLR(
        optimiser, s.schedule_end ** (1 / s.schedule_steps)
    ),
    "cosine": lambda optimiser, s: lr_scheduler.CosineAnnealingLR(
        optimiser, s.schedule_steps, s.lr * s.schedule_end
    ),
    "one_cycle": lambda optimiser, s: lr_scheduler.OneCycleLR(
        optimiser,
        s.lr,
        s.schedule_steps + 1,
        cycle_momentum=False,
        final_div_factor=1 / (25 * s.schedule_end),
    ),
}
"""torch's schedule of each name, built for an optimiser and its settings."""
LISTS, COUNTS, SCRATCH = ("old_dirs", "old_stps", "ro"), ("func_evals", "n_iter"), ("al",)
"""Entries of L-BFGS' state that are lists of tensors, integers, and scratch space.

All other entries of an optimiser's state are tensors.
"""


class FirstOrder(StepRule):
    """Steps of a torch optimiser. The memory is the optimiser's state and the schedule's step."""

    uses_solver = uses_metric = False

    def __init__(self, flow, settings):
        super().__init__(flow, settings)
        self.parameter = None
        self.memory = {}

    def optimiser_of(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimiser of these parameters, with this rule's settings."""
        raise NotImplementedError

    def _build(self, theta_P):
        """Build the optimiser of a tensor like theta, and give it the memory of a checkpoint."""
        self.parameter = torch.nn.Parameter(theta_P.clone())
        self.optimiser = self.optimiser_of([self.parameter])
        self.schedule = SCHEDULES[self.settings.schedule](self.optimiser, self.settings)
        memory = dict(self.memory)
        # Repeat the schedule up to its step instead of restoring its state, so that a resumed run
        # may change the schedule.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for _ in range(min(int(memory.pop("schedule_step", 0)), self.settings.schedule_steps)):
                self.schedule.step()
        state = self.optimiser.state[self.parameter]
        for name, value in memory.items():
            if name in COUNTS:
                state[name] = int(value)
            elif name in LISTS:
                state[name] = [torch.tensor(x, device=theta_P.device) for x in value]
            else:  # a copy, because the optimiser changes it in place
                state[name] = torch.tensor(value, device=theta_P.device)

    def state(self):
        if self.parameter is None:
            return self.memory
        memory = {"schedule_step": self.schedule.last_epoch}
        for name, value in self.optimiser.state[self.parameter].items():
            if name in LISTS:
                memory[name] = np.stack([x.cpu().numpy() for x in value]) if value else np.empty(0)
            elif torch.is_tensor(value):
                memory[name] = value.cpu().numpy().copy()
            elif name not in SCRATCH:
                memory[name] = value
        return {name: value for name, value in memory.items() if value is not None}

    def load(self, state):
        self.memory, self.parameter = state, None

    def step(self, theta_P, t, dt):
        """One step. Collective on the flow's comm.

        Cost: one gradient; for L-BFGS at least one for each of its iterations.
        """
        if self.parameter is None:
            self._build(theta_P)
        self.parameter.data.copy_(theta_P)
        lr = self.optimiser.param_groups[0]["lr"]
        self.t, self.is_first_gradient = t, True
        self.optimiser.step(self._closure)
        if self.schedule.last_epoch < self.settings.schedule_steps:
            self.schedule.step()
        return self.parameter.detach().clone(), self.optimiser.param_groups[0]["lr"], StepInfo(lr)

    def _closure(self):
        """Return the energy, and set `parameter.grad` to its gradient."""
        self.parameter.grad, E_K = self.flow.gradient(self.parameter.detach(), self.t)
        E = float(E_K.sum())
        # The energy must be finite at the start of the step. Later a line search may try a point at
        # which it overflows; it recovers from that.
        if self.is_first_gradient and not np.isfinite(E + float(self.parameter.grad.sum())):
            raise self.flow.non_finite(
                self.parameter.detach(),
                "the energy or its gradient",
                "a learning rate that is too large",
            )
        self.is_first_gradient = False
        return E


class Sgd(FirstOrder):
    """Stochastic gradient descent, with momentum if the setting is above 0."""

    name = "sgd"
    memory_shapes = {"schedule_step": "", "momentum_buffer": "?P"}

    class Settings(Schedule):
        """[stepper.sgd]."""

        lr: Positive = 0.01
        """Learning rate."""
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
        nesterov: bool = False
        """Nesterov's momentum instead of the plain one."""

        @model_validator(mode="after")
        def _nesterov_has_momentum(self):
            if self.nesterov and not self.momentum:
                raise ValueError("nesterov = true needs momentum > 0")
            return self

    def optimiser_of(self, parameters):
        s = self.settings
        return torch.optim.SGD(parameters, lr=s.lr, momentum=s.momentum, nesterov=s.nesterov)


class Adam(FirstOrder):
    """Adam (arXiv:1412.6980)."""

    name = "adam"
    memory_shapes = {"schedule_step": "", "step": "", "exp_avg": "P", "exp_avg_sq": "P"}

    class Settings(Schedule):
        """[stepper.adam]."""

        lr: Positive = 1e-3
        """Learning rate."""
        betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
            0.9,
            0.999,
        )
        """Decay rates of the averages of the gradient and of its square."""

    def optimiser_of(self, parameters):
        return torch.optim.Adam(parameters, lr=self.settings.lr, betas=self.settings.betas)


class Lbfgs(FirstOrder):
    """L-BFGS, with several iterations in a step on the step's sample."""

    name = "lbfgs"
    vectors = dict.fromkeys(("d", "prev_flat_grad"), "?P")
    numbers = dict.fromkeys(("t", "H_diag", "prev_loss"), "?")
    pairs = {"old_dirs": "?kP", "old_stps": "?kP", "ro": "?k"}
    memory_shapes = {"schedule_step": "", "func_evals": "", "n_iter": ""}
    memory_shapes |= vectors | numbers | pairs

    class Settings(Schedule):
        """[stepper.lbfgs]."""

        lr: Positive = 1.0
        """Factor of the line search's first trial step; of every step if there is no search."""
        history: Count = 50
        """Number of pairs of steps and gradient differences that are kept."""
        iterations: Count = 20
        """L-BFGS iterations in a step, all on the step's sample."""
        line_search: Literal["strong_wolfe", "none"] = "strong_wolfe"

    def load(self, state):
        if state["n_iter"] and self.memory_shapes.keys() - state.keys():
            raise NotAStateError("a part of the checkpoint's memory of the stepper is missing")
        super().load(state)

    def optimiser_of(self, parameters):
        s = self.settings
        return torch.optim.LBFGS(
            parameters,
            lr=s.lr,
            max_iter=s.iterations,
            history_size=s.history,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn=None if s.line_search == "none" else s.line_search,
        )
