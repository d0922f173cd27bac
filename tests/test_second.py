"""run.estimate_error: the error, estimated from a second solution of another size."""

import signal
import tempfile

import numpy as np
import pytest
import torch
from mpi4py import MPI
from test_scaling import default_table

import nedhpc
from nedhpc.cli.main import main
from nedhpc.errors import ConfigError
from nedhpc.plan import Plan
from nedhpc.postprocess.info import info
from nedhpc.running import second
from nedhpc.running.evolve import Run
from nedhpc.running.limits import FIRST_SHARE
from nedhpc.running.measured import Measured
from nedhpc.running.signals import StopSignals
from nedhpc.running.trust import Known, warnings

COMM = MPI.COMM_SELF
TWO = "estimated from two solutions"


class Waves(nedhpc.Problem):
    """u = 300 + 1e-3 sin 4 t and v = 1e5 cos 4 t, which the program does not know."""

    outputs = ("u", "v")
    domain = nedhpc.SpaceTime([], [], 2.0)

    @staticmethod
    def solution(t):
        return np.stack([300 + 1e-3 * np.sin(4 * t), 1e5 * np.cos(4 * t)], 1)

    @nedhpc.residual("interior")
    def ode(self, j):
        return torch.stack([j.u_t - 4e-8 * j.v, j.v_t + 4e8 * (j.u - 300)], 1)

    @nedhpc.residual("initial")
    def start(self, j):
        return torch.stack([j.u - 300, j.v - 1e5], 1)


class Needle(nedhpc.Problem):
    """A peak of width 0.002, which so few points hardly see."""

    domain = nedhpc.Box([0.0], [1.0])

    @nedhpc.residual("interior")
    def fit(self, x, j):
        return j.u - 1 / (1 + 1e6 * (x[:, 0] - 0.3) ** 2)


def tables(units=16, points=64, **settings):
    run = {"max_steps": 20, "start": "random", "windows": 1, "estimate_error": True} | settings
    table = default_table(sampling={"interior": points}, run=run, network={"hidden": [units]})
    return {name: entries for name, entries in table.items() if name != "problem"}


def run(problem, run_dir, comm=COMM, **options):
    table = options.pop("table", None) or tables(**options)
    return nedhpc.run(table, run_dir, comm, problem=problem)


def true_errors(run_dir, problem):
    """{output: root mean square error relative to the spread}."""
    t = np.linspace(0, float(problem.domain.high[-1]), 1001)
    u, exact = nedhpc.load(run_dir, problem)(t), problem.solution(t)
    errors = np.sqrt(((u - exact) ** 2).mean(0)) / exact.std(0)
    return dict(zip(problem.outputs, errors, strict=True))


@pytest.mark.parametrize("steps", [8, 20, 60])
def test_the_estimate_of_each_output_is_near_its_true_error(tmp_path, steps):
    """In the user's own units, and in the API as in `nedhpc info`."""
    run(Waves, tmp_path / "run", max_steps=steps)
    found, true = info(tmp_path / "run"), true_errors(tmp_path / "run", Waves())
    assert found["error_is"] == TWO
    for name, error in true.items():
        assert 0.1 < found["error_estimates"][name] / error < 10, name
    assert found["error_estimate"] == max(found["error_estimates"].values())
    assert nedhpc.load(tmp_path / "run", Waves).error_estimates == found["error_estimates"]


def test_an_unresolved_solution_is_told(tmp_path):
    """Without balanced rows, nothing else estimates the error."""
    table = tables(points=16) | {"weights": {"balance": "none"}, "sampling": {"adapt": "none"}}
    run(Needle, tmp_path / "on", table=table)
    run(Needle, tmp_path / "off", table=table | {"run": table["run"] | {"estimate_error": False}})
    on, off = info(tmp_path / "on"), info(tmp_path / "off")
    assert off["error_is"] == "unknown" and on["error_is"] == TWO
    assert any("estimated error" in text for text in on["warnings"])
    assert not any("estimated error" in text for text in off["warnings"])
    assert set(off["warnings"]) <= set(on["warnings"])


def test_the_last_line_names_each_output(tmp_path, capsys):
    from nedhpc.cli.run import report

    run(Waves, tmp_path / "run")
    report(COMM, tmp_path / "run")
    line, found = capsys.readouterr().out, info(tmp_path / "run")["error_estimates"]
    assert f"({TWO})" in line
    assert f"error_u {found['u']:.1e}  error_v {found['v']:.1e}" in line


def test_without_the_option_there_is_no_second_solution_and_the_time_is_not_shared(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(second, "second_plan", None)
    run(Waves, tmp_path / "run", estimate_error=False)
    assert info(tmp_path / "run")["error_is"] == "estimated"
    limits = {"max_wall_time": 50.0}
    for option, share in ((False, 1), (True, FIRST_SHARE)):
        table = tables(**limits, estimate_error=option)
        plan = Plan.of_table(table, problem=Waves)
        assert Run(COMM, plan, tmp_path / f"{option}").clock.limit == 50 * share


def test_the_second_solution_has_the_time_that_is_left(tmp_path, monkeypatch):
    given = []

    def record(plan, seconds):
        given.append((plan.config, seconds, made := second_plan(plan, seconds)))
        return made

    second_plan = second.second_plan
    monkeypatch.setattr(second, "second_plan", record)
    run(Waves, tmp_path / "run", max_wall_time=100.0)
    ((first, seconds, plan),) = given
    assert 0 < seconds < 100 - info(tmp_path / "run")["wall_time"]
    assert plan.config.run.max_wall_time == seconds and not plan.config.run.estimate_error
    assert plan.config.network.hidden != first.network.hidden
    assert plan.config.run.seed != first.run.seed
    run(Waves, tmp_path / "unlimited")
    assert given[1][1] == np.inf and given[1][2].config.run.max_wall_time is None


def test_if_no_time_is_left_the_run_says_so(tmp_path):
    run(Waves, tmp_path / "run", max_wall_time=1e-3, max_steps=10**6)
    found = info(tmp_path / "run")
    assert found["status"] == "wall_time" and found["error_is"] == "estimated"
    assert any("no second solution" in text and "time" in text for text in found["warnings"])


def test_a_known_solution_needs_no_second_one(tmp_path, monkeypatch):
    class Known(Waves):
        def exact(self, x):
            return torch.as_tensor(self.solution(x[:, 0].numpy()))

    monkeypatch.setattr(second, "second_plan", None)
    run(Known, tmp_path / "run", max_steps=5)
    assert info(tmp_path / "run")["error_is"] == "measured"
    plan = Plan.of_table(tables(max_wall_time=50.0), problem=Known)
    assert Run(COMM, plan, tmp_path / "again").clock.limit == 50


class Stopping(nedhpc.Observer):
    """Sends a signal after two steps."""

    def __init__(self, signals):
        self.signals = signals

    def step(self, run, moment):
        self.signals.signal = signal.SIGTERM if moment.state.step == 2 else 0


def test_a_run_that_is_stopped_has_its_second_solution_after_it_is_resumed(tmp_path):
    signals, plan = StopSignals(), Plan.of_table(tables(), problem=Waves)
    stopped = Run(COMM, plan, tmp_path / "run", None, signals, [Stopping(signals)])
    stopped.evolve()
    second.compare(stopped)
    found = info(tmp_path / "run")
    assert found["status"] == "stopped" and found["error_is"] == "estimated"
    nedhpc.run(tables(), tmp_path / "run", COMM, problem=Waves, resume="auto")
    run(Waves, tmp_path / "whole")
    found, whole = info(tmp_path / "run"), info(tmp_path / "whole")
    assert found["status"] == "max_steps" and found["error_is"] == TWO
    assert found["error_estimates"] == whole["error_estimates"]


def test_a_stop_of_the_second_solution_stops_the_run(tmp_path, monkeypatch):
    signals, plan = StopSignals(), Plan.of_table(tables(), problem=Waves)
    evolved = Run(COMM, plan, tmp_path / "run", None, signals)
    evolved.evolve()
    signals.signal = signal.SIGTERM
    second.compare(evolved)
    found = info(tmp_path / "run")
    assert found["status"] == "stopped" and "SIGTERM" in found["message"]
    assert found["error_is"] == "estimated"
    nedhpc.run(tables(), tmp_path / "run", COMM, problem=Waves, resume="auto")
    found = info(tmp_path / "run")
    assert found["status"] == "max_steps" and found["error_is"] == TWO


def test_a_run_that_has_ended_is_compared_later(tmp_path):
    run(Waves, tmp_path / "run", estimate_error=False)
    nedhpc.run(tables(), tmp_path / "run", COMM, problem=Waves, resume="auto")
    run(Waves, tmp_path / "whole")
    found, whole = info(tmp_path / "run"), info(tmp_path / "whole")
    assert found["step"] == 20 and found["error_is"] == TWO
    assert found["error_estimates"] == whole["error_estimates"]


def test_the_second_solution_leaves_no_files(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    run(Waves, tmp_path / "on")
    run(Waves, tmp_path / "off", estimate_error=False)
    assert not list((tmp_path / "temporary").iterdir())
    on, off = (sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("on", "off"))
    assert on == off


def test_a_second_solution_that_fails_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert run(Waves, tmp_path / "run").status == "max_steps"
    found = info(tmp_path / "run")
    assert found["error_is"] == "estimated"
    assert any("no second solution" in text for text in found["warnings"])


class Digits(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])
    outputs = ("a", "b")
    data = nedhpc.DataSet(np.linspace(0, 1, 8)[:, None], np.eye(2)[[0, 1] * 4])

    @nedhpc.cross_entropy("data")
    def fit(self, j, y):
        return j.values, y


NETWORK = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 2)
    def forward(self, x):
        return self.layer(x)
"""


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ({"name": "net.py:Net"}, "the size of your own network"),
        ({"hidden": []}, "without hidden layers"),
    ],
)
def test_a_network_of_one_size_is_refused(tmp_path, monkeypatch, network, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    table = tables() | {"network": network}
    with pytest.raises(ConfigError, match=f"run.estimate_error = true.*{reason}"):
        Plan.of_table(table, problem=Waves)
    Plan.of_table(table | {"run": {"estimate_error": False}}, problem=Waves)


def test_a_refusal_ends_with_the_exit_code_2(tmp_path, capsys):
    file = tmp_path / "case.toml"
    file.write_text('[problem]\nname = "poisson"\ndim = 1\n[network]\nhidden = []\n')
    assert main(["check", str(file)]) == 0
    assert main(["check", str(file), "--set", "run.estimate_error=true"]) == 2
    assert "without hidden layers" in capsys.readouterr().err


def test_the_larger_estimate_counts_and_no_warning_is_withdrawn():
    spread, small, large = np.array([2.0, 10.0]), np.array([2e-6, 1e-5]), np.array([0.2, 3.0])
    for one, other in ((small, large), (large, small)):
        found = Known(one, spread, second_M=other)
        np.testing.assert_allclose(found.relative_M, [0.1, 0.3])
        assert found.relative == pytest.approx(0.3)
    unknown = np.full(2, np.nan)
    energies = {"energy": 1e-4, "held_out_energy": 1e-4}
    energies |= {f"balanced_{name}": E for name, E in energies.items()}
    measured = Measured(step=1, energy_terms={}, relative_l2=None, metrics={}, **energies)
    rest = (True, None, "somewhere", [])
    alone = warnings(measured, Known(unknown, spread), *rest)
    assert len(alone) == 1
    assert warnings(measured, Known(unknown, spread, second_M=small), *rest) == alone
    told = warnings(measured, Known(small, spread, second_M=large), *rest)
    assert any("estimated error is 3.0e-01" in text for text in told)


@pytest.mark.mpi
@pytest.mark.parametrize("windows", [1, 2])
def test_ranks_agree_on_the_estimate(comm, folder, windows):
    options = {"max_steps": 12 * windows, "windows": windows, "points": 24}
    plan = Plan.of_table(tables(**options), problem=Waves, num_ranks=comm.size)
    evolved = Run(comm, plan, folder / "all")
    evolved.evolve()
    second.compare(evolved)
    found = evolved.known.relative_M
    for other in comm.allgather(found):
        np.testing.assert_array_equal(other, found)
    if comm.rank == 0:
        run(Waves, folder / "one", **options)
        one, all_ = info(folder / "one"), info(folder / "all")
        assert one["error_is"] == all_["error_is"] == TWO
        np.testing.assert_allclose(list(one["error_estimates"].values()), found, rtol=0.05)
