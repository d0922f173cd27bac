"""Hard conditions as the last layer of the ansatz, u = lift(x) + distance(x) v. Local.

Here u is 1 on the inlet and x y on the hole, and v, p have no hard conditions on the inlet:

    hard = {"inlet": {"u": 1.0}, "hole": {"u": lambda x: x[:, 0] * x[:, 1], "v": 0.0}}

The domain gives the distance of a part. If it has none, or a poor one, the problem has its own:

    def distance(self, x, part):  # torch, (N,): 0 on the part, positive elsewhere
        return (x - 0.5).square().sum(1) - 0.01 if part == "hole" else super().distance(x, part)

A condition at the start of a SpaceTime is one on "initial": u = u0(x) + t v. If its walls are hard
too, and u0 has the right values there, give both parts the same function.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from nedhpc.ansatz.constraints import HardCondition
from nedhpc.ansatz.jets import parse
from nedhpc.ansatz.layers import Layer
from nedhpc.errors import ConfigError, UsageError
from nedhpc.problems.base import Problem
from nedhpc.problems.bound import BoundTerm
from nedhpc.problems.dry_run import probe_points
from nedhpc.problems.terms import Residual
from nedhpc.user_calls import called

Value = float | Callable[[Tensor], Tensor]
Groups = list[tuple[Value, list[str]]]
"""The values of one output, each with the parts on which it has this value."""
NUM_PROBES = 64
"""Points of each part at which its distance is tried."""
ON_PART = 1e-8
"""A distance below this is zero: that of a part is scaled to be about one in the domain."""


def hard_layer(problem: Problem) -> Layer | None:
    """The layer that satisfies `problem.hard` exactly; None if there are no hard conditions.

    The distance d of an output is the product of the distances of the parts on which it has a
    condition. Its lift is the value that it has on all of them. If it has different values g_k on
    groups of parts, d_k is the product of the distances of group k, and

        lift = sum_k w_k g_k,  w_k = (1 / d_k) / sum_l (1 / d_l).

    The lift is smooth if the groups do not meet; if they do, its derivatives are unbounded there.

    Raises:
        ConfigError: a part or output is unknown, a part has no distance or a wrong one, or one
            output has different values on parts that overlap.

    Reference: Rvachev, Sheiko, Shapiro and Tsukanov 2001, transfinite interpolation over
    implicitly defined sets, CAGD 18.
    """
    hard = problem.hard
    if isinstance(hard, Layer):
        return hard
    if not hard:
        return None
    if not isinstance(hard, Mapping):
        raise ConfigError([f"hard = {hard!r}; needed is {{part: {{output: value}}}} or a Layer"])
    errors = [text for part, given in hard.items() for text in _wrong(problem, part, given)]
    groups = {} if errors else hard_groups(problem)
    errors += [text for output in groups for text in _overlaps(problem, output, groups[output])]
    if errors:
        raise ConfigError(errors)
    each = [groups.get(output, []) for output in problem.outputs]
    return HardCondition(
        lambda x_ND: torch.stack([_lift(problem, of, x_ND) for of in each], 1),
        lambda x_ND: torch.stack([_distance(problem, of, x_ND) for of in each], 1),
    )


def hard_groups(problem: Problem) -> dict[str, Groups]:
    """The hard conditions by output; none if `hard` is a Layer, whose conditions are not known."""
    groups: dict[str, Groups] = {}
    for part, conditions in problem.hard.items() if isinstance(problem.hard, Mapping) else ():
        for output, value in conditions.items():
            of = groups.setdefault(output, [])
            same = next((parts for known, parts in of if known is value or known == value), None)
            if same is None:
                of.append((value, [part]))
            else:
                same.append(part)
    return groups


def hard_terms(problem: Problem) -> list[BoundTerm]:
    """The hard conditions as residuals u - value, to look for contradictions among conditions."""
    found = []
    outputs, coordinates = tuple(problem.outputs), problem.coordinates
    for output, groups in hard_groups(problem).items():
        for value, part in ((value, part) for value, parts in groups for part in parts):

            def method(x_ND, j, value=value, output=output):
                return getattr(j, output) - _value(value, x_ND)

            found.append(
                BoundTerm(
                    kind=Residual(f"hard {output}", part),
                    method=method,
                    roles=("x", "j"),
                    layout=parse((output,), outputs, coordinates),
                    weight=1.0,
                    coefficients=(),
                    num_outputs=len(outputs),
                    num_components=1,
                    is_misfit=False,
                )
            )
    return found


def is_hard(problem: Problem, output: str, x_ND: Tensor) -> Tensor:
    """Tells at which points (N, D) a hard condition fixes an output, bool (N,)."""
    groups = hard_groups(problem).get(output, [])
    return _distance(problem, groups, x_ND).abs() < ON_PART


def _value(value: Value, x_ND: Tensor) -> Tensor:
    return value(x_ND) if callable(value) else torch.full_like(x_ND[:, 0], value)


def _product(problem: Problem, parts: Sequence[str], x_ND: Tensor) -> Tensor:
    return prod((problem.distance(x_ND, part) for part in parts), start=x_ND.new_ones(len(x_ND)))


def _distance(problem: Problem, groups: Groups, x_ND: Tensor) -> Tensor:
    return _product(problem, [part for _, parts in groups for part in parts], x_ND)


def _lift(problem: Problem, groups: Groups, x_ND: Tensor) -> Tensor:
    values = [_value(value, x_ND) for value, _ in groups]
    if len(values) < 2:
        return values[0] if values else torch.zeros_like(x_ND[:, 0])
    d = [_product(problem, parts, x_ND) for _, parts in groups]
    # Multiply numerator and denominator by all d, which are zero on the parts.
    weights = [prod((v for k, v in enumerate(d) if k != own), start=1.0) for own in range(len(d))]
    total = torch.stack(weights).sum(0)
    # If groups meet, a point of both has the mean of their values.
    both = total == 0
    safe = torch.where(both, torch.ones_like(total), total)
    share = [torch.where(both, torch.full_like(w, 1 / len(d)), w) / safe for w in weights]
    return torch.stack([w * v for w, v in zip(share, values, strict=True)]).sum(0)


def some_points(part) -> Tensor:
    """A few points of a part, the same in every call, (N, D)."""
    if part.dim == 0 and part.num_points is not None:
        return torch.as_tensor(part.grid(part.num_points, 0, part.num_points))
    return torch.as_tensor(probe_points(part, np.random.default_rng(0), NUM_PROBES))


def _wrong(problem: Problem, part: str, conditions: object) -> list[str]:
    """Messages about all that is wrong with the conditions on one part."""
    domain, outputs = problem.domain, tuple(problem.outputs)
    if part not in domain.parts:
        return [f"hard: the domain has no part {part!r}; its parts are {', '.join(domain.parts)}"]
    if not isinstance(conditions, Mapping):
        return [f"hard: {part!r} needs {{output: value}}, e.g. {{{outputs[0]!r}: 0.0}}"]
    errors = [
        f"hard: {part!r} sets {name!r}; the outputs are {', '.join(outputs)}"
        for name in conditions
        if name not in outputs
    ]
    x = some_points(domain.parts[part])
    try:
        errors += _wrong_distance(problem, part, x)
    except UsageError as error:
        errors.append(f"hard: {error}")
    for name, value in conditions.items():
        try:
            shape = tuple(called(f"hard: {name!r} on {part!r}", _value, value, x).shape)
        except (UsageError, AttributeError) as error:
            errors.append(str(error))
            continue
        if shape != (len(x),):
            errors.append(
                f"hard: {name!r} on {part!r} returns shape {shape} for {len(x)} points, "
                f"not ({len(x)},)"
            )
    return errors


def _wrong_distance(problem: Problem, part: str, x_ND: Tensor) -> list[str]:
    """Messages about a distance that is not zero on its part, or not positive in the interior."""
    what = f"distance(x, {part!r})"
    inner = some_points(problem.domain.parts["interior"])
    for points in (x_ND, inner):
        d = called(what, problem.distance, points, part)
        if not isinstance(d, Tensor) or d.shape != (len(points),) or d.dtype != torch.float64:
            shape = tuple(getattr(d, "shape", ()))
            return [
                f"hard: {what} returns {type(d).__name__} {shape} for {len(points)} points; needed "
                f"is a tensor ({len(points)},) of float64"
            ]
    on, within = problem.distance(x_ND, part).abs(), problem.distance(inner, part)
    if not on.max() < ON_PART:
        point = ", ".join(f"{v:.4g}" for v in x_ND[on.nan_to_num(torch.inf).argmax()])
        return [
            f"hard: {what} is {on.max():.3g} at the point ({point}) of this part; it must be zero "
            "on all of it, or u does not have the value there"
        ]
    if not within.min() > 0:
        point = ", ".join(f"{v:.4g}" for v in inner[within.nan_to_num(-torch.inf).argmin()])
        return [
            f"hard: {what} is {within.min():.3g} at the point ({point}) of the interior; it must "
            "be positive there"
        ]
    return []


def _overlaps(problem: Problem, output: str, groups: Groups) -> list[str]:
    """Messages about parts that overlap, on which an output has different values."""
    errors = []
    parts = [(k, part) for k, (_, of) in enumerate(groups) for part in of]
    for (k, part), (i, other) in ((a, b) for a in parts for b in parts if a[0] != b[0]):
        x_ND = some_points(problem.domain.parts[part])
        shared = problem.distance(x_ND, other).abs() < ON_PART
        different = _value(groups[k][0], x_ND) != _value(groups[i][0], x_ND)
        if (shared & different).any():
            point = ", ".join(f"{v:.4g}" for v in x_ND[shared & different][0])
            errors.append(
                f"hard: {output!r} has different values on {part!r} and {other!r}, which overlap, "
                f"e.g. at ({point}); give each place one value"
            )
            break
    return errors
