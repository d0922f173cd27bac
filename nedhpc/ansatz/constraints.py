"""Hard conditions: output layers, without parameters, by which u satisfies conditions exactly."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nedhpc.ansatz.algebra import Channels, add, function_jets, product
from nedhpc.ansatz.layers import Layer, Push

Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class HardCondition(Layer):
    """u = lift(x) + distance(x) v, elementwise by output, for the network's output v.

    u equals the lift on the set on which the distance vanishes, whatever the parameters are.
    """

    lift: Function
    """Maps points (N, D) to (N, M), torch, smooth in the domain."""
    distance: Function
    """Maps points (N, D) to (N, M) or (N, 1), torch, smooth; 1 if an output has no condition."""

    def push(self, channels: Channels, push: Push) -> Channels:
        lift, distance = (
            function_jets(function, push.x_ND, push.layout)
            for function in (self.lift, self.distance)
        )
        return add(lift, product(distance, channels, push.layout))
