"""Jets and parameter rows of the built-in network against torch.func, and jets of any torch module."""

import pytest
import torch
from conftest import parse_jets

from nedhpc.ansatz.activations import ACTIVATIONS
from nedhpc.ansatz.mlp import MLP
from nedhpc.ansatz.module import ModuleNetwork
from nedhpc.errors import UsageError
from nedhpc.rows.base import aligned

NAMES = ("u", "v_x", "lap_u", "u_xz", "grad_v", "v_yy")


class Stack(torch.nn.Module):
    """The MLP as a torch module."""

    def __init__(self, mlp):
        super().__init__()
        self.activation = mlp.activation
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(a, b) for a, b in zip(mlp.widths, mlp.widths[1:])
        )

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = self.activation(layer(x), 0)[0]
        return self.layers[-1](x)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [[], [7], [5, 6, 4]])
def test_rows_equal_torch_func(activation, hidden):
    torch.manual_seed(0)
    mlp = MLP(3, hidden, 2, activation)
    layout = parse_jets(*NAMES, outputs=("u", "v"), coordinates=("x", "y", "z"))
    theta = torch.as_tensor(mlp.initial(0)) + 0.3 * torch.randn(mlp.num_parameters)
    x = torch.randn(11, 3)
    ours, reference = (
        mlp.linearise(theta, x, layout),
        ModuleNetwork(Stack(mlp), 2).linearise(theta, x, layout),
    )
    seed = torch.randn_like(ours.j_NCM)
    seed[:, [c for c in range(layout.num_channels) if c not in layout.named_channels]] = 0
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
def test_activation_derivatives(activation):
    z = torch.linspace(-4, 4, 201, requires_grad=True)
    values = ACTIVATIONS[activation](z, 3)
    for s, ds in zip(values, values[1:]):
        torch.testing.assert_close(
            torch.autograd.grad(s.sum(), z, retain_graph=True)[0], ds, rtol=1e-12, atol=1e-12
        )


def test_jet_names():
    assert parse_jets("u_x").num_channels == 2
    assert parse_jets("lap_u").num_channels == 4
    assert parse_jets("u_yx").entries[0][1:] == parse_jets("u_xy").entries[0][1:]
    # The Laplacian is one in space.
    layout = parse_jets("lap_u", coordinates=("x", "t"))
    assert layout.derivatives == ((), (0,), (0, 0)) and not layout.sums
    for bad in ("w", "u_q", "lap_w", "u_xw"):
        with pytest.raises(UsageError, match=bad):
            parse_jets(bad)


def test_empty_share_has_right_shapes():
    mlp, layout = MLP(2, [5], 1), parse_jets("lap_u")
    lin = mlp.linearise(torch.as_tensor(mlp.initial(0)), torch.empty(0, 2), layout)
    assert lin.rows(lin.j_NCM, torch.empty(0, mlp.num_parameters)).shape == (0, mlp.num_parameters)
    assert not lin.vjp(lin.j_NCM).any()
