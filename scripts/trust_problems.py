"""Random problems with known solutions, each an ordinary problem of a user: see bench_trust.py.

In a config, `name = "trust_problems.py:Trust"` with the options `index` and `seed` chooses one.
The class does not define `exact`, so that the solver does not know the solution; `answer` is read
only after the run. It uses nothing that the first edition does not have: `terms` and their jets
are given explicitly.
"""

import numpy as np
import torch
import trust_cases
import trust_others

import nedhpc

KINDS = {
    name: getattr(module, name)
    for module, names in (
        (trust_cases, ("constant", "varying", "sizes", "offset", "front", "reaction", "flux")),
        (trust_cases, ("system", "heat", "heat_flux", "square", "burgers", "convection")),
        (trust_cases, ("wave", "reacting")),
        (trust_others, ("population", "kinetics", "contradictory", "missing", "noisy")),
    )
    for name in names
}
"""{kind: its function}. Problem `index` has the kind number index mod 20."""
UNANSWERABLE = ("contradictory", "missing")
"""Kinds whose problems have no right answer."""


def kind_of(index: int) -> str:
    """The kind of a problem."""
    return list(KINDS)[index % len(KINDS)]


class Trust(nedhpc.Problem):
    """Problem number `index` of the set that `seed` gives."""

    def __init__(self, *, index: int = 0, seed: int = 0):
        self.kind = kind_of(index)
        rng = np.random.default_rng([seed, index])
        self.case = case = KINDS[self.kind](rng, index // len(KINDS))
        self.domain, self.outputs, self.data = case.domain, case.outputs, case.data
        self.terms = [
            nedhpc.Residual(name, on=condition.on, jets=self._jets(condition))
            for name, condition in case.conditions.items()
        ]

    def answer(self, x_ND: np.ndarray) -> np.ndarray | None:
        """The solution at x, (N, M), or None if there is no right answer."""
        if not self.case.has_answer:
            return None
        if self.case.answer is not None:
            return self.case.answer(x_ND)
        x = torch.as_tensor(x_ND)
        return np.stack([field(x).numpy() for field in self.case.fields.values()], 1)

    def _jets(self, condition):
        """Names of the jets that the operator uses, found by a call."""
        used = Recorder(sum(name != "t" for name in self.domain.coordinates))
        condition.operator(torch.as_tensor(self.domain.low)[None], used)
        return tuple(used.names)

    def _misfit(self, name, x, j):
        condition = self.case.conditions[name]
        value = columns(condition.operator(x, j))
        if self.case.fields:
            value = value - columns(condition.operator(x, self.case.jets(x)))
        if condition.shift is not None:
            value = value - condition.shift(x)[:, None]
        return value

    def pde(self, x, j, c):
        return self._misfit("pde", x, j)

    def wall(self, x, j, c):
        return self._misfit("wall", x, j)

    def start(self, x, j, c):
        return self._misfit("start", x, j)

    def again(self, x, j, c):
        return self._misfit("again", x, j)

    def fit(self, x, j, c, y):
        return columns(self.case.conditions["fit"].operator(x, j)) - y


class Recorder:
    """Jets that are one at one point, and the names that were asked for."""

    def __init__(self, num_space):
        self.num_space, self.names = num_space, {}

    def __getattr__(self, name):
        self.names[name] = None
        shape = (1, self.num_space) if name.startswith("grad_") else (1,)
        return torch.ones(shape, dtype=torch.float64)


def columns(value):
    """A tensor (N,) or a list of them as (N, K)."""
    return torch.stack(list(value) if isinstance(value, list) else [value], 1)
