"""Metrics of the parameters, M = B^T B + eps I. Each is a class that is found by its name.

A flow descends in the geometry of its metric: M theta_dot = -g. The rows B are distributed over the
ranks as the sample's points are; this file is local and communicates nothing.
"""

from typing import ClassVar

import torch

from nedhpc.ansatz import jets
from nedhpc.errors import ConfigError
from nedhpc.flows.energy import Energy
from nedhpc.names import subclasses_by_name, unknown
from nedhpc.problems.data import named_sets


class Metric:
    """A metric M = B^T B + eps I for one energy.

    A new metric is a subclass with a `name`, by which a config finds it, and `rows`.

    Args:
        energy: the energy.
        eps: Tikhonov parameter.
    """

    name: ClassVar[str]
    is_dense: ClassVar[bool] = True
    """True if implicit steps need the upper triangle R_M with R_M^T R_M = M.

    It takes 8 P^2 bytes and O(P^3) work.
    """
    needs_rows: ClassVar[bool] = False
    """True if `rows` needs the energy's rows A."""

    def __init__(self, energy: Energy, eps: float):
        self.energy, self.eps = energy, eps
        self.rows_are_the_energys = False
        """True if B is the energy's A. The descent direction then solves least squares on A."""

    def rows(self, theta_P: torch.Tensor, sample, A=None):
        """This rank's rows B at theta, as an operator; None if M is the identity. Local.

        Cost O(N P).

        Args:
            theta_P: parameters, (P,).
            sample: {part: Points} of this rank.
            A: the energy's rows at theta, if the metric needs them or they are already known.
        """
        raise NotImplementedError


class Euclidean(Metric):
    """M = I: the flow is the plain gradient flow. It does not use eps."""

    name = "euclidean"
    is_dense = False

    def rows(self, theta_P, sample, A=None):
        return None


class JetMetric(Metric):
    """B = sqrt(w) times the parameter Jacobian of some jets of u.

    The points are the sample in the interior and the data, as far as terms use them. M is then the
    quadrature of the integral of (d jet / d theta)^T (d jet / d theta).
    """

    def __init__(self, energy, eps):
        super().__init__(energy, eps)
        problem = energy.problem
        layout = jets.parse(self.jets(problem.outputs), problem.outputs, problem.coordinates)
        known = ("interior", *named_sets(problem.data))
        self.layouts = dict.fromkeys((t.on for t in energy.terms if t.on in known), layout)

    def jets(self, outputs: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the jets that the metric measures."""
        raise NotImplementedError

    def rows(self, theta_P, sample, A=None):
        return self.energy.metric_rows(theta_P, sample, self.layouts)


class L2(JetMetric):
    """The L2 norm of du/dt: B = sqrt(w) du/dtheta.

    Reference: Bruna, Peherstorfer and Vanden-Eijnden, arXiv:2203.01360.
    """

    name = "l2"

    def __init__(self, energy, eps):
        super().__init__(energy, eps)
        self.rows_are_the_energys = energy.is_misfit

    def jets(self, outputs):
        return tuple(outputs)


class H1(JetMetric):
    """The H1 norm of du/dt: B has the rows of u and those of its gradient."""

    name = "h1"

    def jets(self, outputs):
        return (*outputs, *(f"grad_{u}" for u in outputs))


class EnergyMetric(Metric):
    """B = A, the energy's own scaled rows: M is the Gauss-Newton matrix of the energy."""

    name = "energy"
    needs_rows = True

    def __init__(self, energy, eps):
        super().__init__(energy, eps)
        self.rows_are_the_energys = True

    def rows(self, theta_P, sample, A=None):
        return A


def find(name: str) -> type[Metric]:
    """The metric of that name. Local.

    Raises:
        ConfigError: there is none; the message gives the nearest name and all that are allowed.
    """
    found = subclasses_by_name(Metric)
    if name not in found:
        raise ConfigError([unknown(f"flow.metric = {name!r}", "value", name, found)])
    return found[name]
