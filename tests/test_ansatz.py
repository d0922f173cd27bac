"""An ansatz is a chain of layers: embeddings, hard conditions, and layers that a user adds."""

from math import pi

import numpy as np
import pytest
import torch
from conftest import make_config, parse_jets
from test_jets import Stack, assert_close, named_seed, network

from nedhpc.ansatz.algebra import function_jets, product
from nedhpc.ansatz.constraints import HardCondition
from nedhpc.ansatz.embeddings import fourier, periodic
from nedhpc.ansatz.layers import Layer
from nedhpc.ansatz.mlp import MLP
from nedhpc.ansatz.module import ModuleNetwork
from nedhpc.errors import ConfigError
from nedhpc.rows.base import aligned

HIGH = ("bilap_u", "u_xxy", "lap_v", "grad_u", "v", "u_xy")
OUTPUTS = ("u", "v")


def lift(x):
    return torch.stack([torch.sin(x[:, 0]) * x[:, 1] ** 3, torch.zeros_like(x[:, 0])], 1)


def distance(x):
    """Vanishes at x = 0 and x = 1 for u; v has no condition."""
    return torch.stack([x[:, 0] * (1 - x[:, 0]) * torch.exp(x[:, 1]), torch.ones_like(x[:, 0])], 1)


EXTRAS = {
    "periodic": {"embedding": periodic((2.0, None), harmonics=3)},
    "fourier": {"embedding": fourier(2, 4, 1.5, seed=0)},
    "hard": {"constraint": HardCondition(lift, distance)},
    "both": {
        "embedding": periodic((None, 1.0)),
        "constraint": HardCondition(lift, distance),
    },
}


@pytest.mark.parametrize("hidden", [[], [6, 5]])
@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_embedded_and_constrained_jets_equal_those_of_plain_torch(extra, hidden):
    """Jets, rows, products and factors are compared with a torch expression of the same values."""
    mlp, theta = network(hidden=hidden, coordinates=2, **extra)
    layout, x = parse_jets(*HIGH, outputs=OUTPUTS), torch.rand(5, 2)
    lin = mlp.linearise(theta, x, layout)
    module = ModuleNetwork(Stack(mlp), 2, **extra)
    reference = module.linearise(theta, x, layout)
    assert_close(lin.j_NCM, mlp.jets(theta, x, layout), 1e-14)
    assert_close(lin.j_NCM, reference.j_NCM, 1e-11)
    seed = named_seed(lin)
    rows, expected = (lin.rows(seed, torch.empty(5, len(theta))) for lin in (lin, reference))
    assert_close(rows, expected, 1e-11)
    assert_close(lin.vjp(seed), rows.sum(0))
    v = torch.randn(len(theta))
    assert_close((seed * lin.jvp(v)).sum((1, 2)), rows @ v, 1e-11)
    for part in aligned(slice(0, len(theta)), mlp.layout, 9):
        some = lin.rows(seed, torch.empty(5, part.stop - part.start), part)
        torch.testing.assert_close(some, rows[:, part], rtol=1e-12, atol=1e-12)
    factors = lin.factors(seed.unsqueeze(0))
    layers = [torch.einsum("rch,rci->rhi", z, h).flatten(1) for z, h in factors]
    assert_close(sum(layer @ layer.T for layer in layers), rows @ rows.T)
    # The factors of a layer have the widths of the network, as factor_cost assumes.
    assert [(z.shape[2], h.shape[2] - 1) for z, h in factors] == [
        (out, fan_in) for fan_in, out in zip(mlp.widths, mlp.widths[1:], strict=False)
    ]


def test_a_hard_condition_equals_plain_torch():
    """The reference, u = lift + distance v, is differentiated by nested forward differentiation."""
    condition = HardCondition(lift, distance)
    mlp, theta = network(coordinates=2, constraint=condition)
    plain = ModuleNetwork(Stack(mlp), 2)
    layout, x = parse_jets(*HIGH, outputs=OUTPUTS), torch.rand(7, 2)

    def u(x):
        return lift(x) + distance(x) * plain.values(theta, x)

    expected = torch.stack(function_jets(u, x, layout), 1)
    assert_close(mlp.jets(theta, x, layout), expected, 1e-11)


@pytest.mark.parametrize("kind", ["mlp", "module"])
def test_a_hard_condition_holds_to_rounding_for_any_parameters(kind):
    condition = HardCondition(lift, distance)
    net, theta = network(coordinates=2, constraint=condition)
    if kind == "module":
        net = ModuleNetwork(Stack(net), 2, constraint=condition)
    y = torch.linspace(-1, 1, 20)
    layout = parse_jets("u", "u_y", "u_yy", outputs=OUTPUTS)
    for end in (0.0, 1.0):
        x = torch.stack([torch.full_like(y, end), y], 1)
        for scale in (1, 100):
            j = layout.view(net.jets(scale * theta, x, layout))
            value = np.sin(end) * y**3
            assert (j.u - value).abs().max() < 1e-15
            # u is exact all along the part, and so are its derivatives along the part.
            assert (j.u_yy - 6 * np.sin(end) * y).abs().max() < 1e-14


@pytest.mark.parametrize("kind", ["mlp", "module"])
def test_a_periodic_embedding_makes_u_and_its_derivatives_periodic(kind):
    embedding = periodic((1.5, None, 0.25), harmonics=4)
    assert embedding.width == 2 * 8 + 1
    net, theta = network(embedding=embedding)
    if kind == "module":
        net = ModuleNetwork(Stack(net), 2, embedding=embedding)
    layout = parse_jets("values", "grad_u", "u_xxz", "lap_v", outputs=OUTPUTS, coordinates="xyz")
    x = torch.rand(9, 3)
    j = net.jets(theta, x, layout)
    for shift in ([1.5, 0, 0], [-3.0, 0, 0.5]):
        assert_close(net.jets(theta, x + torch.tensor(shift), layout), j, 1e-11)
    moved = net.jets(theta, x + torch.tensor([0, 1.5, 0]), layout)
    assert (moved - j).abs().max() > 1e-2  # y is not periodic


def test_periodic_harmonics_are_those_of_the_period():
    x = torch.rand(5, 1)
    waves = periodic((0.5,), harmonics=2)(x)
    angles = 2 * pi * x / 0.5 * torch.tensor([1.0, 2.0])
    assert_close(waves, torch.cat([torch.cos(angles), torch.sin(angles)], 1), 1e-14)


def test_fourier_features_are_fixed_by_their_seed_and_scale():
    x = torch.rand(5, 3)
    one, same, other = (fourier(3, 400, 2.0, seed)(x) for seed in (0, 0, 1))
    assert (one == same).all() and not torch.allclose(one, other)
    B = fourier(3, 400, 2.0, 0).B_FD
    assert abs(B.std() / 2 - 1) < 0.1
    assert_close(one[:, :400], torch.cos(x @ torch.as_tensor(B).T))


def test_features_are_centred_in_the_embedded_box():
    low, high = np.array([0.0, -1.0]), np.array([2.0, 3.0])
    embedding = periodic((2.0, None))
    mlp = MLP(2, [50], 1, embedding=embedding)
    weight, bias = mlp.layout[:2]
    theta = mlp.features(0, 1.3, low, high)
    W, b = theta[: weight.end].reshape(weight.shape), theta[bias.offset : bias.end]
    rng = np.random.Generator(np.random.Philox(key=(0, 1)))
    rng.standard_normal(weight.shape)
    centres = rng.uniform(low, high, (50, 2))
    z = W @ embedding(torch.as_tensor(centres)).numpy().T + b[:, None]
    assert abs(np.diag(z)).max() < 1e-13 and not theta[mlp.linear_columns].any()


class Quadratic(Layer):
    """h^2 + 3 h, as a user writes a layer."""

    def push(self, channels, push):
        square = product(channels, channels, push.layout)
        return [None if a is None else b + 3 * a for a, b in zip(channels, square, strict=True)]


class Mirrored(Layer):
    """A layer of plain torch operations on the channels: both h and -h."""

    def push(self, channels, push):
        return [None if v is None else torch.cat([v[:, :2], -v[:, :2]], 1) for v in channels]


def test_a_new_layer_needs_one_class():
    """The new layers follow the first weights and precede the last ones."""
    mlp, theta = network(hidden=[4, 4], coordinates=2)
    mlp.layers.insert(1, Mirrored())
    mlp.layers.insert(4, Quadratic())

    class Module(Stack):
        def forward(self, x):
            z = self.layers[0](x)[:, :2]
            z = self.layers[1](torch.tanh(torch.cat([z, -z], 1)))
            return self.layers[2](torch.tanh(z**2 + 3 * z))

    layout, x = parse_jets(*HIGH, outputs=OUTPUTS), torch.randn(5, 2)
    lin = mlp.linearise(theta, x, layout)
    reference = ModuleNetwork(Module(mlp), 2).linearise(theta, x, layout)
    assert_close(lin.j_NCM, reference.j_NCM, 1e-11)
    seed = named_seed(lin)
    rows = [lin.rows(seed, torch.empty(5, len(theta))) for lin in (lin, reference)]
    assert_close(*rows, 1e-11)
    v = torch.randn(len(theta))
    assert_close((seed * lin.jvp(v)).sum((1, 2)), rows[0] @ v, 1e-10)


def test_jets_that_vanish_give_zero_rows():
    mlp, theta = network(hidden=[], coordinates=2, outputs=1)
    lin = mlp.linearise(theta, torch.rand(3, 2), parse_jets("lap_u"))
    seed = torch.ones_like(lin.j_NCM)
    assert not lin.j_NCM[:, -1].any() and not lin.rows(seed, torch.ones(3, len(theta))).any()
    assert not lin.vjp(seed).any()
    assert not any(z_bar.any() for z_bar, _ in lin.factors(seed.unsqueeze(0)))


def test_network_settings_are_read_and_checked():
    network = make_config(
        network={
            "embedding": "fourier",
            "fourier": {"num_features": 5, "scale": 2.0},
            "periodic": {"harmonics": 3},
            "name": "net.py:Net",
            "arguments": {"depth": 2},
        }
    ).network
    assert (network.fourier.num_features, network.periodic.harmonics) == (5, 3)
    assert network.arguments == {"depth": 2}
    for wrong in ({"embedding": "forier"}, {"fourier": {"scale": 0}}, {"arguments": {"depth": 2}}):
        with pytest.raises(ConfigError, match="network"):
            make_config(network=wrong)
