"""The random problems of bench_trust have the solutions that it compares with; its counts."""

import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import nedhpc
from nedhpc import config
from nedhpc.ansatz import jets
from nedhpc.plan import Plan
from nedhpc.postprocess.info import info
from nedhpc.problems.dry_run import probe_points

sys.path.append(str(Path(__file__).parent.parent / "scripts"))
bench, problems, page = map(import_module, ("bench_trust", "trust_problems", "bench_page"))
KINDS, Trust = list(problems.KINDS), problems.Trust


def test_all_kinds_are_present_in_equal_numbers():
    kinds = [problems.kind_of(index) for index in range(200)]
    assert {kinds.count(kind) for kind in KINDS} == {10} and len(KINDS) == 20
    listed = [line.split()[0] for line in bench.__doc__.splitlines() if line.startswith("    ")]
    assert listed == KINDS


def points(problem, term):
    if term.on == "data":
        return torch.as_tensor(problem.data.x_ND[:50])
    return torch.as_tensor(
        probe_points(problem.domain.parts[term.on], np.random.default_rng(1), 50)
    )


def autograd_jets(problem, x_ND, names):
    """The jets of the known fields at x by automatic differentiation of their values."""
    x_ND = x_ND.clone().requires_grad_()
    fields = {output: field(x_ND) for output, field in problem.case.fields.items()}
    coordinates, space = problem.coordinates, [c for c in problem.coordinates if c != "t"]

    def derivative(u_N, letters):
        for letter in letters:
            (grad_ND,) = torch.autograd.grad(u_N.sum(), x_ND, create_graph=True)
            u_N = grad_ND[:, coordinates.index(letter)]
        return u_N

    found = {}
    for name in names:
        first, _, rest = name.partition("_")
        if first == "lap":
            found[name] = sum(derivative(fields[rest], 2 * letter) for letter in space)
        elif first == "grad":
            found[name] = torch.stack([derivative(fields[rest], letter) for letter in space], 1)
        else:
            found[name] = derivative(fields[first], rest)
    return {name: value.detach() for name, value in found.items()}


def difference_jets(problem, x_ND, names):
    """The jets of the solution of an ODE by differences of fourth order in time."""
    h = 1e-4 * float(problem.domain.high[0] - problem.domain.low[0])
    at = lambda k: problem.answer(np.clip(x_ND.numpy() + k * h, 0, problem.domain.high))
    slope_NM = (8 * (at(1) - at(-1)) - at(2) + at(-2)) / (12 * h)
    found = {}
    for k, output in enumerate(problem.outputs):
        found |= {output: at(0)[:, k], f"{output}_t": slope_NM[:, k]}
    return {name: torch.as_tensor(found[name]) for name in names}


def residual(problem, term, x_ND, known):
    """max |r| of a term at these jets, and the size of its parts: each jet is left out once."""
    y = () if term.on != "data" else (torch.as_tensor(problem.data.y_NM[: len(x_ND)]),)

    def value(table):
        return getattr(problem, term.name)(x_ND, SimpleNamespace(**table), None, *y).abs().amax(0)

    parts = [value(known | {name: torch.zeros_like(known[name])}) for name in known]
    return float((value(known) / torch.stack(parts).amax(0)).max())


@pytest.mark.parametrize("index", range(60))
def test_the_known_solution_satisfies_its_problem(index):
    problem = Trust(index=index, seed=0)
    ratios = {}
    for term in problem.terms:
        x_ND = points(problem, term)
        if not problem.case.fields:  # an ODE; the differences need neighbours in time
            x_ND = (
                x_ND if term.on == "initial" else x_ND.clamp(1e-3 * float(problem.domain.high[0]))
            )
        get = autograd_jets if problem.case.fields else difference_jets
        known = get(problem, x_ND, term.jets)
        ratios[term.name] = residual(problem, term, x_ND, known)
    answer = problem.answer(np.asarray(points(problem, problem.terms[0])))
    if problem.kind == "contradictory":
        assert max(ratios.values()) > 1e-3 and answer is None
    elif problem.kind == "noisy":
        assert 0 < ratios["fit"] < 0.2
    else:
        assert max(ratios.values()) < (1e-8 if problem.case.fields else 1e-5)
        assert (answer is None) == (problem.kind == "missing")
    assert answer is None or answer.shape == (50, len(problem.outputs))


def test_each_problem_varies_and_its_sizes_differ():
    """Over the whole set, domains and solutions have sizes from below 1e-4 to above 1e4."""
    sizes, scales = [], []
    for index in range(200):
        problem = Trust(index=index, seed=0)
        size = problem.domain.high - problem.domain.low
        sizes += size.tolist()
        x_ND = problem.domain.low + np.random.default_rng(2).random((300, len(size))) * size
        answer = problem.answer(x_ND)
        if answer is None:
            continue
        scales += answer.std(0).tolist()
        assert np.isfinite(answer).all() and (answer.std(0) > 1e-4 * np.abs(answer).max(0)).all()
    assert min(sizes) < 1e-5 and max(sizes) > 1e5
    assert min(scales) < 1e-4 and max(scales) > 1e4


def test_problems_depend_only_on_seed_and_index():
    def values(seed, index):
        problem = Trust(index=index, seed=seed)
        low, high = problem.domain.low, problem.domain.high
        return np.concatenate([low, high, problem.answer(((low + high) / 2)[None])[0]])

    for index in (0, 3, 15, 19):
        assert np.array_equal(values(0, index), values(0, index))
        assert not np.array_equal(values(0, index), values(1, index))
        assert not np.array_equal(values(0, index), values(0, index + 60))


@pytest.mark.parametrize("index", range(len(KINDS)))
def test_each_kind_is_a_valid_config(index, tmp_path):
    """The jets that are listed for the first edition are those that the dry run finds."""
    path = tmp_path / "case.toml"
    path.write_text(bench.config_text(index, 3, 20, numbers=True))
    plan = Plan.read(path, [])
    assert plan.config.run.max_wall_time == 20 and not plan.problem.has_exact
    for term, listed in zip(plan.terms, Trust(index=index, seed=3).terms, strict=True):
        layout = jets.parse(listed.jets, plan.problem.outputs, plan.problem.coordinates)
        assert set(term.layout.names) == set(layout.names)
    # A revision that chooses its numbers of points itself gets only two tables.
    path.write_text(bench.config_text(index, 3, 20, numbers=False))
    assert set(config.read(path)) == {"problem", "run"}


GOOD = {"status": "wall_time", "message": "", "warnings": [], "error_estimate": None}


@pytest.mark.parametrize(
    "facts, code, expected",
    [
        (GOOD, 0, False),
        ({"status": "converged", "message": "the target 1e-4 is reached"}, 0, False),
        (GOOD | {"error_estimate": 1e-4, "trust": 0.9}, 0, False),
        (GOOD | {"error_estimate": 0.3}, 0, True),
        (GOOD | {"error_estimate": float("nan")}, 0, True),
        (GOOD | {"status": "stalled"}, 0, True),
        (GOOD | {"status": "failed"}, 0, True),
        (GOOD | {"warnings": ["the conditions contradict each other"]}, 0, True),
        (GOOD | {"message": "The solution is not unique"}, 0, True),
        (GOOD, 2, True),
        (GOOD, bench.KILLED, True),
        (None, 0, True),
    ],
)
def test_what_counts_as_told(facts, code, expected):
    assert bench.told(facts, code) is expected


def result(kind, error, told=False, code=0):
    return {"kind": kind, "error": error, "told": told, "code": code, "numbers": False}


def test_the_counts():
    results = [
        result("heat", 1e-6),
        result("heat", 5e-4, told=True),
        result("heat", 5e-3),  # neither solved nor wrong
        result("wave", 0.5),
        result("wave", 0.5, told=True),
        result("wave", None, told=True, code=bench.KILLED),
        result("missing", None),
        result("contradictory", None, told=True),
    ]
    found = bench.counts(results)
    assert found["runs"] == 8 and found["answerable"] == 6
    assert found["solved"] == [2, 1, 1] and found["median"] == pytest.approx(0.2525)
    assert found["told"] == 4 and found["told_but_solved"] == 1
    assert found["wrong"] == 5 and found["silent"] == 2 and found["killed"] == 1
    lines = bench.table(results)
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        *("heat", "wave", "contradictory", "missing", "all with an answer", "all")
    ]
    assert "| all | 8 | 33 % | 17 % | 17 % | 2.5e-01 | 50 % | 17 % | 62 % | 25 % | 1 |" == lines[-1]
    assert "| missing | 1 | - | - | - | - | 0 % | - | 100 % | 100 % | 0 |" in lines


def test_the_page_shows_the_table_of_the_maintainer(tmp_path):
    file = tmp_path / "trust_table.md"
    assert page.trust(file)[-1] == "Not measured yet."
    file.write_text("\n".join(["Revision abc", "", *bench.table([result("heat", 1e-6)]), ""]))
    assert page.trust(file)[-1].startswith("| all | 1 | 100 %")


def test_the_error_is_relative_to_the_variation_of_the_worst_output():
    answer = np.stack([1000 + np.sin(np.arange(100)), np.cos(np.arange(100))], 1)
    assert bench.error_of(answer, answer) == 0 and bench.error_of(answer, None) is None
    wrong = answer + 1e-3 * (answer - answer.mean(0)) * [1, 5]
    assert bench.error_of(wrong, answer) == pytest.approx(5e-3)
    mean = np.broadcast_to(answer.mean(0), answer.shape)
    assert bench.error_of(mean, answer) == pytest.approx(1)


def test_results_are_kept(tmp_path, monkeypatch):
    class Fake:
        label, calls = "abc", []

        def solve(self, index, seed, seconds):
            self.calls.append(index)
            return result(problems.kind_of(index), 1e-4) | {
                "info": None,
                "problems": bench.problems_digest(),
            }

    args = Namespace(count=40, only="heat", seed=0, seconds=5.0, jobs=2, cache=tmp_path)
    index, fake = KINDS.index("heat"), Fake()
    first = bench.solve_all(fake, args)
    assert sorted(fake.calls) == [index, index + 20] and bench.solve_all(fake, args) == first
    assert len(fake.calls) == 2
    monkeypatch.setattr(bench, "problems_digest", lambda: "changed")
    bench.solve_all(fake, args)
    assert len(fake.calls) == 4


def test_a_run_is_measured(tmp_path, capsys):
    """The command runs problem 3 for two seconds in this checkout, and prints the table."""
    call = ["--count", "4", "--only", "offset", "--seconds", "2", "--cache", str(tmp_path)]
    table = tmp_path / "table.md"
    bench.main([*call, "--label", "here", "--append", str(table)])
    (file,) = tmp_path.glob("here-0-003-2s.json")
    assert '"code": 0' in file.read_text() and '"status"' in file.read_text()
    printed = capsys.readouterr().out
    assert "| offset | 1 |" in printed and table.read_text() == printed
    assert nedhpc.Problem.exact is Trust.exact


def test_the_estimated_error_counts_the_residual_that_its_features_do_not_explain(tmp_path):
    """They explain half of the residual here: without the rest, the error was 2.5 times larger."""
    problem = Trust(index=28, seed=0)
    tables = {
        "run": {"max_steps": 60, "start": "random"},
        "network": {"hidden": [12, 12]},
        "sampling": {"interior": 500, "boundary": 200, "initial": 100},
    }
    nedhpc.run(tables, tmp_path / "run", problem=problem)
    u = nedhpc.load(tmp_path / "run", problem=problem)
    low, high = problem.domain.low, problem.domain.high
    x_ND = low + np.random.default_rng(0).random((5000, len(low))) * (high - low)
    true = bench.error_of(np.asarray(u(x_ND), float), problem.answer(x_ND))
    assert 0.4 < true / info(tmp_path / "run")["error_estimate"] < 2
