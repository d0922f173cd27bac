"""A problem as a user writes it: a domain, energy terms on jets, and the solution if it is known.

    class MyProblem(nedhpc.Problem):
        domain = nedhpc.Box([0, 0], [1, 1])

        @nedhpc.residual("interior")
        def pde(self, x, j):
            return -j.lap_u - x.sum(1)

        @nedhpc.residual("boundary", weight=10.0)
        def wall(self, j):
            return j.u

A term's method gets what its signature names: the points x (N, D), the jets j by name, each (N,),
the coefficients c by name, the targets y (N, M) on "data", the outward normals n (N, D) on a
boundary, the times t (N,), and the integrals i by name. It returns (N,) or (N, K). A point's value
must depend on that point only, because the points are split over ranks and chunks. What depends on
all points is declared as an integral:

    @nedhpc.integral("interior", target=0.0)
    def mean(self, j):
        return j.u

Everything here is local.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor

from nedhpc.domains.base import Domain
from nedhpc.problems.data import DataSet
from nedhpc.problems.table import Table
from nedhpc.problems.terms import Conserved, CrossEntropy, Density, Integral, Rate, Residual, Term

Method = TypeVar("Method", bound=Callable)


def _decorator(kind: type[Term], on: str, options: dict[str, Any]) -> Callable[[Method], Method]:
    def mark(method: Method) -> Method:
        method.__nedhpc_term__ = kind(method.__name__, on, **options)  # type: ignore[attr-defined]
        return method

    return mark


def residual(on: str = "interior", *, weight: float = 1.0, jets: Sequence[str] | None = None):
    """Decorator: the method returns a residual r, and its term is weight * sum w |r|^2 / 2.

    Args:
        on: part of the domain, "data", or the name of a data set.
        weight: factor of the term.
        jets: jets that the method uses for some points or states only. A dry run finds the others.
    """
    return _decorator(Residual, on, {"weight": weight, "jets": jets})


def density(on: str = "interior", *, weight: float = 1.0, jets: Sequence[str] | None = None):
    """Decorator: the method returns an energy density l, and its term is weight * sum w l.

    The arguments are those of `residual`.
    """
    return _decorator(Density, on, {"weight": weight, "jets": jets})


def cross_entropy(on: str = "data", *, weight: float = 1.0, jets: Sequence[str] | None = None):
    """Decorator: the method returns logits, and its term is their softmax cross-entropy with y.

    The arguments are those of `residual`.
    """
    return _decorator(CrossEntropy, on, {"weight": weight, "jets": jets})


def integral(
    on: str = "interior",
    *,
    target: float | Sequence[float] | None = None,
    weight: float = 1.0,
    jets: Sequence[str] | None = None,
):
    """Decorator: the method returns an integrand f, and I = sum w f is its integral over the part.

    Residuals and densities that name an argument `i` use the integral as `i.<name of the method>`.
    It is (N,), the same number at each point, or (N, K) if f has K components. With a target, there
    is also a term weight * |I - target|^2 / 2.

    Args:
        on: part of the domain.
        target: the value that the integral shall have, a number or one for each component.
        weight: factor of the term.
        jets: as for `residual`.
    """
    return _decorator(Integral, on, {"target": target, "weight": weight, "jets": jets})


def rate(*, of: Sequence[str] = (), jets: Sequence[str] | None = None):
    """Decorator: the method returns N of L(u)_t = N(u), and the run marches in time.

    The method returns (N,), or (N, M) with a column for each output. `Problem.start` gives u at
    t = 0, and residuals on the boundary hold at all times. An argument t is the present time.

    Args:
        of: names of the jets L(u), one for each output, e.g. ("lap_psi",) for the equation of the
            vorticity in terms of the stream function psi; the outputs themselves if not given.
        jets: as for `residual`.
    """
    return _decorator(Rate, "interior", {"of": of, "jets": jets})


def conserved(on: str = "interior", *, jets: Sequence[str] | None = None):
    """Decorator: the integral of what the method returns is conserved by a march in time.

    Its value is in the series as metrics/<name of the method>. The key `conserve` of the stepper's
    table names the quantities that each step keeps to rounding error.

    Args:
        on: part of the domain.
        jets: as for `residual`.
    """
    return _decorator(Conserved, on, {"jets": jets})


class Problem:
    """Base class of all problems; the arguments of its constructor are the keys of [problem]."""

    domain: Domain
    outputs: Sequence[str] = ("u",)
    """Names of the M components of u."""
    coefficients: Mapping[str, float] = {}
    """Trainable scalars beside theta, by name, with their initial values."""
    eigenvalues: Mapping[str, str | Sequence[str]] = {}
    """Coefficients that are eigenvalues, each with the output or outputs of its eigenfunction.

    All eigenfunctions have the same equations, which are linear in u and in the eigenvalue. A run
    starts from the eigenpairs that are nearest to the initial value of the coefficients, which is
    the same for all; let it be below the smallest eigenvalue to find the smallest ones. Integrals
    with a target must set the size of each eigenfunction, and make it orthogonal to the others.
    """
    terms: Sequence[Term] = ()
    """Terms beside those that decorators declare, e.g. from options of the constructor."""
    data: DataSet | Mapping[str, DataSet] | None = None
    """Points with targets for terms on "data", or several such sets by name.

    With {"sensors": DataSet(...), "walls": DataSet(...)}, terms are on "sensors" or "walls".
    """
    reference: Table | None = None
    """Values of the solution at points, if there is no `exact`, to measure the error at these.

    Its columns are the outputs, or those that its `targets` name. Points outside the bounds of the
    domain do not count.
    """
    hard: Mapping[str, Mapping[str, float | Callable[[Tensor], Tensor]]] | Any = {}
    """Conditions that the ansatz satisfies exactly, as {part: {output: value}}.

    A value is a number, or a function of x (N, D) that returns (N,). Instead of this table, `hard`
    may be an nedhpc.Layer, which is applied last. problems/conditions.py has examples.
    """

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the coordinates, as jets use them."""
        return self.domain.coordinates

    @property
    def eigenfunctions(self) -> dict[str, tuple[str, ...]]:
        """The outputs of each eigenfunction by the coefficient that is its eigenvalue."""
        return {
            name: (outputs,) if isinstance(outputs, str) else tuple(outputs)
            for name, outputs in self.eigenvalues.items()
        }

    def distance(self, x: Tensor, part: str) -> Tensor:
        """The distance with which a hard condition on a part is built, (N,); the domain's own.

        A subclass may have another: a smooth torch function of x (N, D) that is zero on the part
        and positive elsewhere in the domain.
        """
        return self.domain.distance(x, part)

    def singular(self, x: Tensor) -> Tensor:
        """Functions (N, F) with which the solution is singular; u = v(x) + C singular(x).

        The coefficients C (M, F) are trained with the network v. At the corner of an L, around
        which the angle phi runs from 0 to 3 pi / 2:

            def singular(self, x):
                phi = torch.atan2(-x[:, 0], x[:, 1]) % (2 * torch.pi)  # 0 on the y axis
                return (x.norm(dim=1) ** (2 / 3) * torch.sin(2 * phi / 3)).unsqueeze(1)
        """
        raise NotImplementedError

    def exact(self, x: Tensor) -> Tensor:
        """The solution at x (N, D) as (N,) or (N, M), if it is known.

        A problem with a rate has `exact(self, x, t)`, with times t (N,).
        """
        raise NotImplementedError

    def start(self, x: Tensor) -> Tensor:
        """u at t = 0 and points x (N, D), as (N,) or (N, M), for a problem with a rate.

        It is written with torch, because its derivatives are needed too.
        """
        raise NotImplementedError

    def metrics(self, x: Tensor, u: Tensor, y: Tensor) -> dict[str, Tensor]:
        """{name: values (N,)} at points x (N, D), with u (N, M) and the reference y (N, M).

        Their means over the evaluation set are reported as `name` beside the relative L2 error, and
        those over the training data as `train_name`.
        """
        return {}

    @property
    def has_exact(self) -> bool:
        """True if the solution is known."""
        return "exact" in vars(self) or type(self).exact is not Problem.exact

    @property
    def is_march(self) -> bool:
        """True if the problem has a rate, so that a run marches in time."""
        return any(isinstance(term, Rate) for term in declared_terms(self))

    @property
    def has_singular(self) -> bool:
        """True if the problem names singular parts of its solution."""
        return type(self).singular is not Problem.singular

    @property
    def has_metrics(self) -> bool:
        """True if the problem defines metrics."""
        return type(self).metrics is not Problem.metrics


def declared_terms(problem: Problem) -> list[Term]:
    """All terms: those of `problem.terms`, then the decorated methods in their order.

    If a subclass overrides a decorated method without a decorator, the term stays. A term has the
    name under which the class holds its method, which may differ from the name in `def`.
    """
    marked: dict[str, Term] = {}
    for cls in reversed(type(problem).__mro__):
        for name, attribute in vars(cls).items():
            term = getattr(attribute, "__nedhpc_term__", None)
            if term is not None:
                marked[name] = replace(term, name=name)
    return [*problem.terms, *marked.values()]
