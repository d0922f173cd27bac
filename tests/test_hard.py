"""Hard conditions on several parts, what is missing or doubled, and singular parts."""

import re

import numpy as np
import pytest
import torch
from conftest import parse_jets

import nedhpc
from nedhpc.ansatz.algebra import function_jets
from nedhpc.ansatz.constraints import Singular
from nedhpc.ansatz.mlp import MLP
from nedhpc.errors import ConfigError
from nedhpc.plan import Plan
from nedhpc.postprocess.info import info


class Square(nedhpc.Domain):
    """The unit square, whose left and right sides and the rest of the boundary are parts."""

    def __init__(self, **parts):
        self.low, self.high = np.zeros(2), np.ones(2)
        whole = nedhpc.Part(dim=2, measure=1.0, place=lambda unit: unit)
        self.parts = {
            "interior": whole,
            "left": self.side(0, 0.0),
            "right": self.side(0, 1.0),
            "ends": nedhpc.Part(dim=1, measure=2.0, place=self.on_ends, outward=self.up_or_down),
        } | parts

    @staticmethod
    def side(axis, at, **more):
        def place(unit):
            x = np.full((len(unit), 2), at)
            x[:, 1 - axis] = unit[:, 0]
            return x

        def outward(x):
            n = np.zeros_like(x)
            n[:, axis] = 2 * at - 1
            return n

        return nedhpc.Part(dim=1, measure=1.0, place=place, outward=outward, **more)

    @staticmethod
    def on_ends(unit):
        top = unit[:, 0] > 0.5
        return np.stack([np.where(top, 2 * unit[:, 0] - 1, 2 * unit[:, 0]), 1.0 * top], 1)

    @staticmethod
    def up_or_down(x):
        return np.stack([0 * x[:, 0], np.where(x[:, 1] > 0.5, 1.0, -1.0)], 1)

    def distance(self, x, part):
        if part in ("left", "right"):
            return x[:, 0] if part == "left" else 1 - x[:, 0]
        return super().distance(x, part)


def right_value(x):
    return 1 + x[:, 1] ** 2


class Bar(nedhpc.Problem):
    """Laplace's equation for u and v; hard conditions on the sides."""

    domain, outputs = Square(), ("u", "v")
    hard = {"left": {"u": 0.0}, "right": {"u": right_value, "v": 2.0}}

    @nedhpc.residual()
    def pde(self, j):
        return torch.stack([j.lap_u, j.lap_v], 1)

    @nedhpc.residual("ends")
    def insulated(self, j, n):
        return torch.stack([(j.grad_u * n).sum(1), (j.grad_v * n).sum(1)], 1)

    @nedhpc.residual("left")
    def left_v(self, j):
        return j.v - 1


def plan_of(problem, **table):
    return Plan.of_table({"network": {"hidden": [7]}} | table, None, problem)


def jets_at(plan, x, *names, scale=30.0):
    """Jets of the plan's ansatz with large random parameters."""
    ansatz = plan.ansatz
    theta = scale * torch.randn(ansatz.num_parameters, generator=torch.Generator().manual_seed(0))
    layout = parse_jets(*names, outputs=plan.problem.outputs, coordinates=plan.problem.coordinates)
    return layout.view(ansatz.jets(theta, torch.as_tensor(x), layout))


def errors_of(problem):
    with pytest.raises(ConfigError) as raised:
        plan_of(problem)
    return str(raised.value)


def test_each_output_has_its_own_hard_values_on_each_part():
    y = torch.linspace(0.05, 0.95, 9)
    plan = plan_of(Bar)
    left = jets_at(plan, torch.stack([0 * y, y], 1), "u", "v", "u_yy")
    right = jets_at(plan, torch.stack([0 * y + 1, y], 1), "u", "v", "u_yy")
    assert left.u.abs().max() < 1e-13
    assert (right.u - 1 - y**2).abs().max() < 1e-13
    assert (right.v - 2).abs().max() < 1e-13
    assert (right.u_yy - 2).abs().max() < 1e-10
    assert (left.v - 2).abs().min() > 1e-3  # v is free on the left


def test_the_lift_between_parts_is_transfinite():
    """By weights of inverse distances: on the unit interval it is linear between two constants."""
    plan = plan_of(Bar)
    x = torch.rand(5, 2)
    assert torch.allclose(plan.ansatz.constraint.lift(x)[:, 0], x[:, 0] * (1 + x[:, 1] ** 2))
    assert torch.allclose(plan.ansatz.constraint.distance(x)[:, 0], x[:, 0] * (1 - x[:, 0]))
    assert torch.allclose(plan.ansatz.constraint.distance(x)[:, 1], 1 - x[:, 0])


def test_a_problem_may_have_its_own_distance():
    class Own(Bar):
        hard = {"ends": {"u": 3.0}}

        def distance(self, x, part):
            return x[:, 1] * (1 - x[:, 1]) if part == "ends" else super().distance(x, part)

    y = torch.tensor([0.0, 1.0, 0.0])
    x = torch.stack([torch.rand(3), y], 1)
    assert (jets_at(plan_of(Own), x, "u").u - 3).abs().max() < 1e-13


class Cooling(nedhpc.Problem):
    domain = nedhpc.SpaceTime([0.0], [1.0], end=0.1)

    def u0(x):
        return torch.sin(torch.pi * x[:, 0])

    hard = {"initial": {"u": u0}, "boundary": {"u": u0}}

    @nedhpc.residual()
    def heat(self, j):
        return j.u_t - j.u_xx

    def exact(self, x):
        return torch.sin(torch.pi * x[:, 0]) * torch.exp(-(torch.pi**2) * x[:, 1])


def test_a_hard_initial_condition_and_hard_walls_hold_together():
    x = torch.rand(6, 1)
    start = jets_at(plan_of(Cooling), torch.cat([x, 0 * x], 1), "u", "u_xx")
    assert (start.u - torch.sin(torch.pi * x[:, 0])).abs().max() < 1e-13
    assert (start.u_xx + torch.pi**2 * torch.sin(torch.pi * x[:, 0])).abs().max() < 1e-11


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"hard": {"left": {"u": 0.0}, "ends": {"u": 0.0}}},
            "no distance function for the part 'e",
        ),
        ({"distance": lambda self, x, part: x[:, 1] + 0.1}, "must be zero on all of it"),
        (
            {"distance": lambda self, x, part: x[:, 0] * (x[:, 0] - 1) * (x[:, 0] - 2) * -1},
            "must be positive there",
        ),
        ({"distance": lambda self, x, part: x}, r"returns Tensor \(64, 2\)"),
    ],
)
def test_a_wrong_distance_is_told_with_the_place(change, says):
    assert re.search(says, errors_of(type("Wrong", (Bar,), change)))


def test_parts_that_overlap_have_one_hard_value():
    class Twice(Bar):
        domain = Square(door=Square.side(0, 0.0))
        hard = {"left": {"u": 0.0}, "door": {"u": 1.0}}

        def distance(self, x, part):
            return x[:, 0]

    assert "different values on 'left' and 'door', which overlap, e.g. at (0, " in errors_of(Twice)


def remarks_of(problem, **attributes):
    return plan_of(type("Changed", (problem,), attributes)).contradictions()


def test_a_boundary_part_without_a_condition_is_named():
    assert remarks_of(Bar) == []
    (text,) = remarks_of(Bar, hard={"left": {"u": 0.0}})
    assert "no condition holds on the part 'right' of the boundary" in text
    (text,) = remarks_of(Cooling, hard={"boundary": {"u": 0.0}})
    assert "no condition holds on the part 'initial'" in text


def test_an_equation_of_first_order_needs_no_condition_at_an_outflow():
    assert remarks_of(Bar, hard={}, pde=nedhpc.residual()(lambda self, j: j.u_x + j.v_y)) == []


def test_a_term_that_a_hard_condition_makes_idle_is_named():
    idle = nedhpc.residual("left")(lambda self, j: j.u)
    (text,) = remarks_of(Bar, idle=idle)
    assert "'idle' on 'left' cannot change anything, because `hard` fixes 'u' there" in text


def test_a_term_against_a_hard_condition_contradicts_it():
    against = nedhpc.residual("left")(lambda self, j: j.u - 5)
    contradiction, idle = remarks_of(Bar, against=against)
    assert "'against' and 'hard u' contradict each other at x = 0" in contradiction
    assert "cannot change anything" in idle


@pytest.mark.parametrize("kind", ["term", "hard"])
def test_a_condition_at_a_periodic_end_is_told_with_the_place(kind):
    class Around(Square):
        periods = (1.0, None)

    change = {"domain": Around(), "hard": {"right": {"u": 1.0}} if kind == "hard" else {}}
    said = errors_of(type("Ends", (Bar,), change))
    assert "term 'left_v' is on 'left', which contains an end of the periodic direction x" in said
    assert ("hard is on 'right'" in said and "(x = 1)" in said) == (kind == "hard")
    assert "'insulated'" not in said


def test_a_term_on_the_boundary_of_a_periodic_box_is_told_why_there_is_none():
    said = errors_of(
        type(
            "Box",
            (Cooling,),
            {
                "domain": nedhpc.Periodic([0], [1]),
                "hard": {},
                "heat": nedhpc.residual("boundary")(lambda self, j: j.u),
            },
        )
    )
    assert "ends of a periodic direction (x) are no boundary" in said


def corner(x):
    """r^(2/3) sin(2 phi / 3), phi = 0 on the y axis."""
    phi = torch.atan2(-x[:, 0], x[:, 1]) % (2 * torch.pi)
    return (x.norm(dim=1) ** (2 / 3) * torch.sin(2 * phi / 3)).unsqueeze(1)


@pytest.mark.parametrize("hidden", [[], [6, 5]])
def test_singular_functions_are_added_with_trainable_coefficients(hidden):
    """u, its jets and rows equal those of the same network without them, plus c times theirs."""
    with_s = MLP(2, hidden, 1, singular=Singular(corner, 1))
    plain = MLP(2, hidden, 1)
    layout = parse_jets("u", "lap_u", "u_xy", outputs=("u",))
    x = torch.rand(6, 2) - torch.tensor([1.0, 0.3])
    theta = torch.randn(plain.num_parameters)
    c = torch.tensor([1.7])
    at = with_s.linear_columns.start
    both = torch.cat([theta[:at], c, theta[at:]])
    s = torch.stack(function_jets(corner, x, layout), 1)
    expected = plain.jets(theta, x, layout) + c * s
    lin = with_s.linearise(both, x, layout)
    assert torch.allclose(lin.j_NCM, expected, rtol=1e-12, atol=1e-12)
    seed = torch.randn(expected.shape)
    rows = lin.rows(seed, torch.empty(6, len(both)))
    old = plain.linearise(theta, x, layout).rows(seed, torch.empty(6, len(theta)))
    here = list(layout.named_channels)
    column = (seed[:, here] * s[:, here]).sum((1, 2))
    assert torch.allclose(rows[:, at], column)
    assert torch.allclose(torch.cat([rows[:, :at], rows[:, at + 1 :]], 1), old)
    assert torch.allclose(lin.vjp(seed), rows.sum(0))
    if hidden:
        wide = MLP(2, [8, 9], 1, singular=Singular(corner, 1))
        grown = torch.as_tensor(wide.widened(both.numpy(), with_s))
        assert torch.allclose(wide.jets(grown, x, layout), expected, rtol=1e-12, atol=1e-12)


def test_a_problem_names_its_singular_functions():
    class Cracked(Bar):
        def singular(self, x):
            return corner(x)

    ansatz = plan_of(Cracked).ansatz
    assert ansatz.num_parameters == plan_of(Bar).ansatz.num_parameters + 2  # one for each output
    assert ansatz.layout[-2].shape == (2, 8)

    class Wrong(Bar):
        def singular(self, x):
            return corner(x)[:, 0]

    assert "`singular` returns Tensor (64,) for 64 points" in errors_of(Wrong)


def test_a_value_is_pinned_on_isolated_points():
    """A part of one point carries one row of the condition, beside those of the other parts."""
    pin = nedhpc.Part(
        dim=0,
        measure=1.0,
        place=lambda unit: np.zeros((len(unit), 2)) + 0.25,
        cells=lambda count, start, stop: np.full((count, 2), 0.25)[start:stop],
        num_points=1,
    )
    fixed = nedhpc.residual("pin")(lambda self, j: j.v - 4)
    plan = plan_of(type("Pinned", (Bar,), {"domain": Square(pin=pin), "fixed": fixed}))
    assert plan.counts["pin"] == 1
    assert plan.energy.num_rows(plan.counts)[-1] == 1


def test_hard_sides_of_a_rectangle_hold_and_overlapping_terms_are_told():
    class Channel(nedhpc.Problem):
        domain = nedhpc.Rectangle([0, 0], [2, 1], sides={"left": "inlet", "right": "outlet"})
        hard = {"inlet": {"u": right_value}, "outlet": {"u": 0.0}}

        @nedhpc.residual()
        def pde(self, j):
            return j.lap_u

        @nedhpc.residual("boundary")
        def walls(self, j):
            return j.u - 7

    plan, y = plan_of(Channel), torch.rand(5)
    inlet = jets_at(plan, torch.stack([0 * y, y], 1), "u").u
    outlet = jets_at(plan, torch.stack([0 * y + 2, y], 1), "u").u
    assert (inlet - 1 - y**2).abs().max() < 1e-13
    assert outlet.abs().max() < 1e-13
    texts = " ".join(plan.contradictions())
    assert "'walls' and 'hard u' contradict each other" in texts


class LShape(nedhpc.Problem):
    """-lap u = 2 on an L, with a known solution that is singular at the corner."""

    domain = nedhpc.Rectangle([-1, -1], [1, 1]) - nedhpc.Rectangle([0, 0], [1, 1])

    @nedhpc.residual()
    def pde(self, j):
        return j.lap_u + 2

    @nedhpc.residual("boundary")
    def wall(self, x, j):
        return j.u - self.exact(x)

    def singular(self, x):
        return corner(x)

    def exact(self, x):
        smooth = torch.exp(x[:, 0]) * torch.sin(x[:, 1]) - 0.5 * (x**2).sum(1)
        return smooth + 1.5 * corner(x)[:, 0]


# Without `singular` the error stays at 3e-2.
def test_a_singular_function_resolves_the_corner_of_an_l(tmp_path):
    table = {
        "network": {"hidden": [64]},
        "sampling": {"interior": 300, "boundary": 120, "adapt": "none"},
        "run": {"max_steps": 50, "target_relative_l2": 1e-5},
    }
    nedhpc.run(table, problem=LShape, out=tmp_path / "a")
    found, u = info(tmp_path / "a"), nedhpc.load(tmp_path / "a", LShape)
    assert found["relative_l2"] < 1e-5
    coefficient = found["coefficients"]["singular_u_1"]
    assert abs(coefficient - 1.5) < 1e-3  # `exact` has 1.5 corner(x)
    assert u.coefficients == {"singular_u_1": coefficient} and u.coefficient_errors == {}
    assert u.series["coefficients/singular_u_1"][-1] == coefficient
