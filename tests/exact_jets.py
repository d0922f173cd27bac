"""Residuals of a problem's terms at a known function, with derivatives by autograd."""

import numpy as np
import torch

from nedhpc.ansatz import jets
from nedhpc.problems.base import declared_terms
from nedhpc.problems.bound import argument_roles


class ExactJets:
    """The jets of a torch function u, (N, D) -> (N, M), at points, by name."""

    def __init__(self, problem, u, x_ND):
        self._problem = problem
        self._x_ND = x_ND.clone().requires_grad_()
        self._known = {(): u(self._x_ND)}

    @property
    def values(self):
        return self._known[()].detach()

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        problem = self._problem
        layout = jets.parse((name,), tuple(problem.outputs), problem.coordinates)
        ((_, channel, output),) = layout.entries
        if isinstance(channel, tuple):
            return torch.stack([self._channel(layout, c, output) for c in channel], 1)
        return self._channel(layout, channel, output)

    def _channel(self, layout, channel, output):
        parts = [self._derivative(alpha)[:, output] for alpha in layout.members[channel]]
        return torch.stack(parts).sum(0).detach()

    def _derivative(self, alpha):
        """All outputs' derivative with the multi-index alpha, (N, M)."""
        if alpha not in self._known:
            lower = self._derivative(alpha[:-1])
            columns = [self._gradient(column)[:, alpha[-1]] for column in lower.unbind(1)]
            self._known[alpha] = torch.stack(columns, 1)
        return self._known[alpha]

    def _gradient(self, column_N):
        if not column_N.requires_grad:
            return torch.zeros_like(self._x_ND)
        return torch.autograd.grad(
            column_N.sum(), self._x_ND, create_graph=True, materialize_grads=True, allow_unused=True
        )[0]


def term_points(problem, on, count, low=None):
    """Points (N, D) of a part or of the data, with targets or None and normals or None.

    Args:
        problem: the problem.
        on: a part of its domain, or "data".
        count: number of candidates in the unit cube.
        low: least value of the last coordinate on the interior; None: all values.
    """
    if on == "data":
        return *map(torch.as_tensor, (problem.data.x_ND, problem.data.y_NM)), None
    part = problem.domain.parts[on]
    if part.dim == 0:
        x_ND = part.grid(part.num_points, 0, part.num_points)
    else:
        x_ND, accepted = part.points(np.random.default_rng(0).random((count, part.unit_dim)))
        x_ND = x_ND[accepted]
    if low is not None and on == "interior":
        x_ND = x_ND[x_ND[:, -1] > low]
    return torch.as_tensor(x_ND), None, part.normal(x_ND) if part.outward else None


def term_residuals(problem, u, count=200, low=None, coefficients=None):
    """{term: residual (N, K)} of a torch function u, (N, D) -> (N, M), at random points."""
    found = {}
    for term in declared_terms(problem):
        if low is not None and term.on != "interior":
            continue  # u is not known there
        x, y, n = term_points(problem, term.on, count, low)
        n = None if n is None else torch.as_tensor(n)
        given = {"x": x, "y": y, "n": n, "t": x[:, -1], "c": coefficients}
        given["j"] = ExactJets(problem, u, x)
        method = getattr(problem, term.name)
        value = method(*(given[role] for role in argument_roles(method, term.name)))
        found[term.name] = value.detach().reshape(len(x), -1)
    return found


def perturbed(problem, u, size, low=None):
    """u plus a wave of `size` times the largest |u| of each output."""
    first, last = (torch.as_tensor(b) for b in (problem.domain.low, problem.domain.high))
    x, _, _ = term_points(problem, "interior", 500, low)
    scale = u(x).detach().abs().amax(0)

    def wave(x):
        return (
            u(x) + size * scale * torch.cos(3 * ((x - first) / (last - first)).sum(1) + 1)[:, None]
        )

    return wave


def relative_residuals(problem, u, low=None, **options):
    """{term, component: residual of u over that of u with a wave of 5 %}, both root mean squares.

    It is near rounding error if u solves the problem, and of order one if it does not.
    """
    exact = term_residuals(problem, u, low=low, **options)
    wrong = term_residuals(problem, perturbed(problem, u, 0.05, low), low=low, **options)
    return {
        (name, k): float(exact[name][:, k].norm() / wrong[name][:, k].norm())
        for name in exact
        for k in range(exact[name].shape[1])
    }
