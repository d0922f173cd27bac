"""The steady problems of the catalogue: their known solutions satisfy their own equations."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from exact_jets import relative_residuals, term_points
from processes import ROOT

from nedhpc import problems
from nedhpc.problems.conditions import hard_groups

sys.path.append(str(ROOT / "scripts"))
import cavity_reference  # noqa: E402

RESIDUALS = (
    ("helmholtz", {}),
    ("helmholtz", {"waves": 2}),
    ("nonlinear_poisson", {}),
    ("nonlinear_poisson", {"width": 0.05}),
    ("poisson_boltzmann", {}),
    ("poisson_boltzmann", {"plate": 1.0}),
    ("advection_diffusion", {}),
    ("advection_diffusion", {"eps": 0.01}),
    ("eikonal", {}),
    ("l_shape", {}),
    ("l_shape_feature", {}),
    ("square_with_holes", {}),
    ("outside_disk", {}),
    ("in_ball", {}),
    ("biharmonic", {}),
    ("beam", {}),
    ("elasticity", {}),
    ("kovasznay", {}),
    ("kovasznay", {"re": 10.0}),
    ("stokes", {}),
)
ENERGIES = (("poisson_ritz", {}), ("p_laplacian", {}), ("p_laplacian", {"p": 4.0}))


def built(name, options):
    return problems.build({"name": name, **options})


def solution(problem):
    """`exact` as a function (N, D) -> (N, M)."""
    return lambda x: problem.exact(x).reshape(len(x), -1)


@pytest.mark.parametrize("name, options", RESIDUALS, ids=str)
def test_the_solution_satisfies_equations_and_conditions(name, options):
    problem = built(name, options)
    found = relative_residuals(problem, solution(problem))
    assert max(found.values()) < 1e-10, found


@pytest.mark.parametrize("name, options", (*RESIDUALS, *ENERGIES), ids=str)
def test_the_solution_has_the_hard_values(name, options):
    problem = built(name, options)
    for output, groups in hard_groups(problem).items():
        for value, parts in groups:
            x, _, _ = term_points(problem, parts[0], 50)
            u = solution(problem)(x)[:, problem.outputs.index(output)]
            assert (u - value).abs().max() < 1e-12


@pytest.mark.parametrize("name, options", ENERGIES, ids=str)
def test_the_solution_makes_the_energy_stationary(name, options):
    """Euler and Lagrange's equation: d l / du = div(d l / d grad u)."""
    problem = built(name, options)
    x, _, _ = term_points(problem, "interior", 100)
    x.requires_grad_()
    u = problem.exact(x)
    slope = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    j = SimpleNamespace(u=u.clone(), grad_u=slope.clone())  # neither depends on the other
    energy = problem.energy(j) if name == "p_laplacian" else problem.energy(x, j)
    force, flux = torch.autograd.grad(energy.sum(), (j.u, j.grad_u), create_graph=True)
    columns = [
        torch.autograd.grad(flux[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2)
    ]
    scale = force.abs().max()
    assert (force - sum(columns)).abs().max() < 1e-10 * scale and scale > 0.1


def test_both_materials_satisfy_their_equations_and_the_jump_conditions():
    problem = built("materials", {})
    found = relative_residuals(problem, problem.both)
    assert max(found.values()) < 1e-10, found
    x = torch.as_tensor(problem.domain.parts["interface"].points(np.array([[0.1], [0.7]]))[0])
    assert (x.norm(dim=1) - problem.radius).abs().max() < 1e-12
    slope = torch.autograd.functional.jacobian(lambda x: problem.both(x).sum(0), x)
    assert (slope[0] - slope[1]).abs().max() > 0.5  # the gradients differ, the fluxes do not


def test_the_reference_of_the_cavity_is_that_of_its_script():
    """Fewer polynomials give the file's numbers but for their own error, and the lid's velocity."""
    problem = built("cavity", {})
    points, values = problem.reference.points, problem.reference.values
    found = cavity_reference.reference(15)
    np.testing.assert_allclose(points, found[:, :2], atol=1e-12)
    assert 1e-8 < np.abs(values - found[:, 2:]).max() < 2e-5
    x = torch.as_tensor(points)
    wall = ((x == 0) | (x == 1)).any(1).numpy()
    lid = problem.hard["boundary"]["u"](x).numpy()
    np.testing.assert_allclose(values[wall], np.stack([lid, 0 * lid], 1)[wall], atol=1e-10)
    assert lid[wall].max() == 1


def test_the_channel_with_a_step_has_the_parts_that_it_names():
    domain = built("backward_step", {}).domain
    lengths = {name: domain.parts[name].measure for name in ("inlet", "outlet", "walls")}
    assert lengths == pytest.approx({"inlet": 0.5, "outlet": 1.0, "walls": 6 + 1 + 0.5 + 5})
    assert domain.parts["interior"].measure == pytest.approx(5.5)


def test_the_interface_of_the_document_is_a_valid_problem():
    text = (ROOT / "docs" / "domains.md").read_text()
    (block,) = (code for code in text.split("```python\n")[1:] if "class Inclusion" in code)
    found = {}
    exec(block.partition("```")[0], found)
    problem = found["Inclusion"]()
    problems.check(problem, "Inclusion")
    terms = {term.kind.name: term.layout.names for term in problems.bind_terms(problem, {})}
    assert terms["temperature"] == ("a", "b") and set(terms["flux"]) == {"grad_a", "grad_b"}
    x = np.array([[0.3, -0.4]])
    np.testing.assert_allclose(problem.domain.parts["interface"].normal(x), [[0.6, -0.8]])
