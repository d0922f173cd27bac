"""Networks as functions of a flat parameter vector, and their jets and per-sample parameter rows.

`MLP` pushes value, gradient and second-order channels through the layers together (Taylor mode, "forward
Laplacian") and reads parameter rows from one reverse sweep. `ModuleNetwork` does the same for any torch module
through torch.func. Shapes: N points, D coordinates, M outputs, C channels, H width, P parameters. All local.
"""

import itertools
from dataclasses import dataclass
from math import inf, pi, prod, sqrt

import numpy as np
import torch

from nedhpc.errors import UsageError

SQRT_HALF, INV_SQRT_2PI = sqrt(0.5), 1 / sqrt(2 * pi)
FACTOR_OVERHEAD = 40
"""What multiplying and adding two products by factors takes, in multiplications of a matrix product."""


@dataclass(frozen=True, slots=True)
class Block:
    """One named tensor of the parameter vector."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def end(self):
        return self.offset + prod(self.shape)


def block_layout(named_shapes):
    blocks, offset = [], 0
    for name, shape in named_shapes:
        blocks.append(Block(name, tuple(shape), offset))
        offset = blocks[-1].end
    return tuple(blocks)


# Each activation returns s, s', s'', s''' at z, as many as `order` asks for.


def tanh(z, order):
    s = torch.tanh(z)
    out = [s]
    if order > 0:
        s1 = 1 - s * s
        out.append(s1)
    if order > 1:
        out.append(-2 * s * s1)
    if order > 2:
        out.append(s1 * (6 * s * s - 2))
    return out


def sin(z, order):
    s, c = torch.sin(z), torch.cos(z) if order else None
    return [s, c, -s if order > 1 else None, -c if order > 2 else None][: order + 1]


def softplus(z, order):
    out = [torch.nn.functional.softplus(z, threshold=40.0)]
    if order > 0:
        p = torch.sigmoid(z)
        out.append(p)
    if order > 1:
        out.append(p * (1 - p))
    if order > 2:
        out.append(p * (1 - p) * (1 - 2 * p))
    return out


def gelu(z, order):
    cdf = 0.5 * (1 + torch.erf(z * SQRT_HALF))
    pdf = INV_SQRT_2PI * torch.exp(-0.5 * z * z)
    return [z * cdf, cdf + z * pdf, (2 - z * z) * pdf, (z * z - 4) * z * pdf][: order + 1]


ACTIVATIONS = {"tanh": tanh, "sin": sin, "softplus": softplus, "gelu": gelu}


class MLP:
    """Multilayer perceptron u(x; theta) with M outputs; theta holds each layer's weight (out, in), then its bias."""

    def __init__(
        self, num_inputs, hidden, num_outputs, activation="tanh", init="glorot", init_scale=1.0
    ):
        self.widths = (num_inputs, *hidden, num_outputs)
        self.activation = ACTIVATIONS[activation]
        self.init, self.init_scale = init, init_scale
        layers = range(len(self.widths) - 1)
        self.layout = block_layout(
            (f"layer{k}.{kind}", shape)
            for k in layers
            for kind, shape in (
                ("weight", (self.widths[k + 1], self.widths[k])),
                ("bias", (self.widths[k + 1],)),
            )
        )
        self.num_parameters = self.layout[-1].end
        self.last_layer = slice(self.layout[-2].offset, self.num_parameters)
        """The columns in which u is linear."""

    def initial(self, seed):
        """theta_0 (P,), float64 numpy, a function of the seed alone.

        `glorot`: weights N(0, 2 / (fan_in + fan_out)), biases zero (Glorot and Bengio 2010); `uniform`: both uniform in
        +- 1 / sqrt(fan_in); times init_scale.
        """
        rng = np.random.Generator(np.random.Philox(key=seed))
        theta = np.zeros(self.num_parameters)
        for k, (weight, bias) in enumerate(zip(self.layout[::2], self.layout[1::2])):
            out, fan_in = weight.shape
            if self.init == "glorot":
                theta[weight.offset : weight.end] = sqrt(2 / (fan_in + out)) * rng.standard_normal(
                    out * fan_in
                )
            else:
                theta[weight.offset : bias.end] = rng.uniform(
                    -1, 1, bias.end - weight.offset
                ) / sqrt(fan_in)
        theta *= self.init_scale
        return theta

    def point_bytes(self, layout):
        """Bytes of a point's jets in all layers, float64."""
        return 8 * layout.num_channels * sum(self.widths[1:])

    def factor_cost(self):
        """Multiplications for an entry of A A^T by `Linearization.factors`, of each pair of channels."""
        return sum(
            fan_in + 1 + fan_out + FACTOR_OVERHEAD
            for fan_in, fan_out in itertools.pairwise(self.widths)
        )

    def features(self, seed, scale, low, high):
        """theta with a random first layer of scale `scale` whose units centre in the box [low, high]: w = scale N(0, 1),
        b = -w . x_c; deeper hidden layers keep the `initial` draw, the last layer is zero."""
        theta = self.initial(seed)
        rng = np.random.Generator(np.random.Philox(key=(seed, 1)))
        weight, bias = self.layout[:2]
        w = scale * rng.standard_normal(weight.shape)
        centre = rng.uniform(low, high, (weight.shape[0], len(low)))
        theta[weight.offset : weight.end] = w.ravel()
        theta[bias.offset : bias.end] = -(w * centre).sum(1)
        theta[self.last_layer] = 0
        return theta

    def _layers(self, theta_P):
        return [
            (theta_P[w.offset : w.end].view(w.shape), theta_P[b.offset : b.end])
            for w, b in zip(self.layout[::2], self.layout[1::2])
        ]

    def jets(self, theta_P, x_ND, layout):
        """Jet tensor (N, C, M); differentiable by torch in theta."""
        return self._push(theta_P, x_ND, layout, tape=None)

    def linearize(self, theta_P, x_ND, layout):
        """Jets together with their parameter Jacobian at theta."""
        tape = []
        return Linearization(
            self, theta_P, x_ND, layout, self._push(theta_P, x_ND, layout, tape), tape
        )

    def _push(self, theta_P, x_ND, layout, tape):
        """Per layer z = W h + b with dz_i = W dh_i; then h = s(z), dh_i = s' dz_i, and for a sum of pairs (a, b)
        h_k = s''(z) q_k + s'(z) z_k with q_k = sum dz_a dz_b."""
        order = (2 if layout.second else 1 if layout.first else 0) + (1 if tape is not None else 0)
        place = {i: k for k, i in enumerate(layout.first)}
        layers = self._layers(theta_P)
        num_points = len(x_ND)
        h = first = second = None
        for depth, (weight, bias) in enumerate(layers):
            if depth == 0:
                z = torch.addmm(bias, x_ND, weight.T)
                # x is linear in x: its first derivatives are unit vectors, its second ones vanish.
                dz = [weight[:, i].unsqueeze(0) for i in layout.first]
                ddz = [None] * len(layout.second)
            else:
                stack = torch.cat([h, *first, *second]) @ weight.T
                channels = stack.view(layout.num_channels, num_points, weight.shape[0])
                z, dz = channels[0] + bias, list(channels[1 : 1 + len(first)])
                ddz = list(channels[1 + len(first) :])
            if depth == len(layers) - 1:
                break
            s = self.activation(z, order)
            q = [_pair_sum(dz, pairs, place) for pairs in layout.second]
            entering = None if h is None else [h, *first, *second]
            h = s[0]
            first = [s[1] * v for v in dz]
            second = [
                s[2] * q_k if ddz_k is None else s[2] * q_k + s[1] * ddz_k
                for q_k, ddz_k in zip(q, ddz)
            ]
            if tape is not None:
                tape.append((entering, (s, dz, ddz, q)))
        if tape is not None:
            tape.append((None if h is None else [h, *first, *second], None))
        zero = torch.zeros_like(z)
        channels = [z, *(v.expand_as(z) for v in dz), *(zero if v is None else v for v in ddz)]
        return torch.stack(channels, 1)


def _pair_sum(dz, pairs, place):
    return sum(dz[place[a]] * dz[place[b]] for a, b in pairs)


class Linearization:
    """Jets `j_NCM` at theta, and their parameter Jacobian by sample (`rows`), transposed (`vjp`) and forward (`jvp`)."""

    def __init__(self, network, theta_P, x_ND, layout, j_NCM, tape):
        self.network, self.theta_P, self.x_ND, self.layout, self.j_NCM, self.tape = (
            network,
            theta_P,
            x_ND,
            layout,
            j_NCM,
            tape,
        )

    def rows(self, seed_NCM, out, columns=None):
        """out[n] = sum_cm seed[n, c, m] d j[n, c, m] / d theta; `out` is (N, P), or those columns alone.

        columns: a slice that cuts weight blocks only between output units.
        """
        columns = slice(0, self.theta_P.numel()) if columns is None else columns

        def store(weight, bias, z_bar, entering):
            first, last = max(columns.start, bias.offset), min(columns.stop, bias.end)
            if first < last:
                value = z_bar[0]
                out[:, first - columns.start : last - columns.start] = (
                    0 if value is None else value[:, first - bias.offset : last - bias.offset]
                )
            first, last = max(columns.start, weight.offset), min(columns.stop, weight.end)
            if first >= last:
                return
            units = slice(
                (first - weight.offset) // weight.shape[1],
                (last - weight.offset) // weight.shape[1],
            )
            z_bar = [None if v is None else v[:, units] for v in z_bar]
            block = out[:, first - columns.start : last - columns.start].unflatten(
                1, (-1, weight.shape[1])
            )
            value, live = z_bar[0], _live(z_bar)
            if entering is None:  # the first layer: inputs are x, unit vectors and zeros
                if value is None:
                    block.zero_()
                else:
                    torch.mul(value.unsqueeze(2), self.x_ND.unsqueeze(1), out=block)
                for i, v in zip(self.layout.first, z_bar[1:]):
                    if v is not None:
                        block[:, :, i] += v
            elif live:
                block.copy_(
                    torch.bmm(
                        torch.stack([z_bar[c] for c in live], 2),
                        torch.stack([entering[c] for c in live], 1),
                    )
                )
            else:
                block.zero_()

        self._pull(seed_NCM, store, columns.start)
        return out

    @property
    def tape_bytes(self):
        """What it holds, about: the jets and the activation's derivatives before and after each layer."""
        return 6 * len(self.x_ND) * self.network.point_bytes(self.layout)

    def factors(self, seed_KNCM):
        """[(zbar_RCH, h_RCI)] by layer, R = K N: what row r, of the seed (k, n), holds for a layer's weight and bias is the sum over
        its channels of the outer products of zbar[r, c] and h[r, c]; the last entry of h, the bias's, is 1 for the value and else 0."""
        found = []

        def store(weight, bias, z_bar, entering):
            if entering is None:  # the first layer: x, unit vectors and zeros
                unit = torch.eye(weight.shape[1], dtype=self.x_ND.dtype, device=self.x_ND.device)
                entering = [
                    self.x_ND,
                    *(unit[i].expand_as(self.x_ND) for i in self.layout.first),
                    *(torch.zeros_like(self.x_ND) for _ in self.layout.second),
                ]
            live = _live(z_bar)
            h = [
                torch.nn.functional.pad(entering[c], (0, 1), value=float(c == 0)).repeat(
                    len(seed_KNCM), 1
                )
                for c in live
            ]
            found.append(
                (torch.stack([z_bar[c].flatten(0, 1) for c in live], 1), torch.stack(h, 1))
            )

        self._pull(seed_KNCM, store, 0)
        return found[::-1]

    def jvp(self, v_P):
        """d j / d theta . v, (N, C, M)."""
        return torch.func.jvp(
            lambda theta: self.network.jets(theta, self.x_ND, self.layout), (self.theta_P,), (v_P,)
        )[1]

    def vjp(self, seed_NCM):
        """sum_n rows(seed)[n], shape (P,), without forming the rows."""
        g_P = torch.zeros_like(self.theta_P)

        def store(weight, bias, z_bar, entering):
            block = g_P[weight.offset : weight.end].view(weight.shape)
            value, live = z_bar[0], _live(z_bar)
            if entering is None:
                if value is not None:
                    block += value.T @ self.x_ND
                for i, v in zip(self.layout.first, z_bar[1:]):
                    if v is not None:
                        block[:, i] += v.sum(0)
            elif live:
                block += torch.cat([z_bar[c] for c in live]).T @ torch.cat(
                    [entering[c] for c in live]
                )
            if value is not None:
                g_P[bias.offset : bias.end] = value.sum(0)

        self._pull(seed_NCM, store, 0)
        return g_P

    def _pull(self, seed_NCM, store, start):
        """Reverse sweep down to the layer of column `start`: each layer's pre-activation cotangents by channel, None where
        they vanish, handed to `store`.

        With s1, s2, s3 the derivatives of the activation at z:
        zbar    = hbar s1 + sum_i dhbar_i s2 dz_i + sum_k hbar_k (s3 q_k + s2 z_k)
        dzbar_i = dhbar_i s1 + s2 sum_k hbar_k dq_k/ddz_i,   zbar_k = hbar_k s1
        """
        network, layout, tape = self.network, self.layout, self.tape
        place = {i: 1 + k for k, i in enumerate(layout.first)}
        layers, blocks = network._layers(self.theta_P), network.layout
        num_first, named = len(layout.first), layout.named_channels
        z_bar = [seed if c in named else None for c, seed in enumerate(seed_NCM.unbind(-2))]
        for depth in reversed(range(len(layers))):
            store(blocks[2 * depth], blocks[2 * depth + 1], z_bar, tape[depth][0])
            if start >= blocks[2 * depth].offset:
                return
            live = _live(z_bar)
            h_bar = dict(zip(live, torch.stack([z_bar[c] for c in live]) @ layers[depth][0]))
            s, dz, ddz, q = tape[depth - 1][1]
            z_bar = [_add(None, h_bar.get(c), s[1]) for c in range(layout.num_channels)]
            for c, dz_i in enumerate(dz, 1):
                if c in h_bar:
                    z_bar[0] = _add(z_bar[0], h_bar[c], s[2] * dz_i)
            for c, (pairs, q_k, ddz_k) in enumerate(zip(layout.second, q, ddz), 1 + num_first):
                if c not in h_bar:
                    continue
                z_bar[0] = _add(
                    z_bar[0], h_bar[c], s[3] * q_k if ddz_k is None else s[3] * q_k + s[2] * ddz_k
                )
                w = h_bar[c] * s[2]
                for a, b in pairs:
                    if a == b:
                        z_bar[place[a]] = _add(z_bar[place[a]], w, 2 * dz[place[a] - 1])
                    else:
                        z_bar[place[a]] = _add(z_bar[place[a]], w, dz[place[b] - 1])
                        z_bar[place[b]] = _add(z_bar[place[b]], w, dz[place[a] - 1])


def _live(channels):
    return [c for c, v in enumerate(channels) if v is not None]


def _add(total, v, factor):
    """total + v * factor, where None is zero."""
    if v is None:
        return total
    return v * factor if total is None else torch.addcmul(total, v, factor)


class ModuleNetwork:
    """Any torch module u = module(x) on (N, D) -> (N, M), through torch.func; slower, chunk its points."""

    last_layer = None

    def __init__(self, module, num_outputs):
        self.module = module.double()
        self.num_outputs = num_outputs
        self.layout = block_layout((name, p.shape) for name, p in module.named_parameters())
        if not self.layout:
            raise UsageError("network.name: the module has no parameters to evolve")
        self.num_parameters = self.layout[-1].end

    def initial(self, seed):
        """The module's own initial parameters, (P,) float64 numpy; `seed` was set before it was built."""
        return (
            torch.cat([p.detach().reshape(-1) for p in self.module.parameters()])
            .double()
            .cpu()
            .numpy()
        )

    def _place(self, theta_P):
        """Bring the module's own tensors (buffers matter) to theta's device and dtype; never inside a transform."""
        own = next(self.module.parameters())
        if (own.device, own.dtype) != (theta_P.device, theta_P.dtype):
            self.module.to(theta_P.device, theta_P.dtype)

    def _point(self, theta_P, x_D, layout):
        """Jet (C, M) of one point."""
        parameters = {b.name: theta_P[b.offset : b.end].view(b.shape) for b in self.layout}

        def u(x):
            return torch.func.functional_call(self.module, parameters, (x.unsqueeze(0),)).squeeze(0)

        channels = [u(x_D)]
        if layout.first:
            du = torch.func.jacfwd(u)(x_D)
            channels += [du[:, i] for i in layout.first]
        if layout.second:
            ddu = torch.func.hessian(u)(x_D)
            channels += [sum(ddu[:, a, b] for a, b in pairs) for pairs in layout.second]
        return torch.stack(channels)

    def jets(self, theta_P, x_ND, layout):
        """Jet tensor (N, C, M)."""
        self._place(theta_P)
        if not len(x_ND):
            return x_ND.new_zeros(0, layout.num_channels, self.num_outputs)
        return torch.func.vmap(lambda x_D: self._point(theta_P, x_D, layout))(x_ND)

    def point_bytes(self, layout):
        """Bytes of a point's jets, float64; what the module keeps inside is not known."""
        return 8 * layout.num_channels * self.num_outputs

    @staticmethod
    def factor_cost():
        return inf

    def linearize(self, theta_P, x_ND, layout):
        return ModuleLinearization(self, theta_P, x_ND, layout)


class ModuleLinearization:
    """As `Linearization`, through torch.func.vjp."""

    def __init__(self, network, theta_P, x_ND, layout):
        self.network, self.theta_P, self.x_ND, self.layout = network, theta_P, x_ND, layout
        self.j_NCM = network.jets(theta_P, x_ND, layout)

    def rows(self, seed_NCM, out, columns=None):
        columns = slice(None) if columns is None else columns

        def row(x_D, seed_CM):
            _, pull = torch.func.vjp(
                lambda theta: self.network._point(theta, x_D, self.layout), self.theta_P
            )
            return pull(seed_CM)[0][columns]

        if len(self.x_ND):
            out[:] = torch.func.vmap(row)(self.x_ND, seed_NCM)
        return out

    def jvp(self, v_P):
        return torch.func.jvp(
            lambda theta: self.network.jets(theta, self.x_ND, self.layout), (self.theta_P,), (v_P,)
        )[1]

    def vjp(self, seed_NCM):
        if not len(self.x_ND):
            return torch.zeros_like(self.theta_P)
        _, pull = torch.func.vjp(
            lambda theta: self.network.jets(theta, self.x_ND, self.layout), self.theta_P
        )
        return pull(seed_NCM)[0]
