"""Names that a problem gives to its terms, coefficients, outputs and metrics end up in files."""

import pytest
import torch
from conftest import make_table

import nedhpc
from nedhpc.cli.main import main
from nedhpc.errors import UsageError
from nedhpc.postprocess.info import info

BAD = ["error/max", "/", ".", "", "a\0b", "\udc80", 3]


class Decay(nedhpc.Problem):
    """u' = -k u, u(0) = 1."""

    domain = nedhpc.Box([0.0], [1.0])

    @nedhpc.residual("interior")
    def ode(self, j):
        return j.u_x + j.u

    def exact(self, x):
        return torch.exp(-x[:, 0])


def run(tmp_path, problem, steps=2):
    table = make_table(problem={}, run={"max_steps": steps})
    return nedhpc.run(table, tmp_path / "run", problem=problem, resume="auto").run_dir


def with_metric(name):
    return {"metrics": lambda self, x, u, y: {name: (u - y)[:, 0].abs()}}


def with_term(name):
    return {name: lambda self, j: j.u, "terms": [nedhpc.Residual(name)]}


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_a_metric_that_no_file_can_hold_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(UsageError, match="metric .* name that cannot be stored"):
        run(tmp_path, type("P", (Decay,), with_metric(name)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "attributes",
    [{"coefficients": {"k/m": 1.0}}, {"outputs": ("u/v",)}, with_term("a/b"), with_term("a\0b")],
    ids=["coefficient", "output", "term", "null"],
)
def test_other_names_that_no_file_can_hold_are_refused(tmp_path, attributes):
    with pytest.raises(UsageError, match="is not a Python name|name that cannot be stored"):
        run(tmp_path, type("P", (Decay,), attributes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.b", "max |u - y| in µm", "..", "step", "a" * 300])
def test_any_other_name_is_written_read_and_continued(tmp_path, name, capsys):
    problem = type("P", (Decay,), with_metric(name) | with_term(name))
    folder = run(tmp_path, problem)
    assert name in info(folder)["metrics"] and name in info(folder)["energy_terms"]
    assert main(["info", str(folder)]) == 0 and name in capsys.readouterr().out
    run(tmp_path, problem, 4)
    series = nedhpc.load(folder, problem).series
    assert len(series[f"metrics/{name}"]) == len(series["step"]) and info(folder)["step"] == 4
