"""Layers of given functions of x: hard conditions, and singular parts of the solution. Local."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nedhpc.ansatz.algebra import Channels, add, concatenate, function_jets, product
from nedhpc.ansatz.layers import Layer, Push

Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class HardCondition(Layer):
    """u = lift(x) + distance(x) v, elementwise by output, for the network's output v.

    On the set on which the distance vanishes, u equals the lift for any parameters.
    """

    lift: Function
    """Maps points (N, D) to (N, M); a torch function, smooth in the domain."""
    distance: Function
    """Maps points (N, D) to (N, M) or (N, 1); smooth, and 1 for an output without a condition."""

    def push(self, channels: Channels, push: Push) -> Channels:
        lift, distance = (
            function_jets(function, push.x_ND, push.layout)
            for function in (self.lift, self.distance)
        )
        return add(lift, product(distance, channels, push.layout))


@dataclass(frozen=True, eq=False)
class Singular(Layer):
    """(s(x), h): functions s that stand before the last layer's inputs h.

    The last layer adds C s(x) to u, with a trainable coefficient for each output and function.
    """

    function: Function
    """Maps points (N, D) to (N, F); a torch function, smooth inside the domain."""
    width: int
    """F."""

    def push(self, channels: Channels, push: Push) -> Channels:
        s = function_jets(self.function, push.x_ND, push.layout)
        return concatenate([s, channels], len(push.x_ND))
