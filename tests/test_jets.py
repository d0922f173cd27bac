"""Jets of any order and parameter rows of networks equal those of autograd and torch.func."""

from itertools import combinations_with_replacement

import pytest
import torch
from conftest import parse_jets

from nedhpc.ansatz import algebra
from nedhpc.ansatz.activations import ACTIVATIONS, cos
from nedhpc.ansatz.jets import VALUES
from nedhpc.ansatz.mlp import MLP
from nedhpc.ansatz.module import ModuleNetwork
from nedhpc.errors import UsageError
from nedhpc.rows.base import aligned

NAMES = ("u", "v_x", "lap_u", "u_xz", "grad_v", "v_yy")
HIGH = ("u_xxxx", "v_xxyz", "u_xyz", "v_yy", "bilap_u", "lap_v", "grad_u", "v")


class Stack(torch.nn.Module):
    """The MLP as a torch module."""

    def __init__(self, mlp):
        super().__init__()
        self.activation = mlp.activation
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(a, b) for a, b in zip(mlp.widths, mlp.widths[1:], strict=False)
        )

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = self.activation(layer(x), 0)[0]
        return self.layers[-1](x)


def network(activation="tanh", hidden=(5, 6), outputs=2, coordinates=3, **extra):
    torch.manual_seed(0)
    mlp = MLP(coordinates, list(hidden), outputs, activation, **extra)
    return mlp, torch.as_tensor(mlp.initial(0)) + 0.3 * torch.randn(mlp.num_parameters)


def named_seed(lin):
    """A random seed of the channels that the layout names."""
    seed = torch.randn_like(lin.j_NCM)
    unnamed = set(range(lin.layout.num_channels)) - lin.layout.named_channels
    seed[:, list(unnamed)] = 0
    return seed


def derivative(u_N, x_ND, alpha):
    """d_alpha u by nested reverse passes."""
    for i in alpha:
        u_N = torch.autograd.grad(u_N.sum(), x_ND, create_graph=True)[0][:, i]
    return u_N


def assert_close(found, expected, rtol=1e-12):
    assert (found - expected).abs().max() < rtol * max(1, float(expected.detach().abs().max()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[], [7], [5, 6, 4]])
def test_rows_equal_torch_func(activation, hidden):
    mlp, theta = network(activation, hidden)
    layout = parse_jets(*NAMES, outputs=("u", "v"), coordinates=("x", "y", "z"))
    x = torch.randn(11, 3)
    ours = mlp.linearise(theta, x, layout)
    reference = ModuleNetwork(Stack(mlp), 2).linearise(theta, x, layout)
    seed = named_seed(ours)
    rows, expected = (
        lin.rows(seed, torch.empty(11, mlp.num_parameters)) for lin in (ours, reference)
    )
    assert (ours.j_NCM - reference.j_NCM).abs().max() < 1e-12
    assert (rows - expected).abs().max() < 1e-12 * max(1, expected.abs().max())
    torch.testing.assert_close(ours.vjp(seed), rows.sum(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(reference.vjp(seed), rows.sum(0), rtol=1e-12, atol=1e-12)
    for part in (mlp.linear_columns, *aligned(slice(0, mlp.num_parameters), mlp.layout, 10)):
        some = ours.rows(seed, torch.empty(11, part.stop - part.start), part)
        torch.testing.assert_close(some, rows[:, part], rtol=1e-13, atol=1e-13)
    v = torch.randn(mlp.num_parameters)
    for lin in (ours, reference):
        torch.testing.assert_close(
            (seed * lin.jvp(v)).sum((1, 2)), rows @ v, rtol=1e-11, atol=1e-12
        )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_derivative_up_to_order_4_equals_nested_autograd(activation):
    mlp, theta = network(activation, hidden=[7, 5])
    coordinates, outputs = "xyz", ("u", "v")
    alphas = [a for k in (1, 2, 3, 4) for a in combinations_with_replacement(range(3), k)]
    names = ["_".join(("u", "".join(coordinates[i] for i in a))) for a in alphas]
    layout = parse_jets("bilap_v", "lap_v", *names, outputs=outputs, coordinates=coordinates)
    x = torch.randn(5, 3).requires_grad_()
    u, v = mlp.jets(theta, x, VALUES)[:, 0].unbind(1)
    j = layout.view(mlp.jets(theta, x.detach(), layout))
    for name, alpha in zip(names, alphas, strict=True):
        assert_close(getattr(j, name), derivative(u, x, alpha))
    lap = sum(derivative(v, x, (i, i)) for i in range(3))
    assert_close(j.lap_v, lap)
    assert_close(j.bilap_v, sum(derivative(lap, x, (i, i)) for i in range(3)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_modules_equal_the_mlp_at_order_4(activation):
    mlp, theta = network(activation)
    layout = parse_jets(*HIGH, outputs=("u", "v"), coordinates=("x", "y", "z"))
    assert layout.order == 4
    x = torch.randn(4, 3)
    ours = mlp.linearise(theta, x, layout)
    reference = ModuleNetwork(Stack(mlp), 2).linearise(theta, x, layout)
    assert_close(ours.j_NCM, reference.j_NCM)
    seed = named_seed(ours)
    rows = [lin.rows(seed, torch.empty(4, mlp.num_parameters)) for lin in (ours, reference)]
    assert_close(*rows)


@pytest.mark.parametrize(
    "names", [("u",), ("v_y", "u"), ("lap_u", "v"), ("u_xyz", "v"), HIGH], ids=len
)
def test_rows_products_and_factors_are_of_one_jacobian(names):
    mlp, theta = network()
    layout = parse_jets(*names, outputs=("u", "v"), coordinates=("x", "y", "z"))
    lin = mlp.linearise(theta, torch.randn(6, 3), layout)
    assert_close(lin.j_NCM, mlp.jets(theta, lin.x_ND, layout), 1e-14)
    seeds = torch.stack([named_seed(lin), named_seed(lin)])
    rows = [lin.rows(seed, torch.empty(6, mlp.num_parameters)) for seed in seeds]
    # The reference: torch differentiates the jets with respect to theta.
    J = torch.func.jacrev(lambda theta: mlp.jets(theta, lin.x_ND, layout))(theta)
    assert_close(rows[0], torch.einsum("ncm,ncmp->np", seeds[0], J))
    assert_close(lin.vjp(seeds[0]), rows[0].sum(0))
    v = torch.randn(mlp.num_parameters)
    assert_close(lin.jvp(v), J @ v)
    A = torch.cat(rows)
    layers = [torch.einsum("rch,rci->rhi", z, h).flatten(1) for z, h in lin.factors(seeds)]
    AAT = sum(layer @ layer.T for layer in layers)
    assert_close(AAT, A @ A.T)


def test_jets_are_twice_differentiable_in_theta():
    mlp, theta = network(hidden=[3], outputs=1, coordinates=2)
    layout, x = parse_jets("bilap_u", "u_xxy"), torch.randn(2, 2)

    def f(theta):
        return (mlp.jets(theta, x, layout) ** 2).sum()

    step, v = 1e-6, torch.randn(mlp.num_parameters)
    ahead, behind = (torch.func.grad(f)(theta + s * step * v) for s in (1, -1))
    expected = (ahead - behind) / (2 * step)
    assert_close(torch.func.hessian(f)(theta) @ v, expected, 1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_know_their_derivatives(activation):
    z = torch.linspace(-4, 4, 201, requires_grad=True)
    values = ACTIVATIONS[activation](z, 7)
    assert len(values) == 8
    for s, ds in zip(values, values[1:], strict=False):
        grad = torch.autograd.grad(s.sum(), z, retain_graph=True)[0]
        torch.testing.assert_close(grad, ds, rtol=1e-12, atol=1e-12 * float(ds.abs().max()))


@pytest.mark.parametrize("once", [False, True])
def test_calculus_equals_nested_autograd(once):
    """The product and the composition of jets are the jets of the product and the composition."""
    layout = parse_jets("u_xxyy", "bilap_u", "u_xyy", "lap_u")
    x = torch.rand(6, 2)

    def f(x):
        return torch.stack([x[:, 0] * x[:, 1], torch.exp(x[:, 0] - x[:, 1])], 1)

    def g(x):
        return torch.sin(x[:, :1] + 2 * x[:, 1:])

    jets_f, jets_g = (algebra.function_jets(function, x, layout) for function in (f, g))
    for found, function in (
        (algebra.product(jets_f, jets_g, layout), lambda x: f(x) * g(x)),
        (algebra.compose(cos, jets_f, layout, once), lambda x: torch.cos(f(x))),
    ):
        expected = algebra.function_jets(function, x, layout)
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b)


def test_jet_names_are_parsed():
    assert parse_jets("u_x").num_channels == 2
    assert parse_jets("lap_u").num_channels == 4
    assert parse_jets("u_yx").entries[0][1:] == parse_jets("u_xy").entries[0][1:]
    # The Laplacian has no derivative in time.
    assert parse_jets("lap_u", coordinates=("x", "t")).derivatives == ((), (0,), (0, 0))
    # A bilaplacian in two coordinates has one channel more than the ten up to order 3.
    assert parse_jets("bilap_u").num_channels == 11
    assert parse_jets("u_xxx").order == 3
    for bad in ("w", "u_q", "lap_w", "u_xxq", "bilap_w"):
        with pytest.raises(UsageError, match=bad):
            parse_jets(bad)


def test_a_jet_that_was_not_declared_is_an_error_with_the_remedy():
    layout = parse_jets("u", "lap_u")
    view = layout.view(torch.zeros(3, layout.num_channels, 1))
    assert view.lap_u.shape == (3,) and view.values.shape == (3, 1)
    with pytest.raises(UsageError, match=r"'u_x' was not declared.*jets=\('u', 'lap_u', 'u_x'"):
        _ = view.u_x


def test_values_are_the_values_of_all_outputs():
    layout = parse_jets("values", "lap_u", outputs=("u", "v"))
    j = torch.rand(3, layout.num_channels, 2)
    view = layout.view(j)
    assert (view.values == j[:, 0]).all() and (view.v == j[:, 0, 1]).all()
    # If no value was named, rows do not depend on the values, so the values may not be read.
    with pytest.raises(UsageError, match="'values' was not declared"):
        _ = parse_jets("lap_u").view(j).values


@pytest.mark.parametrize("num_points", [0, 1])
def test_small_shares_have_the_right_shapes_and_values(num_points):
    mlp, theta = network(outputs=1, coordinates=2)
    layout, x = parse_jets("lap_u", "u_xxx"), torch.randn(2, 2)
    lin = mlp.linearise(theta, x[:num_points], layout)
    rows = lin.rows(lin.j_NCM, torch.empty(num_points, mlp.num_parameters))
    assert rows.shape == (num_points, mlp.num_parameters)
    whole = mlp.linearise(theta, x, layout)
    expected = whole.rows(whole.j_NCM, torch.empty(2, mlp.num_parameters))[:num_points]
    torch.testing.assert_close(rows, expected, rtol=1e-12, atol=1e-12)
    assert num_points or not lin.vjp(lin.j_NCM).any()
    assert all(len(z) == len(h) == num_points for z, h in lin.factors(lin.j_NCM.unsqueeze(0)))
