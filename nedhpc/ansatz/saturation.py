"""Hidden units that are constant at the points, so that their weights have no gradient. Local."""

import torch
from torch import Tensor

from nedhpc.ansatz.jets import VALUES
from nedhpc.ansatz.layers import Activation, Push


def largest_slopes(ansatz, theta_P: Tensor, x_ND: Tensor) -> Tensor | None:
    """The largest |s'(z)| at the points for each hidden unit, where s is the activation.

    A tanh unit with |z| > 5 at all points has less than 2e-4.

    Args:
        ansatz: the network.
        theta_P: its parameters, (P,).
        x_ND: points; if there are none, the result is 0.

    Returns:
        (number of hidden units,); None for a torch module, whose units are not known.
    """
    layers = getattr(ansatz, "layers", ())
    push, slopes = Push(VALUES, x_ND, theta_P.detach()), []
    if not layers:
        return None
    channels = ansatz.scaling.coordinates(x_ND, VALUES)
    for layer in layers:
        if isinstance(layer, Activation):
            slope = layer.function(channels[0], 1)[1].abs()
            slopes.append(torch.cat([slope, slope.new_zeros(1, slope.shape[1])]).amax(0))
        channels = layer.push(channels, push)
    return torch.cat(slopes) if slopes else None
