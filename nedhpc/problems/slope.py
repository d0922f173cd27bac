"""A term whose value never changes with u cannot be made smaller, and is refused. Local.

The derivative is tried at a few points first. Only if it is zero at all of them, it is tried at
NUM_POINTS points with jets of both signs and of sizes from 1e-3 to 1e4. So a term may be constant
at many points or states, such as a clamp or u^2 at u = 0, as long as it changes at some of them.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from nedhpc.errors import UsageError

NUM_POINTS = 4096
"""Number of points of the second trial."""
EXPONENTS = (-3, 4)
"""The sizes of jets and coefficients in the second trial are 10 to a power in this range."""


def wide_sample(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of random sign, whose sizes are uniform on a logarithmic scale."""
    return rng.choice([-1.0, 1.0], shape) * 10 ** rng.uniform(*EXPONENTS, shape)


def has_slope(value: Tensor, leaves: Iterable[Tensor]) -> bool:
    """True if the value (N, K) has a derivative other than 0 at a point. NaN counts as one.

    Args:
        value: a function of the leaves.
        leaves: jets and coefficients at the points.
    """
    leaves = list(leaves)
    if not leaves or not value.requires_grad:
        return False
    # The components are weighted, so that their derivatives do not cancel.
    weights = 1 + torch.arange(value.shape[1], dtype=value.dtype) / np.pi
    grads = torch.autograd.grad(
        (value @ weights).sum(), leaves, retain_graph=True, allow_unused=True
    )
    return any(grad is not None and bool((grad != 0).any()) for grad in grads)


def check_slope(
    value: Tensor, trial, wide_trial: Callable, call: Callable[..., Tensor], where: str
) -> None:
    """Raise UsageError if the value of a term never changes with u or a coefficient.

    Args:
        value: the method's value at `trial`.
        trial: the Trial of the dry run.
        wide_trial: function that makes a Trial of many points and jets of many sizes.
        call: the method's value as a function of a Trial.
        where: the term, for messages.
    """
    if has_slope(value, trial.leaves):
        return
    wide = wide_trial()
    try:
        with torch.enable_grad():
            value = call(wide)
    except UsageError:
        return  # the method refuses such jets, so nothing is known about it
    if not has_slope(value, wide.leaves):
        raise UsageError(
            f"{where}: its value does not change with u, because its derivative is 0 at all "
            f"{len(value)} trial points; the likely cause is sign, round, floor, a comparison, or "
            "a mask that is 0 nearly everywhere; use a smooth function, such as tanh(u / width) "
            "for sign(u), or make the region of the mask a part of the domain"
        )
