"""A torch module made of linear layers and elementwise functions has rows by layers."""

import pytest
import torch
import torch.nn.functional as F
from conftest import parse_jets
from test_ansatz import EXTRAS, HIGH, OUTPUTS
from test_jets import assert_close, named_seed
from torch import nn

import nedhpc
from nedhpc.ansatz.linearisation import Linearisation
from nedhpc.ansatz.module import ModuleNetwork
from nedhpc.ansatz.traced import NotLayersError, TracedNetwork
from nedhpc.cli import main
from nedhpc.rows.base import aligned


class Net(nn.Module):
    """Two Linear layers with `function` between them, and their input's `width`."""

    def __init__(self, function=torch.tanh, width=2, hidden=6):
        super().__init__()
        self.last, self.first = nn.Linear(hidden, 2), nn.Linear(width, hidden)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


class Sine(nn.Module):
    def forward(self, z):
        return torch.sin(3 * z)


class Residual(nn.Module):
    """Blocks of h + silu(W h) / 2, after coordinates and waves side by side."""

    def __init__(self):
        super().__init__()
        self.enter, self.out = nn.Linear(4, 5), nn.Linear(5, 2)
        self.blocks = nn.ModuleList([nn.Linear(5, 5) for _ in range(2)])

    def forward(self, x):
        h = self.enter(torch.cat([x, torch.sin(2 * x)], dim=1))
        for block in self.blocks:
            h = h + 0.5 * F.silu(block(h))
        return 1 - self.out(h) / 4


class Gated(nn.Module):
    """A product of two branches, with a gate of one unit, and arithmetic with numbers."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.gate = nn.Linear(2, 4), nn.Linear(2, 4), nn.Linear(2, 1)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        h = (self.a(x).tanh() - 2) * self.b(x).sigmoid() - self.a.out_features
        return self.out(-h * self.gate(x) + h.pow(2) / 2)


MODULES = {
    "tanh": lambda: Net(),
    "sine": lambda: Net(Sine()),
    "sequential": lambda: nn.Sequential(nn.Linear(2, 5), nn.Softplus(), nn.Linear(5, 2), nn.Tanh()),
    "gelu": lambda: Net(F.gelu),
    "gelu by tanh": lambda: Net(lambda z: F.gelu(z, approximate="tanh")),
    "cos and exp": lambda: Net(lambda z: torch.exp(-torch.cos(z))),
    "mish": lambda: Net(nn.Mish()),
    "residual": Residual,
    "gated": Gated,
    "elementwise first": lambda: nn.Sequential(nn.SiLU(), nn.Linear(2, 2)),
}


def assert_same(traced, reference, num_points=5):
    """Jets, rows, products and factors are those that torch.func finds."""
    theta = torch.as_tensor(traced.initial(0))
    layout, x = parse_jets(*HIGH, outputs=OUTPUTS), torch.rand(num_points, 2)
    lin, other = (net.linearise(theta, x, layout) for net in (traced, reference))
    assert isinstance(lin, Linearisation) and not isinstance(other, Linearisation)
    assert_close(lin.j_NCM, traced.jets(theta, x, layout), 1e-13)
    assert_close(lin.j_NCM, other.j_NCM, 1e-10)
    seed = named_seed(lin)
    rows, expected = (at.rows(seed, torch.empty(num_points, len(theta))) for at in (lin, other))
    assert_close(rows, expected, 1e-10)
    assert_close(lin.vjp(seed), rows.sum(0), 1e-10)
    v = torch.randn(len(theta))
    assert_close((seed * lin.jvp(v)).sum((1, 2)), rows @ v, 1e-10)
    for part in aligned(slice(0, len(theta)), traced.layout, 9):
        some = lin.rows(seed, torch.empty(num_points, part.stop - part.start), part)
        torch.testing.assert_close(some, rows[:, part], rtol=1e-12, atol=1e-12)
    layers = [
        torch.einsum("rch,rci->rhi", z, h).flatten(1) for z, h in lin.factors(seed.unsqueeze(0))
    ]
    assert_close(sum(layer @ layer.T for layer in layers), rows @ rows.T, 1e-10)


@pytest.mark.parametrize("name", MODULES)
def test_jets_and_rows_of_a_module_by_layers_equal_those_of_torch_func(name):
    torch.manual_seed(0)
    module = MODULES[name]().double()
    assert_same(TracedNetwork(module, 2, 2), ModuleNetwork(module, 2))


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_a_module_may_have_an_embedding_and_a_hard_condition(extra):
    torch.manual_seed(0)
    embedding = extra.get("embedding")
    module = Net(width=embedding.width if embedding else 2).double()
    assert_same(TracedNetwork(module, 2, 2, **extra), ModuleNetwork(module, 2, **extra))


class Twice(Net):
    def forward(self, x):
        return self.last(torch.tanh(self.first(torch.tanh(self.first(x)))))


class OwnParameter(Net):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.last(torch.tanh(self.slope * self.first(x)))


class Branch(Net):
    def forward(self, x):
        return self.last(self.first(x)) if x.sum() > 0 else self.last(-self.first(x))


class Summed(Net):
    def forward(self, x):
        return self.last(self.first(x)) + x.sum(1, keepdim=True)


def hooked():
    net = Net()
    net.first.register_forward_hook(lambda module, given, found: found + 1)
    return net


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: Twice(hidden=2), "first has no bias, or is used twice"),
        (lambda: nn.Sequential(nn.Linear(2, 2, bias=False)), "0 has no bias"),
        (OwnParameter, "slope is used outside a Linear layer"),
        (Branch, "cannot trace it"),
        (Summed, "no layer for the function sum"),
        (hooked, "first is a Linear"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "1 is a LayerNorm"),
        (lambda: Net(lambda z: z + z[:, :1]), "no layer for the function getitem"),
        (lambda: nn.ModuleDict({"a": nn.Linear(2, 2)}), "cannot trace it"),
    ],
)
def test_what_stands_in_the_way_of_layers_is_said(module, message):
    with pytest.raises(NotLayersError, match=message):
        TracedNetwork(module().double(), 2, 2)


def test_a_parameter_that_no_layer_uses_is_said():
    net = Net()
    net.idle = nn.Linear(2, 2)
    with pytest.raises(NotLayersError, match="idle.bias is no parameter of a Linear layer"):
        TracedNetwork(net.double(), 2, 2)


FILE = """
import torch

class Fast(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(2, 12), torch.nn.Tanh(), torch.nn.Linear(12, 1))

class Slow(Fast):
    def forward(self, x):
        return super().forward(x) * torch.linalg.norm(x.new_ones(1))
"""


def test_a_run_takes_layers_if_it_can_and_check_says_why_not(tmp_path, capsys):
    (tmp_path / "net.py").write_text(FILE)
    ends = []
    for name in ("Fast", "Slow"):
        table = {
            "problem": {"name": "poisson", "dim": 2},
            "network": {"name": f"{tmp_path}/net.py:{name}"},
            "sampling": {"interior": 64, "boundary": 32},
            "run": {"max_steps": 3},
        }
        nedhpc.run(table, out=tmp_path / name)
        ends.append(nedhpc.load(tmp_path / name))
        config = tmp_path / name / "config.toml"
        assert main(["check", str(config)]) == 0
        assert ("its rows are slow" in capsys.readouterr().out) == (name == "Slow")
    assert isinstance(ends[0].ansatz, TracedNetwork)
    assert not isinstance(ends[1].ansatz, TracedNetwork)
    torch.testing.assert_close(*(torch.as_tensor(u.state.theta_P) for u in ends), rtol=1e-6, atol=0)
