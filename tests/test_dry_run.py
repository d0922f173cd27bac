"""The dry run finds what a term uses, and refuses what would give a wrong answer later."""

import numpy as np
import pytest
import torch
from conftest import make_table

import nedhpc
from nedhpc.cli.main import main
from nedhpc.errors import ConfigError
from nedhpc.plan import Plan


class Square(nedhpc.Problem):
    """The terms under test are added to this domain."""

    domain = nedhpc.Box([0, 0], [1, 1])
    outputs = ("u", "v")
    coefficients = {"nu": 0.1}
    data = nedhpc.DataSet(np.random.default_rng(0).random((30, 2)), np.ones((30, 2)))


def plan(method, kind=nedhpc.Residual, on="interior", cls=Square, **tables):
    """The Plan of a problem whose only term is `method`."""
    options = {"terms": [kind("term", on=on)], "term": method}
    problem = type("P", (cls,), options)()
    counts = {"interior": 40, "boundary": 20, "rule": "sobol"}
    return Plan.of_table(make_table(problem={}, sampling=counts, **tables), None, problem)


WRONG = {
    "a broadcast to (N, N)": (lambda self, x, j: j.lap_u + x[:, :1], r"\(N, N\) is a broadcast"),
    "a mean over points": (lambda self, x, j: j.u - j.u.mean(), "depends on u at other points"),
    "a mean over inputs": (lambda self, x, j: j.u - x[:, 0].mean(), "at other points"),
    "a maximum": (lambda self, x, j: j.u / j.v.max(), "depends on v at other points"),
    "a maximum of x": (lambda self, x, j: j.u * x[:, 0].max(), "the inputs at other points"),
    "a minimum of x": (lambda self, x, j: j.u * x[:, 1].min(), "the inputs at other points"),
    "the first point": (lambda self, x, j: j.u * float(x[0, 0]), "the inputs at other points"),
    "single precision": (lambda self, x, j: j.u.float(), "returns torch.float32 for points in f"),
    "a cumulative sum": (lambda self, x, j: j.u.cumsum(0), "at other points"),
    "random numbers": (
        lambda self, x, j: j.u + torch.rand(len(x)),
        "random numbers or hidden state",
    ),
    "changed points": (lambda self, x, j: j.u * x.mul_(2)[:, 0], "changes the points x in place"),
    "a scalar": (lambda self, x, j: j.u.sum(), r"returns shape \(\); needed"),
    "a transposed stack": (
        lambda self, x, j: torch.stack([j.u, j.v]),
        r"returns shape \(2, 7\); needed",
    ),
    "three axes": (lambda self, x, j: j.u[:, None, None], r"returns shape \(7, 1, 1\); needed"),
    "a float": (lambda self, x, j: 0.0, "returns float; needed"),
    "nothing": (lambda self, x, j: None, "returns NoneType; needed"),
    "numpy": (lambda self, x, j: x[:, 0].numpy(), "returns ndarray; needed"),
    "a tuple": (lambda self, x, j: (j.u, j.v), "returns tuple; needed"),
    "complex numbers": (lambda self, x, j: j.u + 1j, "complex128; needed are real"),
    "no dependence on u": (lambda self, x, j: x[:, 0], "no gradient with respect to u"),
    "a detached value": (lambda self, x, j: j.u.detach(), "no gradient with respect to u"),
    "a comparison": (lambda self, x, j: (j.u > 0.5).double(), "no gradient with respect to u"),
    "a sign": (lambda self, x, j: torch.sign(j.u), "its value does not change with u.*tanh"),
    "rounded values": (lambda self, x, j: torch.round(j.u) - 1, "its value does not change with u"),
    "a product with 0": (lambda self, x, j: 0 * j.u + x[:, 0], "its value does not change with u"),
    "flat components": (
        lambda self, x, j: torch.stack([torch.floor(j.u), torch.ceil(j.v)], 1),
        "its value does not change with u",
    ),
    "an unknown jet": (lambda self, x, j: j.w_x, "jet 'w_x' is unknown"),
    "an unknown coefficient": (
        lambda self, x, j, c: j.u - c.mu,
        "raises AttributeError.*test_dry_run",
    ),
    "a wrong index": (lambda self, x, j: j.u - x[:, 5], "raises IndexError.*test_dry_run"),
    "too many arguments": (
        lambda self, x, j, c, y, n, z: j.u,
        "it may name any of x, j, c, y, n, t",
    ),
    "arguments of one meaning": (lambda self, j, jets: j.u, "it may name any of"),
    "targets off data": (lambda self, x, j, c, y: j.u - y[:, 0], 'only terms on "data" have'),
    "times without t": (lambda self, j, t: j.u - t, "has no coordinate t"),
    "normals inside": (lambda self, j, n: j.u * n[:, 0], "normal"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_terms_are_refused(name):
    method, part = WRONG[name]
    with pytest.raises(ConfigError, match=f"(?s)term 'term': .*{part}"):
        plan(method)


RIGHT = {
    "jets found": (lambda self, x, j: -j.lap_u + j.u_xy, {"lap_u", "u_xy"}, 1),
    "two components": (lambda self, x, j: torch.stack([j.u, j.v_x], 1), {"u", "v_x"}, 2),
    "a column": (lambda self, x, j: j.u_x[:, None], {"u_x"}, 1),
    "a gradient": (lambda self, x, j: j.grad_u, {"grad_u"}, 2),
    "all values": (lambda self, x, j: j.values - x, {"u", "v"}, 2),
    "arguments by name": (lambda self, c, j: j.u - c.nu, {"u"}, 1),
    "arguments by position": (lambda self, points, jets, coefficients: jets.u, {"u"}, 1),
    "only a coefficient": (lambda self, x, c: c.nu - x[:, 0], set(), 1),
    "a logarithm": (lambda self, x, j: torch.log(j.u - 0.5), {"u"}, 1),
    "order four": (lambda self, x, j: j.bilap_u - j.u_xxxx, {"bilap_u", "u_xxxx"}, 1),
    "a clamp": (lambda self, x, j: j.u.clamp(max=0.2), {"u"}, 1),
    "an obstacle": (lambda self, x, j: torch.relu(-j.u - 3), {"u"}, 1),
    "a large threshold": (lambda self, x, j: torch.relu(j.u - 1e3), {"u"}, 1),
    "a mask": (lambda self, x, j: torch.where(x[:, 0] < 0.01, j.u, 1.0), {"u"}, 1),
    "components that cancel": (lambda self, x, j: torch.stack([j.u, -j.u], 1), {"u"}, 2),
    "one flat component": (lambda self, x, j: torch.stack([j.u, j.u.sign()], 1), {"u"}, 2),
    "a square": (lambda self, x, j: j.u**2, {"u"}, 1),
    "a sign of a factor": (lambda self, x, j: j.u_x.sign() * j.u, {"u", "u_x"}, 1),
}


def test_a_flat_term_on_isolated_points_is_refused():
    class Ends(nedhpc.Problem):
        domain = nedhpc.Box([0.0], [1.0])
        coefficients = {"nu": 0.0}
        pde = nedhpc.residual("interior")(lambda self, j, c: torch.relu(c.nu) + 0 * j.lap_u)
        wall = nedhpc.residual("boundary")(lambda self, j: torch.round(j.u))

    with pytest.raises(ConfigError, match="1 error.*\n.*term 'wall': its value does not change"):
        Plan.of_table(make_table(problem={}), None, Ends)


@pytest.mark.parametrize("name", RIGHT)
def test_right_terms_are_bound(name):
    method, jets, components = RIGHT[name]
    (term,) = plan(method).terms
    assert set(term.layout.names) == jets and term.num_components == components


def test_rows_of_a_vector_residual_are_counted():
    """If only a third of the rows were counted, the plan would predict too little memory."""
    three = plan(lambda self, x, j: torch.stack([j.u, j.v, j.u_x], 1))
    one = plan(lambda self, x, j: j.u)
    assert (one.num_rows, three.num_rows) == (40, 120)
    assert three.memory["step"] > one.memory["step"]


def test_terms_may_use_normals_and_targets():
    (flux,) = plan(lambda self, j, n: (j.grad_u * n).sum(1), on="boundary").terms
    (fit,) = plan(lambda self, j, y: j.values - y, on="data").terms
    assert flux.roles == ("j", "n") and fit.is_misfit and not flux.is_misfit


def test_all_terms_are_reported_at_once():
    class Two(Square):
        @nedhpc.residual("interior")
        def first(self, x, j):
            return j.u.mean()

        @nedhpc.residual("boundary")
        def second(self, x, j):
            return j.u + x[:, :1]

    with pytest.raises(ConfigError) as error:
        Plan.of_table(
            make_table(problem={}, sampling={"interior": 9, "boundary": 8, "rule": "sobol"}),
            None,
            Two,
        )
    assert len(error.value.problems) == 2


def test_decorators_make_the_terms_of_subclasses_too():
    class Base(Square):
        @nedhpc.residual("interior", weight=2.0)
        def pde(self, j):
            return -j.lap_u

    class Derived(Base):
        @nedhpc.density("boundary")
        def energy(self, j):
            return j.u**2

        def pde(self, j):
            return -j.lap_u + j.u

    table = make_table(
        problem={},
        sampling={"interior": 9, "boundary": 8, "rule": "sobol"},
        weights={"pde": 3.0, "boundary": 5.0},
    )
    pde, energy = Plan.of_table(table, None, Derived).terms
    assert (pde.name, pde.weight, set(pde.layout.names)) == ("pde", 6.0, {"lap_u", "u"})
    assert (energy.name, energy.weight, energy.has_residual) == ("energy", 5.0, False)


def test_weights_that_name_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"weights.trem: unknown .*did you mean 'term'\?"):
        plan(lambda self, j: j.u, weights={"trem": 2.0})


BROKEN = """
import nedhpc
class P(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])
    terms = [nedhpc.Residual("pde", jets=("lap_u",))]
    def pde(self, x, j, c): return j.lap_u - x[:, :1]
"""


def test_check_reports_a_wrong_term_before_the_run(tmp_path, capsys):
    (tmp_path / "p.py").write_text(BROKEN)
    (tmp_path / "c.toml").write_text('[problem]\nname = "p.py:P"\n[sampling]\ninterior = 50\n')
    assert main(["check", str(tmp_path / "c.toml")]) == 2
    assert "is a broadcast of (N,) against (N, 1)" in capsys.readouterr().err


def test_a_term_has_the_name_of_its_attribute():
    class P(Square):
        pde = nedhpc.residual("interior")(lambda self, j: j.lap_u + j.v)
        same = pde

    found = Plan.of_table(make_table(problem={}, sampling={"interior": 36}), None, P)
    assert [term.name for term in found.terms] == ["pde", "same"]


def test_a_value_that_is_not_finite_is_no_mixture_of_points():
    """The run itself reports it, with the step."""
    plan(lambda self, x, j: j.u / (0 * x[:, 0]) + j.v)


def test_wrong_names_and_terms_are_reported_together():
    class P(Square):
        coefficients = {"a b": 1.0}
        pde = nedhpc.residual("interor")(lambda self, j: j.u)

    with pytest.raises(ConfigError) as caught:
        Plan.of_table(make_table(problem={}, sampling={"interior": 36}), None, P)
    assert "'a b' is not a Python name" in str(caught.value)
    assert "is on 'interor'" in str(caught.value)
