"""A term bound to its problem: its method with the arguments by name, its jets, its weight."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from torch import Tensor

from nedhpc.ansatz.jets import JetLayout
from nedhpc.errors import UsageError
from nedhpc.problems.terms import Term

ARGUMENTS = ("x", "j", "c", "y", "n", "t", "i")
"""Arguments that a term's method may have.

They are points, jets, coefficients, targets, normals, times and integrals.
"""
BY_POSITION = ARGUMENTS[:4]
"""Meaning of an argument with another name, by its position."""


def argument_roles(method: Callable, where: str) -> tuple[str, ...]:
    """The member of ARGUMENTS that each argument of a term's method stands for. Local.

    Args:
        method: the bound method.
        where: the term, for messages.

    Raises:
        UsageError: an argument cannot be recognised, or two of them mean the same.
    """
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError) as error:  # e.g. a method without self
        raise UsageError(f"{where}: its method must be `def name(self, ...)`: {error}") from None
    roles = []
    for position, parameter in enumerate(signature.parameters.values()):
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            roles.append("?")
        elif parameter.name in ARGUMENTS:
            roles.append(parameter.name)
        else:
            roles.append(BY_POSITION[position] if position < len(BY_POSITION) else "?")
    if "?" in roles or len(set(roles)) != len(roles):
        raise UsageError(
            f"{where}: its method has the arguments {signature}; it may name any of "
            f"{', '.join(ARGUMENTS)} (points, jets, coefficients, targets, normals, times, "
            "integrals)"
        )
    return tuple(roles)


@dataclass(slots=True)
class Clock:
    """The present time of a run that marches in time."""

    t: Tensor | float = 0.0


@dataclass(frozen=True, slots=True)
class BoundTerm:
    """A term that is ready to be evaluated. Local."""

    kind: Term
    method: Callable
    roles: tuple[str, ...]
    layout: JetLayout
    weight: float
    """The term's own weight times those of the config."""
    coefficients: tuple[str, ...]
    num_outputs: int
    num_components: int
    """K: columns of the method's value."""
    is_misfit: bool
    """True if the residual is u minus a target, so that dr/dj is the identity."""
    integrals: tuple["BoundTerm", ...] = ()
    """All integrals of the problem if the term uses some, else none.

    Their values follow the coefficients, so c has a column for each of their components too.
    """
    clock: Clock | None = None
    """Gives the time if it is no coordinate."""

    @property
    def name(self) -> str:
        return self.kind.name

    @property
    def on(self) -> str:
        return self.kind.on

    @property
    def has_residual(self) -> bool:
        return self.kind.has_residual

    @property
    def rows_per_point(self) -> int:
        num_jets = self.layout.num_channels * self.num_outputs + len(self.coefficients)
        num_jets += num_components(self.integrals)
        return self.kind.rows_per_point(self.num_components, num_jets)

    def value(self, x_ND: Tensor, j_NCM: Tensor, c_NQ: Tensor, y_NM, n_ND) -> Tensor:
        """The method's value at points, (N, K).

        Args:
            x_ND: points.
            j_NCM: jets.
            c_NQ: the coefficients, then the integrals, repeated for each point.
            y_NM: targets, or None.
            n_ND: outward normals, or None.

        Raises:
            UsageError: the shape is not that of the dry run.
        """
        c = SimpleNamespace(**{name: c_NQ[:, i] for i, name in enumerate(self.coefficients)})
        given = {"x": x_ND, "j": self.layout.view(j_NCM), "c": c, "y": y_NM, "n": n_ND}
        given["t"] = x_ND[:, -1] if self.clock is None else self.clock.t + 0 * x_ND[:, -1]
        if self.integrals:
            given["i"] = integrals_by_name(self.integrals, c_NQ[:, len(self.coefficients) :])
        value = self.method(*(given[role] for role in self.roles))
        value = value.unsqueeze(1) if value.ndim == 1 else value
        if value.shape != (len(x_ND), self.num_components):
            raise UsageError(
                f"term {self.name!r}: its method returns shape {tuple(value.shape)} for "
                f"{len(x_ND)} points; at the start it returned {self.num_components} components a "
                "point"
            )
        return value


def num_components(integrals: Sequence[BoundTerm]) -> int:
    """Number of components of all integrals together. Local."""
    return sum(integral.num_components for integral in integrals)


def integrals_by_name(integrals: Sequence[BoundTerm], i_NI: Tensor) -> SimpleNamespace:
    """The integrals as attributes: (N,) for one with one component, else (N, K). Local.

    Args:
        integrals: bound integrals.
        i_NI: a column for each component of each of them.
    """
    found, start = SimpleNamespace(), 0
    for integral in integrals:
        columns = i_NI[:, start : start + integral.num_components]
        start += integral.num_components
        setattr(found, integral.name, columns[:, 0] if columns.shape[1] == 1 else columns)
    return found
