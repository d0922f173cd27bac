"""One trial call of each term's method on random jets, before anything runs.

It finds the jets that the method uses and the number of its components. It refuses what would give
a wrong answer later: a wrong shape, a value that mixes points or does not depend on u, random
numbers, changed inputs, a wrong signature. Local, and the same on every rank.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nedhpc.ansatz import jets
from nedhpc.domains.base import Part
from nedhpc.errors import NedError, UsageError
from nedhpc.problems import slope
from nedhpc.problems.base import Problem
from nedhpc.problems.bound import BoundTerm, argument_roles
from nedhpc.problems.data import named_sets
from nedhpc.problems.terms import Term
from nedhpc.user_calls import called

NUM_POINTS, SUBSETS = 7, ([6, 4, 3, 1, 0], [5, 2])
"""Number of points of the trial, and two subsets of them in another order.

If the number of components changes with the number of points, the method broadcasts by mistake.
Each point, such as that of a maximum, is missing from one subset.
"""
MAX_DRAWS = 100
"""Number of attempts to find points of a part."""


@dataclass(slots=True)
class Trial:
    """Inputs of one call; the jets are made on demand."""

    x: Tensor
    j: "RandomJets"
    c: SimpleNamespace
    y: Tensor | None
    n: Tensor | None
    i: SimpleNamespace

    @property
    def t(self) -> Tensor:
        return self.x[:, -1]

    @property
    def leaves(self) -> list[Tensor]:
        """The jets that the method used, all coefficients and all integrals."""
        return list(self.named_leaves.values())

    @property
    def named_leaves(self) -> dict[str, Tensor]:
        """`leaves` by name."""
        return self.j._seen | vars(self.c) | {f"i.{name}": v for name, v in vars(self.i).items()}

    def some(self, rows: list[int]) -> "Trial":
        """The same inputs at some of the points."""
        c, i = (
            SimpleNamespace(**{name: value[rows] for name, value in vars(each).items()})
            for each in (self.c, self.i)
        )
        y, n = (None if v is None else v[rows] for v in (self.y, self.n))
        return Trial(self.x[rows], self.j.some(rows), c, y, n, i)


class RandomJets:
    """Jets by name, each a random leaf that is made when it is asked for."""

    def __init__(self, make: Callable[[str], Tensor], outputs: tuple[str, ...]):
        self._make, self._outputs, self._seen = make, outputs, {}

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "values":
            return torch.stack([getattr(self, output) for output in self._outputs], 1)
        if name not in self._seen:
            self._seen[name] = self._make(name)
        return self._seen[name]

    def some(self, rows: list[int]) -> "RandomJets":
        return RandomJets(lambda name: getattr(self, name).detach()[rows], self._outputs)


def dry_run(
    problem: Problem, term: Term, weight: float = 1.0, integrals: tuple[BoundTerm, ...] = ()
) -> BoundTerm:
    """Bind a term to its problem by a trial call of its method.

    Args:
        problem: its domain, outputs, coefficients and data are known to be valid.
        term: one of declared_terms(problem), on an existing part.
        weight: factor from the config, beside the term's own weight.
        integrals: all integrals of the problem; none for an integral itself.

    Raises:
        UsageError: which term is wrong, what is wrong with it and how to mend it.
    """
    where = f"term {term.name!r}"
    method = getattr(problem, term.name, None)
    if not callable(method):
        raise UsageError(f"{where}: the problem needs a method `def {term.name}(self, x, j)`")
    roles = argument_roles(method, where)
    if "i" in roles:
        _check_integrals(term, integrals, where)
    make = partial(make_trial, problem, term, roles, where, integrals)
    trial = make()

    def call(trial: Trial) -> Tensor:
        return checked_value(method, [getattr(trial, role) for role in roles], len(trial.x), where)

    before = trial.x.clone()
    with torch.enable_grad():
        value = call(trial)
    parts = [call(trial.some(rows)) for rows in SUBSETS]
    check_value(value, parts, call(trial), trial, before, where)
    wide = partial(make, slope.NUM_POINTS, slope.wide_sample)
    slope.check_slope(value, trial, wide, call, where)
    declared = (term.jets,) if isinstance(term.jets, str) else tuple(term.jets or ())
    names = tuple(dict.fromkeys((*declared, *trial.j._seen)))
    layout = jets.parse(names, tuple(problem.outputs), problem.coordinates)
    return BoundTerm(
        kind=term,
        method=method,
        roles=roles,
        layout=layout,
        weight=term.weight * weight,
        coefficients=tuple(problem.coefficients),
        num_outputs=len(problem.outputs),
        num_components=value.shape[1],
        is_misfit=is_misfit(term, problem, layout, value, trial),
        integrals=integrals if "i" in roles else (),
    )


def small_sample(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers between 0.1 and 1, at which most formulas are smooth."""
    return rng.uniform(0.1, 1, shape)


def make_trial(
    problem: Problem,
    term: Term,
    roles: tuple[str, ...],
    where: str,
    integrals: tuple[BoundTerm, ...] = (),
    num_points: int = NUM_POINTS,
    sample: Callable[..., np.ndarray] = small_sample,
) -> Trial:
    """Points of the term's part with targets and normals, the same in every call. Local.

    Args:
        problem, term, roles, where: as for `dry_run`, `argument_roles` and `check_value`.
        integrals: as for `dry_run`.
        num_points: number of points.
        sample: function of (generator, shape) that draws the jets and the integrals. If it is not
            the default, it draws the coefficients too, which otherwise have their initial values.

    Raises:
        UsageError: the method asks for targets, normals or times that do not exist here.
    """
    rng = np.random.default_rng(0)
    y = n = None
    data = named_sets(problem.data).get(term.on)
    if data is not None:
        rows = np.arange(num_points) % len(data.x_ND)
        x, y = (torch.as_tensor(a[rows]) for a in (data.x_ND, data.y_NM))
    else:
        part = problem.domain.parts[term.on]
        x = torch.as_tensor(probe_points(part, rng, num_points))
        if "n" in roles:
            try:
                n = part.normal(x)
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from None
    if "y" in roles and y is None:
        raise UsageError(f'{where}: its method asks for targets y, which only terms on "data" have')
    if "n" in roles and n is None:
        raise UsageError(f"{where}: its method asks for normals n, but data have no normals")
    if "t" in roles and problem.coordinates[-1] != "t" and not problem.is_march:
        raise UsageError(f"{where}: its method asks for times t; the domain has no coordinate t")

    num_outputs = len(problem.outputs)

    def make(name: str) -> Tensor:
        layout = jets.parse((name,), tuple(problem.outputs), problem.coordinates)
        j = torch.as_tensor(sample(rng, (num_points, layout.num_channels, num_outputs)))
        return getattr(layout.view(j), name).clone().requires_grad_()

    c = SimpleNamespace()
    for name, start in problem.coefficients.items():
        shape = (num_points,)
        numbers = np.full(shape, float(start)) if sample is small_sample else sample(rng, shape)
        setattr(c, name, torch.as_tensor(numbers).requires_grad_())
    used = integrals if "i" in roles else ()
    i = _trial_integrals(used, num_points, lambda shape: sample(rng, shape))
    return Trial(x, RandomJets(make, tuple(problem.outputs)), c, y, n, i)


def _check_integrals(term: Term, integrals: tuple[BoundTerm, ...], where: str) -> None:
    """Raise UsageError if a term that asks for integrals cannot have them."""
    if term.needs_targets:
        raise UsageError(f"{where}: a {type(term).__name__} cannot use integrals i")
    if not integrals:
        raise UsageError(
            f"{where}: its method asks for integrals i; declare them by methods with "
            "@nedhpc.integral, which cannot use integrals themselves"
        )


def _trial_integrals(
    integrals: tuple[BoundTerm, ...], num_points: int, draw: Callable[[tuple], np.ndarray]
) -> SimpleNamespace:
    """A random leaf for each integral by its name, the same value at all points."""
    i = SimpleNamespace()
    for integral in integrals:
        shape = (integral.num_components,) if integral.num_components > 1 else ()
        value = torch.as_tensor(np.asarray(draw(shape))).expand(num_points, *shape)
        setattr(i, integral.name, value.clone().requires_grad_())
    return i


def probe_points(part: Part, rng: np.random.Generator, count: int = NUM_POINTS) -> np.ndarray:
    """A few points of a part, (count, D). Raises UsageError if hardly any candidate lies in it."""
    found = np.empty((0, 0))
    for _ in range(MAX_DRAWS):
        x, accepted = part.points(rng.random((4 * count, part.unit_dim)))
        found = np.concatenate([found, x[accepted]]) if len(found) else x[accepted]
        if len(found) >= count:
            return found[:count]
    raise UsageError(f"hardly any point lies in this part of the domain ({len(found)} were found)")


def checked_value(method: Callable, arguments: list[Any], num_points: int, where: str) -> Tensor:
    """The method's value as (N, K). Raises UsageError if it has no real row for each point."""
    try:
        value = called("its method", method, *arguments)
    except NedError as error:
        raise UsageError(f"{where}: {error}") from error
    needed = f"needed is a tensor ({num_points},) or ({num_points}, K) for {num_points} points"
    if not isinstance(value, Tensor):
        raise UsageError(f"{where}: its method returns {type(value).__name__}; {needed}")
    if value.ndim not in (1, 2) or len(value) != num_points or value.numel() == 0:
        raise UsageError(f"{where}: its method returns shape {tuple(value.shape)}; {needed}")
    if value.layout != torch.strided or value.device.type != "cpu":
        raise UsageError(
            f"{where}: its method returns a tensor with layout {value.layout} on {value.device}; "
            "needed is a dense tensor on the device of the points"
        )
    if not value.is_floating_point():
        raise UsageError(f"{where}: its method returns {value.dtype}; needed are real numbers")
    if value.dtype != torch.float64:
        raise UsageError(
            f"{where}: its method returns {value.dtype} for points in float64, which loses digits; "
            "leave out .float(), .to(...) and dtype=..."
        )
    return value.unsqueeze(1) if value.ndim == 1 else value


def check_value(
    value: Tensor, parts: list[Tensor], again: Tensor, trial: Trial, before: Tensor, where: str
) -> None:
    """Raise UsageError unless each value depends on its point only, and on u or a coefficient."""
    some = parts[0]
    if not torch.equal(trial.x, before):
        raise UsageError(f"{where}: its method changes the points x in place; work on x.clone()")
    if value.shape[1] != some.shape[1]:
        raise UsageError(
            f"{where}: its method returns {tuple(value.shape)} for {len(value)} points and "
            f"{tuple(some.shape)} for {len(some)}: (N, N) is a broadcast of (N,) against (N, 1); "
            "use x[:, 0] for a coordinate, not x[:, :1], and .squeeze(1) or [:, 0] on a column"
        )
    if not torch.equal(value.nan_to_num(), again.nan_to_num()):
        raise UsageError(
            f"{where}: its method returns other values when it is called again with the same "
            "points; random numbers or hidden state would make the result depend on the number of "
            "ranks"
        )
    if not value.requires_grad:
        raise UsageError(
            f"{where}: its value has no gradient with respect to u; a detached, integer or boolean "
            "value, or one that uses neither u nor a coefficient, cannot be made smaller"
        )
    check_points_are_separate(value, parts, trial, where)


def check_points_are_separate(value: Tensor, parts: list[Tensor], trial: Trial, where: str) -> None:
    """Raise UsageError if the value at a point depends on another point."""
    leaves = list(trial.named_leaves.items())
    names, tensors = zip(*leaves, strict=True) if leaves else ((), ())
    # The gradient of a point's value must vanish at all other points.
    mixed = {}
    for row in (0, -1):
        grads = torch.autograd.grad(value[row].sum(), tensors, retain_graph=True, allow_unused=True)
        for name, grad in zip(names, grads, strict=True):
            if grad is None:
                continue
            others = torch.cat([grad[:row], grad[row:][1:]])
            # Where the value is not finite, autograd gives nan at all points: 0 times infinity.
            if bool((others.nan_to_num() != 0).any()):
                mixed[name] = None
    if mixed or not same_in_subsets(value, parts):
        raise UsageError(
            f"{where}: its value at one point depends on {', '.join(mixed) or 'the inputs'} at "
            "other points; points are split over ranks and chunks, so a mean, sum, maximum or "
            "norm over points would depend on how they are split; declare an integral over a part "
            "by a method with @nedhpc.integral and use it as i.<name>; for an integral up to x, "
            "add an output whose derivative is the integrand"
        )


def same_in_subsets(value: Tensor, parts: list[Tensor]) -> bool:
    """True if the values at all points are those that calls with SUBSETS of them gave."""
    return all(
        part.shape == value[rows].shape
        and torch.allclose(value[rows], part, rtol=1e-9, atol=0, equal_nan=True)
        for rows, part in zip(SUBSETS, parts, strict=True)
    )


def is_misfit(term: Term, problem: Problem, layout, value: Tensor, trial: Trial) -> bool:
    """True if the term is the residual u - target of all outputs: dr_i / du_k is the identity."""
    outputs = tuple(problem.outputs)
    if not term.is_least_squares or layout.num_channels != 1 or value.shape[1] != len(outputs):
        return False
    for i in range(len(outputs)):
        leaves = [getattr(trial.j, output) for output in outputs]
        grads = torch.autograd.grad(value[:, i].sum(), leaves, retain_graph=True, allow_unused=True)
        for k, grad in enumerate(grads):
            expected = float(i == k)
            if not (expected == 0 if grad is None else bool((grad == expected).all())):
                return False
    return True
