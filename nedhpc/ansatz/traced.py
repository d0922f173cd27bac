"""A torch module made of linear layers and elementwise functions, as layers on jets. Local.

torch.fx records the operations of the module's forward. If each of them is a Linear layer, an
elementwise function, a sum, a product or a concatenation, they push jets as the built-in network's
layers do. Then rows cost about the same as there, instead of some 10 times as much by torch.func.
Of any other module, `steps_of` says what is in the way.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from nedhpc.ansatz.activations import Derivatives, cos, gelu, sin, softplus, tanh
from nedhpc.ansatz.algebra import Channels, add, compose, concatenate, product
from nedhpc.ansatz.constraints import HardCondition
from nedhpc.ansatz.embeddings import Embedding
from nedhpc.ansatz.jets import VALUES, JetLayout
from nedhpc.ansatz.layers import Linear, Push
from nedhpc.ansatz.layout import Block
from nedhpc.ansatz.linearisation import Linearisation, stacked
from nedhpc.ansatz.mlp import FACTOR_OVERHEAD
from nedhpc.ansatz.module import ModuleNetwork
from nedhpc.ansatz.scaling import Scaling


class NotLayersError(Exception):
    """The module has an operation for which there is no layer; the message names it."""


class Step(NamedTuple):
    """One operation: it pushes the jets of earlier results."""

    push: Callable[..., Channels]
    """Maps the jets of the sources, and the Push, to jets."""
    sources: tuple[int, ...]
    """Numbers of the results that it needs; 0 is the input, k that of step k - 1."""
    width: int
    """Number of entries of its result for each point."""


def sigmoid(z: Tensor, order: int) -> list[Tensor]:
    """1 / (1 + exp(-z)), the derivative of softplus."""
    return softplus(z, order + 1)[1:]


def silu(z: Tensor, order: int) -> list[Tensor]:
    """z sigmoid(z)."""
    s = sigmoid(z, order)
    return [z * s[0], *(z * s[k] + k * s[k - 1] for k in range(1, order + 1))]


def exp(z: Tensor, order: int) -> list[Tensor]:
    """Exponential function."""
    return [torch.exp(z)] * (order + 1)


def by_autograd(function: Callable[[Tensor], Tensor]) -> Derivatives:
    """Any elementwise torch function with its derivatives; order k costs about 2^k evaluations."""

    def derivative(inner):
        def outer(z):
            value, pull, rest = torch.func.vjp(inner, z, has_aux=True)
            return pull(torch.ones_like(value))[0], [*rest, value]

        return outer

    def derivatives(z: Tensor, order: int) -> list[Tensor]:
        nested = lambda z: (function(z), [])
        for _ in range(order):
            nested = derivative(nested)
        last, before = nested(z)
        return [*before, last]

    return derivatives


KNOWN: dict[object, Derivatives] = {
    torch.tanh: tanh,
    torch.sin: sin,
    torch.cos: cos,
    torch.exp: exp,
    torch.sigmoid: sigmoid,
    F.tanh: tanh,
    F.sigmoid: sigmoid,
    F.silu: silu,
    F.softplus: softplus,
    F.gelu: gelu,
}
"""Functions whose derivatives have a formula, if they are called without options."""
OTHERS = {
    *(torch.sinh, torch.cosh, torch.atan, torch.asinh, torch.erf, torch.square, torch.sqrt),
    *(torch.log, torch.log1p, torch.expm1, torch.reciprocal, torch.relu, torch.abs),
    *(F.relu, F.elu, F.selu, F.celu, F.mish, F.softsign, F.logsigmoid, F.leaky_relu),
    *(operator.pow, torch.pow, *KNOWN),
}
"""Functions that act elementwise; with options too."""
KNOWN_MODULES = {nn.Tanh: tanh, nn.Sigmoid: sigmoid, nn.SiLU: silu}
OTHER_MODULES = (nn.GELU, nn.Softplus, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Softsign, nn.ReLU)
OTHER_MODULES += (nn.LogSigmoid, nn.LeakyReLU, nn.Hardtanh, nn.Tanhshrink)
SUMS = {operator.add: 1, torch.add: 1, operator.iadd: 1, operator.sub: -1, torch.sub: -1}
NEGATIVES = (operator.neg, torch.neg)
PRODUCTS = (operator.mul, torch.mul, operator.imul)


def steps_of(
    module: nn.Module, blocks: Sequence[Block], width: int
) -> tuple[list[Step], list[Linear]]:
    """The operations of a module in their order, and its Linear layers; the last one is its output.

    Args:
        module: it maps (N, width) to (N, M), point by point.
        blocks: where its parameters lie in theta.
        width: number of its inputs.

    Raises:
        NotLayersError: an operation has no layer, a Linear layer has no bias or is used twice, or
            parameters are not those of Linear layers.
    """
    try:
        graph = torch.fx.symbolic_trace(module)
    except Exception as error:  # whatever a user's forward does with what is no tensor
        raise NotLayersError(f"torch.fx cannot trace it: {error}") from None
    reader = _Reader(dict(graph.named_modules()), {block.name: block for block in blocks}, width)
    for node in graph.graph.nodes:
        reader.read(node)
    unused = sorted(reader.blocks)
    if unused:
        raise NotLayersError(f"{unused[0]} is no parameter of a Linear layer that is used")
    return reader.steps, reader.linears


class _Reader:
    """Turns the nodes of a graph into steps; `blocks` are those that no layer has taken yet."""

    def __init__(self, modules: dict[str, nn.Module], blocks: dict[str, Block], width: int):
        self.modules, self.blocks = modules, blocks
        self.steps: list[Step] = []
        self.linears: list[Linear] = []
        self.widths, self.numbers = [width], {}

    def read(self, node) -> None:
        """Add the step of a node."""
        if node.op == "placeholder":
            if self.numbers:
                raise NotLayersError("its forward has several arguments")
            self.numbers[node] = 0
        elif node.op == "output":
            if not self.steps or self._number(node.args[0]) != len(self.steps):
                raise NotLayersError("its output is not its last operation")
        elif node.op == "call_module":
            self._module(node, self.modules[node.target])
        elif node.op in ("call_function", "call_method"):
            self._function(node)
        else:
            raise NotLayersError(f"{node.target} is used outside a Linear layer")

    def _add(self, node, push, sources, width) -> None:
        self.steps.append(Step(push, tuple(sources), width))
        self.widths.append(width)
        self.numbers[node] = len(self.steps)

    def _number(self, value) -> int:
        """The number of the result that a node is."""
        if not isinstance(value, torch.fx.Node) or value not in self.numbers:
            raise NotLayersError(f"{value} is no result of an operation")
        return self.numbers[value]

    def _module(self, node, module) -> None:
        source = self._number(node.args[0])
        if type(module) is nn.Linear and not module._forward_hooks:
            names = [f"{node.target}.{kind}" for kind in ("weight", "bias")]
            if not all(name in self.blocks for name in names):
                raise NotLayersError(f"{node.target} has no bias, or is used twice")
            linear = Linear(*(self.blocks.pop(name) for name in names))
            self.linears.append(linear)
            self._add(node, linear.push, [source], module.out_features)
        elif type(module) in KNOWN_MODULES:
            self._elementwise(node, KNOWN_MODULES[type(module)], source)
        elif type(module) in OTHER_MODULES:
            self._elementwise(node, by_autograd(module), source)
        elif type(module) is nn.Identity:
            self.numbers[node] = source
        else:
            raise NotLayersError(f"{node.target} is a {type(module).__name__}")

    def _function(self, node) -> None:
        function, args, options = node.target, node.args, dict(node.kwargs)
        if node.op == "call_method":
            function = getattr(torch, function, function)
        tensors = [value for value in args if isinstance(value, torch.fx.Node)]
        if function in (torch.cat, torch.concat):
            self._cat(node, *args, **options)
        elif function in SUMS and not options:
            self._sum(node, *args, SUMS[function])
        elif function in PRODUCTS and not options and len(tensors) == 2:
            self._product(node, *map(self._number, args))
        elif function in PRODUCTS or function in (operator.truediv, torch.div):
            self._scale(node, function, *args, **options)
        elif function in NEGATIVES:
            source = self._number(args[0])
            self._add(node, lambda a, push: _scaled(a, -1.0), [source], self.widths[source])
        elif function in OTHERS and len(tensors) == 1 and args[0] is tensors[0]:
            known = KNOWN.get(function) if len(args) == 1 and not options else None
            rest = args[1:]
            other = by_autograd(lambda z: function(z, *rest, **options))
            self._elementwise(node, known or other, self._number(args[0]))
        else:
            name = getattr(function, "__name__", function)
            raise NotLayersError(f"there is no layer for the function {name}")

    def _elementwise(self, node, function: Derivatives, source: int) -> None:
        def push(z, push):
            is_once = push.once and z[0].requires_grad
            z = [v.expand(len(push.x_ND), -1) if v is not None else None for v in z]
            return compose(function, z, push.layout, is_once)

        self._add(node, push, [source], self.widths[source])

    def _sum(self, node, a, b, sign) -> None:
        if isinstance(b, torch.fx.Node) and isinstance(a, torch.fx.Node):
            sources = self._number(a), self._number(b)
            if self.widths[sources[0]] != self.widths[sources[1]]:
                raise NotLayersError("a sum of results of different widths")
            push = lambda a, b, push: add(a, b if sign == 1 else _scaled(b, -1.0))
            self._add(node, push, sources, self.widths[sources[0]])
            return
        if isinstance(a, torch.fx.Node):
            source, factor, shift = a, 1.0, sign * _real(b)
        else:
            source, factor, shift = b, float(sign), _real(a)
        source = self._number(source)
        push = lambda a, push: _shifted(_scaled(a, factor), shift)
        self._add(node, push, [source], self.widths[source])

    def _product(self, node, a: int, b: int) -> None:
        widths = {self.widths[a], self.widths[b]}
        if len(widths - {1}) > 1:
            raise NotLayersError("a product of results of different widths")
        self._add(node, lambda a, b, push: product(a, b, push.layout), [a, b], max(widths))

    def _scale(self, node, function, a, b) -> None:
        is_first = isinstance(a, torch.fx.Node)
        if function not in PRODUCTS and not is_first:
            raise NotLayersError("a division by a result")
        source, number = (a, b) if is_first else (b, a)
        factor = _real(number) if function in PRODUCTS else 1 / _real(number)
        source = self._number(source)
        self._add(node, lambda a, push: _scaled(a, factor), [source], self.widths[source])

    def _cat(self, node, parts, dim=0) -> None:
        if dim not in (1, -1):
            raise NotLayersError("a concatenation of points")
        sources = [self._number(part) for part in parts]
        push = lambda *given: concatenate(list(given[:-1]), len(given[-1].x_ND))
        self._add(node, push, sources, sum(self.widths[k] for k in sources))


def _real(number) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise NotLayersError(f"{number} is no number")
    if not math.isfinite(number):
        raise NotLayersError(f"{number} is not finite")
    return float(number)


def _scaled(a: Channels, factor: float) -> Channels:
    return a if factor == 1 else [None if v is None else factor * v for v in a]


def _shifted(a: Channels, shift: float) -> Channels:
    return [a[0] + shift, *a[1:]]


class TracedNetwork(ModuleNetwork):
    """The same as ModuleNetwork, by layers that push jets.

    Args:
        module, num_outputs, embedding, constraint: as for ModuleNetwork.

    Raises:
        NotLayersError: the module is not made of layers, or tracing changes its values.
        UsageError: as ModuleNetwork.
    """

    def __init__(
        self,
        module: nn.Module,
        num_outputs: int,
        num_inputs: int,
        embedding: Embedding | None = None,
        constraint: HardCondition | None = None,
    ):
        super().__init__(module, num_outputs, embedding, constraint)
        self.coordinates = Scaling.identity(num_inputs, num_outputs)
        width = embedding.width if embedding else num_inputs
        self.steps, linears = steps_of(self.module, self.layout, width)
        starts = not embedding and self.steps[0].push == linears[0].push
        self.layers = [linears[0] if starts else None]
        self._cost = sum(sum(linear.weight.shape) + 1 + FACTOR_OVERHEAD for linear in linears)
        self._check(num_inputs)

    def _check(self, num_inputs: int) -> None:
        rng = np.random.Generator(np.random.Philox(key=0))
        x_ND, theta_P = (
            torch.as_tensor(rng.random((4, num_inputs))),
            torch.as_tensor(self.initial(0)),
        )
        with torch.no_grad():
            expected, found = self.values(theta_P, x_ND), self.jets(theta_P, x_ND, VALUES)[:, 0]
        if not torch.allclose(expected, found, rtol=1e-7, atol=1e-7):
            raise NotLayersError("torch.fx records something else than what its forward does")

    def factor_cost(self) -> float:
        """As MLP.factor_cost."""
        return self._cost

    def point_bytes(self, layout: JetLayout) -> int:
        """Bytes of a point's jets in all steps, float64."""
        return 8 * layout.num_channels * sum(step.width for step in self.steps)

    def jets(self, theta_P: Tensor, x_ND: Tensor, layout: JetLayout) -> Tensor:
        """Jet tensor (N, C, M). Arguments as for `MLP.jets`."""
        return stacked(self._push(Push(layout, x_ND, theta_P)), len(x_ND))

    def linearise(self, theta_P: Tensor, x_ND: Tensor, layout: JetLayout) -> Linearisation:
        """Jets together with their parameter Jacobian at theta. Arguments as for `jets`."""
        theta_P, x_ND, tape = theta_P.detach(), x_ND.detach(), []
        with torch.enable_grad():
            u = self._push(Push(layout, x_ND, theta_P, tape))
        return Linearisation(self, theta_P, x_ND, layout, u, tape)

    def _push(self, push):
        found = [self.coordinates.coordinates(push.x_ND, push.layout)]
        if self.embedding:
            found = [self.embedding.push(found[0], push)]
        for step in self.steps:
            found.append(step.push(*(found[k] for k in step.sources), push))
        channels = self.scaling.sized(found[-1])
        return self.constraint.push(channels, push) if self.constraint else channels
