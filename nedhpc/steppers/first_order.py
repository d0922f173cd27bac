"""First-order baselines: torch.optim's SGD, Adam and L-BFGS on the same energy and the same samples as the flow's steppers.

The gradient is summed over ranks and the same on each, so every rank runs the same optimiser on the same numbers. The time t
advances by the learning rate. They know no metric and solve no system.
"""

import warnings

import numpy as np
import torch
from torch.optim import lr_scheduler

from nedhpc.errors import NonFiniteError
from nedhpc.steppers.base import StepInfo

SCHEDULES = {
    "constant": lambda optimizer, s: lr_scheduler.ConstantLR(optimizer, factor=1.0),
    "exponential": lambda optimizer, s: lr_scheduler.ExponentialLR(
        optimizer, s.schedule_end ** (1 / s.schedule_steps)
    ),
    "cosine": lambda optimizer, s: lr_scheduler.CosineAnnealingLR(
        optimizer, s.schedule_steps, s.lr * s.schedule_end
    ),
    "one_cycle": lambda optimizer, s: lr_scheduler.OneCycleLR(
        optimizer,
        s.lr,
        s.schedule_steps + 1,
        cycle_momentum=False,
        final_div_factor=1 / (25 * s.schedule_end),
    ),
}
"""Learning rate over schedule_steps steps, from lr (one_cycle: from lr / 25 up to lr) down to schedule_end lr, then held."""
LISTS, COUNTS = ("old_dirs", "old_stps", "ro"), ("func_evals", "n_iter")
"""What L-BFGS keeps as lists of tensors and as integers; all else that an optimiser keeps is a tensor."""


class FirstOrder:
    """Step rule step(theta, dt) -> (theta, next learning rate, info); its memory is the optimiser's and the schedule's step."""

    def __init__(self, flow, settings):
        self.flow, self.settings = flow, settings
        self.parameter = None
        self.memory = {}

    def _build(self, theta_P):
        """The optimiser on a tensor like theta, with the memory of a checkpoint. The schedule is replayed, not stored, so that
        settings changed on resume count."""
        self.parameter = torch.nn.Parameter(theta_P.clone())
        self.optimizer = self.optimiser([self.parameter])
        self.schedule = SCHEDULES[self.settings.schedule](self.optimizer, self.settings)
        memory = dict(self.memory)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            for _ in range(int(memory.pop("schedule_step", 0))):
                self.schedule.step()
        tensor = lambda x: torch.as_tensor(x, device=theta_P.device)
        for name, value in memory.items():
            self.optimizer.state[self.parameter][name] = (
                int(value)
                if name in COUNTS
                else [tensor(x) for x in value]
                if name in LISTS
                else tensor(value)
            )

    def state(self):
        if self.parameter is None:
            return self.memory
        memory = {"schedule_step": self.schedule.last_epoch}
        for name, value in self.optimizer.state[self.parameter].items():
            if name in LISTS:
                memory[name] = np.stack([x.cpu().numpy() for x in value]) if value else np.empty(0)
            elif torch.is_tensor(value):
                memory[name] = value.cpu().numpy().copy()
            elif name != "al":  # L-BFGS's scratch space
                memory[name] = value
        return {name: value for name, value in memory.items() if value is not None}

    def load(self, state):
        self.memory, self.parameter = state, None

    def step(self, theta_P, dt):
        """Collective on the flow's comm. Cost: one gradient; L-BFGS: at least one for each of its iterations."""
        if self.parameter is None:
            self._build(theta_P)
        self.parameter.data.copy_(theta_P)
        lr = self.optimizer.param_groups[0]["lr"]
        self.fresh = True
        self.optimizer.step(self._closure)
        if self.schedule.last_epoch < self.settings.schedule_steps:
            self.schedule.step()
        return self.parameter.detach().clone(), self.optimizer.param_groups[0]["lr"], StepInfo(lr)

    def _closure(self):
        """Energy and gradient at the parameter."""
        self.parameter.grad, E_K = self.flow.gradient(self.parameter.detach())
        E = float(E_K.sum())
        # A line search may try a point where the energy overflows; the step's own start must be finite.
        if self.fresh and not np.isfinite(E + float(self.parameter.grad.sum())):
            raise NonFiniteError(
                "the energy or its gradient is not finite; the likely cause is a learning rate that is too large, or a "
                "problem function that divides by zero or takes a root or log of a negative number"
            )
        self.fresh = False
        return E


class Sgd(FirstOrder):
    def optimiser(self, parameters):
        s = self.settings
        return torch.optim.SGD(parameters, lr=s.lr, momentum=s.momentum, nesterov=s.nesterov)


class Adam(FirstOrder):
    def optimiser(self, parameters):
        return torch.optim.Adam(parameters, lr=self.settings.lr, betas=self.settings.betas)


class Lbfgs(FirstOrder):
    def optimiser(self, parameters):
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


BASELINES = {"sgd": Sgd, "adam": Adam, "lbfgs": Lbfgs}
