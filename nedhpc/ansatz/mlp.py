"""The multilayer perceptron, a chain of layers on a flat parameter vector. Local."""

import itertools
from math import sqrt

import numpy as np
import torch

from nedhpc.ansatz.activations import ACTIVATIONS
from nedhpc.ansatz.constraints import HardCondition, Singular
from nedhpc.ansatz.embeddings import Embedding
from nedhpc.ansatz.jets import JetLayout
from nedhpc.ansatz.layers import Activation, Layer, Linear, Push
from nedhpc.ansatz.layout import block_layout
from nedhpc.ansatz.linearisation import Linearisation, stacked
from nedhpc.ansatz.scaling import Scaling

FACTOR_OVERHEAD = 40
"""Cost of multiplying two products of factors and adding the result, in multiplications."""


class MLP:
    """Multilayer perceptron u(x; theta) with M outputs, in scaled variables.

    theta holds each layer's weight (out, in), then its bias (out,). The attribute `scaling` may be
    changed between steps; it is the identity at first.

    Args:
        num_inputs: D, the number of coordinates.
        hidden: Widths of the hidden layers.
        num_outputs: M.
        activation: A name of ACTIVATIONS.
        init: `glorot` or `uniform`, see `initial`.
        init_scale: The initial parameters are multiplied by it.
        embedding: A map of x that precedes the first layer.
        constraint: A last layer that makes u satisfy conditions exactly.
        singular: Functions of x that the last layer adds to u, each with a coefficient.
    """

    scales_coordinates = True
    """True if the network sees scaled coordinates."""

    def __init__(
        self,
        num_inputs: int,
        hidden: list[int],
        num_outputs: int,
        activation: str = "tanh",
        init: str = "glorot",
        init_scale: float = 1.0,
        embedding: Embedding | None = None,
        constraint: HardCondition | None = None,
        singular: Singular | None = None,
    ):
        self.embedding, self.constraint, self.singular = embedding, constraint, singular
        self.init, self.init_scale = init, init_scale
        self.scaling = Scaling.identity(num_inputs, num_outputs)
        self.num_outputs, self.activation = num_outputs, ACTIVATIONS[activation]
        self.widths = (embedding.width if embedding else num_inputs, *hidden, num_outputs)
        self.fans = [*itertools.pairwise(self.widths)]
        """(number of inputs, number of outputs) of each Linear layer."""
        if singular:
            self.fans[-1] = (self.fans[-1][0] + singular.width, num_outputs)
        self.layout = block_layout(
            (f"layer{k}.{kind}", shape)
            for k, (fan_in, out) in enumerate(self.fans)
            for kind, shape in (("weight", (out, fan_in)), ("bias", (out,)))
        )
        self.num_parameters = self.layout[-1].end
        self.linear_columns = slice(self.layout[-2].offset, self.num_parameters)
        """The columns of theta in which u is linear: the last layer's."""
        self.layers: list[Layer] = [embedding] if embedding else []
        for weight, bias in zip(self.layout[::2], self.layout[1::2], strict=True):
            self.layers += [Linear(weight, bias), Activation(self.activation)]
        del self.layers[-1]  # the last layer has no activation
        if singular:
            self.layers.insert(-1, singular)

    def initial(self, seed: int) -> np.ndarray:
        """The initial parameters (P,), float64. They depend on the seed only.

        `glorot` draws weights from N(0, 2 / (fan_in + fan_out)) and sets biases to zero (Glorot and
        Bengio 2010). `uniform` draws both uniformly in +- 1 / sqrt(fan_in). Both are then
        multiplied by init_scale.
        """
        rng = np.random.Generator(np.random.Philox(key=seed))
        theta = np.zeros(self.num_parameters)
        for weight, bias in zip(self.layout[::2], self.layout[1::2], strict=True):
            out, fan_in = weight.shape
            if self.init == "glorot":
                w = sqrt(2 / (fan_in + out)) * rng.standard_normal(out * fan_in)
                theta[weight.offset : weight.end] = w
            else:
                both = rng.uniform(-1, 1, bias.end - weight.offset) / sqrt(fan_in)
                theta[weight.offset : bias.end] = both
        theta *= self.init_scale
        return theta

    def features(
        self, seed: int, scale: float | np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> np.ndarray:
        """Parameters (P,) for random features whose first units are centred in a box.

        A unit of the first layer has w = scale N(0, 1) and b = -w . e(x_c), where x_c is a random
        point of the box, in scaled coordinates, and e the embedding. Deeper hidden layers keep the
        `initial` draw. The last layer is zero.

        Args:
            seed: Seed of all draws.
            scale: Standard deviation of w; that of each unit, (units, 1), or of each input, (1, D).
            low: Lower bounds of the box of x, (D,).
            high: Upper bounds, (D,).
        """
        theta = self.initial(seed)
        rng = np.random.Generator(np.random.Philox(key=(seed, 1)))
        weight, bias = self.layout[:2]
        w = scale * rng.standard_normal(weight.shape)
        centre = self.scaling.unit(rng.uniform(low, high, (weight.shape[0], len(low))))
        if self.embedding:
            centre = self.embedding(torch.as_tensor(centre)).numpy()
        theta[weight.offset : weight.end] = w.ravel()
        theta[bias.offset : bias.end] = -(w * centre).sum(1)
        theta[self.linear_columns] = 0
        return theta

    def resized(self, theta_P: np.ndarray, scaling: Scaling) -> np.ndarray:
        """Parameters (P,) that give the same u with other offsets and sizes of the outputs."""
        old, new = self.scaling, scaling
        weight, bias = self.layout[-2:]
        theta_P = theta_P.copy()
        ratio = old.size_M / new.size_M
        weight.of(theta_P)[:] *= ratio[:, None]
        bias.of(theta_P)[:] = ratio * bias.of(theta_P) + (old.offset_M - new.offset_M) / new.size_M
        return theta_P

    def singular_coefficients(self, theta_P: np.ndarray) -> np.ndarray:
        """The coefficients (M, F) of the singular functions, in units of u; F = 0 without any.

        With a hard condition, they multiply distance(x) singular(x).
        """
        num = self.singular.width if self.singular else 0
        return self.scaling.size_M[:, None] * self.layout[-2].of(theta_P)[:, :num]

    def widened(self, theta_P: np.ndarray, narrow: "MLP") -> np.ndarray:
        """Parameters (P,) with which this network gives the same u as a narrower one.

        Its other units have weights and biases of zero.

        Args:
            theta_P: parameters of the narrower network, which may be followed by others.
            narrow: a network whose hidden layers have at most as many units.
        """
        wide_P = np.zeros(self.num_parameters)
        for new, old in zip(self.layout, narrow.layout, strict=True):
            new.of(wide_P)[tuple(map(slice, old.shape))] = old.of(theta_P)
        return np.concatenate([wide_P, theta_P[narrow.num_parameters :]])

    def point_bytes(self, layout: JetLayout) -> int:
        """Bytes of one point's jets in all layers, float64."""
        embedded = self.widths[0] if self.embedding else 0
        return 8 * layout.num_channels * (embedded + sum(self.widths[1:]))

    def factor_cost(self) -> int:
        """Multiplications for an entry of A A^T from factors, for each pair of channels."""
        return sum(fan_in + 1 + fan_out + FACTOR_OVERHEAD for fan_in, fan_out in self.fans)

    def jets(self, theta_P: torch.Tensor, x_ND: torch.Tensor, layout: JetLayout) -> torch.Tensor:
        """Jet tensor (N, C, M). torch can differentiate it in theta any number of times.

        Args:
            theta_P: Parameters, (P,).
            x_ND: Points, (N, D).
            layout: The channels.
        """
        return stacked(self._push(Push(layout, x_ND, theta_P)), len(x_ND))

    def linearise(
        self, theta_P: torch.Tensor, x_ND: torch.Tensor, layout: JetLayout
    ) -> Linearisation:
        """Jets together with their parameter Jacobian at theta. Arguments as for `jets`."""
        theta_P, x_ND, tape = theta_P.detach(), x_ND.detach(), []
        with torch.enable_grad():
            u = self._push(Push(layout, x_ND, theta_P, tape))
        return Linearisation(self, theta_P, x_ND, layout, u, tape)

    def _push(self, push):
        channels = self.scaling.coordinates(push.x_ND, push.layout)
        for layer in self.layers:
            channels = layer.push(channels, push)
        channels = self.scaling.sized(channels)
        return self.constraint.push(channels, push) if self.constraint else channels
