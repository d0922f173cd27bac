"""Hard conditions as the last layer of the ansatz, u = lift(x) + distance(x) v. Local."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from nedhpc.ansatz.constraints import HardCondition
from nedhpc.ansatz.layers import Layer
from nedhpc.errors import ConfigError, UsageError
from nedhpc.problems.base import Problem
from nedhpc.user_calls import called

Value = float | Callable[[Tensor], Tensor]


def hard_layer(problem: Problem) -> Layer | None:
    """The layer that satisfies `problem.hard` exactly; None if there are no hard conditions.

    The distance of an output is the product of the distances of the parts on which it has a
    condition. Its lift is the value that it has on all of them.

    Raises:
        ConfigError: a part or output is unknown, a part has no distance, or one output has
            different values on different parts.
    """
    hard = problem.hard
    if isinstance(hard, Layer):
        return hard
    if not hard:
        return None
    if not isinstance(hard, Mapping):
        raise ConfigError([f"hard = {hard!r}; needed is {{part: {{output: value}}}} or a Layer"])
    errors, outputs = [], tuple(problem.outputs)
    values: dict[str, Value] = {}
    parts: dict[str, list[str]] = {output: [] for output in outputs}
    for part, conditions in hard.items():
        errors += _wrong(problem, part, conditions)
        for output, value in conditions.items() if isinstance(conditions, Mapping) else ():
            if output in values and values[output] is not value and values[output] != value:
                errors.append(
                    f"hard: {output!r} has different values on {parts[output][-1]!r} and "
                    f"{part!r}; give both the same function, which has the right values on both"
                )
            values[output] = value
            parts.setdefault(output, []).append(part)
    if errors:
        raise ConfigError(errors)

    def lift(x_ND: Tensor) -> Tensor:
        return torch.stack([_value(values.get(output, 0.0), x_ND) for output in outputs], 1)

    def distance(x_ND: Tensor) -> Tensor:
        columns = []
        for output in outputs:
            column = torch.ones_like(x_ND[:, 0])
            for part in parts[output]:
                column = column * problem.domain.distance(x_ND, part)
            columns.append(column)
        return torch.stack(columns, 1)

    return HardCondition(lift, distance)


def _value(value: Value, x_ND: Tensor) -> Tensor:
    return value(x_ND) if callable(value) else torch.full_like(x_ND[:, 0], value)


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
    x = torch.as_tensor((domain.low + domain.high) / 2).expand(2, -1)
    try:
        domain.distance(x, part)
    except UsageError as error:
        errors.append(f"hard: {error}")
    for name, value in conditions.items():
        try:
            shape = tuple(called(f"hard: {name!r} on {part!r}", _value, value, x).shape)
        except (UsageError, AttributeError) as error:
            errors.append(str(error))
            continue
        if shape != (2,):
            errors.append(
                f"hard: {name!r} on {part!r} returns shape {shape} for 2 points, not (2,)"
            )
    return errors
