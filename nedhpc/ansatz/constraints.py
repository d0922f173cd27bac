"""Hard conditions: output layers without parameters that make u satisfy conditions exactly."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nedhpc.ansatz.algebra import Channels, add, function_jets, product
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
