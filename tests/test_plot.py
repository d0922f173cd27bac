"""Figures: what they show of a run, of several runs, and what keeps them from being written."""

import numpy as np
import pytest
from conftest import Decay, make_table
from matplotlib.figure import Figure
from mpi4py import MPI

import nedhpc
from nedhpc.cli import main
from nedhpc.errors import UsageError
from nedhpc.files import checkpoint
from nedhpc.postprocess import curves, fields
from nedhpc.postprocess.plot import _save, plot
from nedhpc.postprocess.sample_panel import sample_panel, training_points


@pytest.mark.parametrize(
    "name, message",
    [
        ("none/a.png", "No such file or directory; give another place"),
        ("a.xyz", "unknown format 'xyz'; allowed: .*png"),
        ("a", "unknown format ''"),
        ("/dev/full/a.png", "Not a directory"),
    ],
)
def test_what_cannot_be_written_is_a_usage_error(tmp_path, name, message):
    with pytest.raises(UsageError, match=message):
        _save(Figure(), tmp_path / name)


def test_a_full_disk_is_a_usage_error(tmp_path):
    (tmp_path / "a.png").symlink_to("/dev/full")
    with pytest.raises(UsageError, match="No space left on device"):
        _save(Figure(), tmp_path / "a.png")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    table = make_table(problem={"name": "poisson", "dim": 2}, sampling={"interior": 36})
    table["sampling"]["boundary"], table["run"]["max_steps"] = 16, 20
    return nedhpc.run(table, tmp_path_factory.mktemp("plot") / "first", MPI.COMM_SELF).run_dir


def drawn(panel):
    """The axis of a panel after it is drawn."""
    figure = Figure()
    axis = figure.add_subplot()
    panel(figure, axis)
    figure.draw_without_rendering()
    return axis


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_convergence_is_shown_against_time_and_steps(run_dir):
    columns = nedhpc.load(run_dir).series
    axes = [drawn(panel) for panel in curves.convergence({"first": columns})]
    assert [axis.get_xlabel() for axis in axes] == ["wall time [s]", "steps"]
    for axis, x in zip(axes, ("wall_time", "step"), strict=True):
        assert axis.get_yscale() == "log"
        assert legend(axis) == ["relative L2 error", "energy", "energy on held-out points"]
        names = ("relative_l2", "energy", "held_out_energy")
        for line, name in zip(axis.get_lines(), names, strict=True):
            assert np.array_equal(line.get_xydata(), np.stack([columns[x], columns[name]], 1))


def test_a_negative_energy_is_shown_on_a_linear_axis():
    columns = {"step": np.arange(3), "wall_time": np.arange(3.0), "energy": np.array([1.0, 0, -1])}
    *_, last = [drawn(panel) for panel in curves.convergence({"ritz": columns})]
    assert last.get_yscale() == "linear" and list(last.get_lines()[0].get_ydata()) == [1, 0, -1]


def test_several_runs_differ_in_colour_and_are_named(run_dir):
    columns = nedhpc.load(run_dir).series
    axis = drawn(curves.convergence({"a": columns, "b": columns})[0])
    assert legend(axis)[:3] == ["a", "b", "relative L2 error"]
    colours = [line.get_color() for line in axis.get_lines()]
    assert len(colours) == 6 and len({*colours[:3]}) == 1 and len({*colours}) == 2


def test_the_sample_is_that_of_the_run(run_dir):
    u = nedhpc.load(run_dir)
    points = training_points(u)
    assert {on: x.shape for on, x in points.items()} == {"interior": (36, 2), "boundary": (16, 2)}
    axis = drawn(sample_panel(points, u))
    assert legend(axis) == ["interior (36)", "boundary (16)"]
    shown = axis.collections[-2].get_offsets()
    assert np.array_equal(np.asarray(shown), points["interior"])


@pytest.mark.parametrize("chosen", [True, False], ids=["residual", "resampled"])
def test_the_sample_is_that_of_the_last_draw(tmp_path, chosen):
    """The energy on these points is the energy that the run has stored."""
    sampling = {"interior": 64, "rule": "residual" if chosen else "uniform", "resample_every": 2}
    table = make_table(sampling=sampling, run={"max_steps": 5})
    nedhpc.run(table, tmp_path / "run", MPI.COMM_SELF)
    u = nedhpc.load(tmp_path / "run")
    assert u.state.draw and bool(u.state.selection) == chosen
    x = training_points(u)["interior"]
    residual = u.jet("lap_u", x) + np.pi**2 * u.exact(x)[:, 0]
    weight = u.state.selection["weight"] if chosen else 1 / len(x)
    energy = (weight * residual**2).sum() / 2
    assert energy == pytest.approx(u.record.stats["energy_terms_pde"], rel=1e-9)


def test_a_march_is_shown_over_space_and_time(tmp_path):
    table = {"network": {"hidden": [8]}, "run": {"max_time": 0.3}, "output": {"times": [0.1, 0.2]}}
    nedhpc.run(table, tmp_path / "run", MPI.COMM_SELF, problem=Decay)
    axes = [drawn(panel) for panel in fields.panels(nedhpc.load(tmp_path / "run", Decay))]
    assert [axis.get_title() for axis in axes] == ["u", "u - exact", "u", "|u - exact|"]
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("x", "t")
    image = axes[0].collections[0].get_array()
    x = np.linspace(0, 2 * np.pi, image.shape[1])
    exact = np.sin(x) * np.exp(-np.array([[0.1], [0.2], [0.3]]))
    np.testing.assert_allclose(image, exact, atol=1e-3)


def test_exact_values_have_the_colours_of_the_solution(run_dir):
    u, exact, error = (
        drawn(p).collections[0].get_clim() for p in fields.panels(nedhpc.load(run_dir))
    )
    assert u == exact and error[0] == -error[1]


def test_the_command_draws_one_run_several_runs_or_some_panels(run_dir, tmp_path, capsys):
    output = tmp_path / "a.png"
    assert main(["plot", str(run_dir), "-o", str(output)]) == 0
    assert output.stat().st_size > 50_000
    few = ["plot", str(run_dir), "--show", "convergence", "-o", str(tmp_path / "b.png")]
    assert main(few) == 0 and (tmp_path / "b.png").stat().st_size < output.stat().st_size / 2
    assert main(["plot", str(run_dir), str(run_dir), "-o", str(tmp_path / "c.svg")]) == 0
    assert "did you mean 'fields'" in _error(["plot", str(run_dir), "--show", "field"], capsys)
    assert "there is no series.h5" in _error(["plot", str(run_dir), str(tmp_path)], capsys)


def _error(words, capsys):
    assert main(words) == 2
    return capsys.readouterr().err


def test_a_checkpoint_without_a_series_is_drawn(run_dir, tmp_path):
    newest = checkpoint.paths(run_dir)[-1]
    (tmp_path / newest.name).symlink_to(newest)
    plot([tmp_path], tmp_path / "a.png", ("convergence", "fields"))
    assert (tmp_path / "a.png").exists()
    with pytest.raises(UsageError, match="there is nothing to draw of timings"):
        plot([tmp_path], tmp_path / "b.png", ("timings",))
