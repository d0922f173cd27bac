"""Layers: each pushes jets of any order from its input to its output. Local.

An ansatz is a chain of layers. A new layer is one class with `push`, written with `compose`,
`product` and `concatenate` of the module `algebra` or with plain torch operations on the channels.
It needs no reverse sweep, because autograd runs one. All parameters belong to Linear layers, and
the parameter rows are read from the cotangents at their outputs.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable

from nedhpc.ansatz.activations import Derivatives
from nedhpc.ansatz.algebra import Channels, compose, side_by_side
from nedhpc.ansatz.jets import VALUES, JetLayout
from nedhpc.ansatz.layout import Block


class Tap(NamedTuple):
    """Input h and output z of a Linear layer, recorded in a push."""

    linear: "Linear"
    h: Channels
    z: Channels


@dataclass(frozen=True, slots=True)
class Push:
    """The data that all layers share while jets are pushed through them."""

    layout: JetLayout
    x_ND: torch.Tensor
    theta_P: torch.Tensor | None = None
    tape: list[Tap] | None = None
    """Linear layers add to it if rows are wanted; the jets are then differentiated only once."""

    @property
    def once(self) -> bool:
        return self.tape is not None


class Layer:
    """A map of jets. Subclasses define `push`."""

    def push(self, channels: Channels, push: Push) -> Channels:
        """Jets of the layer's output.

        Args:
            channels: Jets of its input, in the form that the module `algebra` describes.
            push: The layout, the points and theta.
        """
        raise NotImplementedError

    def __call__(self, h_NI: torch.Tensor, x_ND: torch.Tensor | None = None) -> torch.Tensor:
        """Values of the layer's output, if the layer has no parameters.

        Args:
            h_NI: Values of its input.
            x_ND: The points, if they are not its input.
        """
        return self.push([h_NI], Push(VALUES, h_NI if x_ND is None else x_ND))[0]


@dataclass(frozen=True, slots=True)
class Activation(Layer):
    """h = s(z), elementwise."""

    function: Derivatives

    def push(self, channels: Channels, push: Push) -> Channels:
        return compose(self.function, channels, push.layout, push.once)


@dataclass(frozen=True, slots=True)
class Linear(Layer):
    """z = W h + b. The bias adds to the value only, not to derivatives."""

    weight: Block
    """W, (out, in)."""
    bias: Block
    """b, (out,)."""

    def push(self, channels: Channels, push: Push) -> Channels:
        W, b = self.weight.of(push.theta_P), self.bias.of(push.theta_P)
        N = len(push.x_ND)
        # Channels with a row for each point share one matrix product. The constant ones have a
        # single row and cost nothing.
        whole = [c for c, v in enumerate(channels) if v is not None and len(v) == N]
        h = [channels[c] for c in whole]
        z = [None if v is None or len(v) == N else v @ W.T for v in channels]
        pushed = _Affine.apply(W, b, *h) if push.once else _affine(W, b, h)
        for c, v in zip(whole, pushed, strict=True):
            z[c] = v
        if push.once:
            z = [None if v is None else _differentiable(v, N) for v in z]
            push.tape.append(Tap(self, channels, z))
        return z


def _affine(W, b, h):
    if len(h) == 1:
        return [torch.addmm(b, h[0], W.T)]
    z = (torch.cat(h) @ W.T).view(len(h), len(h[0]), len(W)).unbind(0)
    return [z[0] + b, *z[1:]]


def _differentiable(z, N):
    """z as a variable that has a cotangent for each point."""
    return z if z.requires_grad else z.detach().expand(N, -1).requires_grad_()


class _Affine(torch.autograd.Function):
    """`_affine` as one node. Its reverse skips the channels that nothing depends on."""

    @staticmethod
    def forward(ctx, W, b, *h):
        ctx.set_materialize_grads(False)
        ctx.W = W
        if len(h) == 1:
            return (torch.addmm(b, h[0], W.T),)
        z = side_by_side(h) @ W.T
        z[0] += b
        return z.unbind(0)

    @staticmethod
    @once_differentiable
    def backward(ctx, *z_bar):
        live = [c for c, v in enumerate(z_bar) if v is not None]
        h_bar = [None] * len(z_bar)
        pulled = side_by_side([z_bar[c] for c in live]) @ ctx.W
        for c, v in zip(live, pulled.unbind(0), strict=True):
            h_bar[c] = v
        return None, None, *h_bar
