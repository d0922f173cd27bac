"""nedhpc.run and nedhpc.load from Python: tables, objects, observers, and an unchanged process."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import make_config, make_table
from mpi4py import MPI

import nedhpc
from nedhpc.errors import UsageError
from nedhpc.postprocess.info import info

TABLE = {"network": {"hidden": [8]}, "sampling": {"interior": 40}, "run": {"max_steps": 20}}


class Decay(nedhpc.Problem):
    """u' = -u, u(0) = 1, as a notebook cell defines it."""

    domain = nedhpc.Box([0.0], [1.0])
    rate = 1.0

    def __init__(self, *, rate: float = 1.0):
        self.rate = rate

    @nedhpc.residual("interior")
    def ode(self, j):
        return j.u_x + self.rate * j.u

    @nedhpc.residual("interior")
    def known(self, x, j):
        return j.u - self.exact(x)

    def exact(self, x):
        return torch.exp(-self.rate * x[:, 0])


@pytest.mark.parametrize("given", [Decay, Decay()], ids=["class", "instance"])
def test_a_problem_is_a_class_or_an_instance(tmp_path, given):
    outcome = nedhpc.run(TABLE, tmp_path / "run", problem=given)
    assert outcome.status == "max_steps" and outcome.run_dir == tmp_path / "run"
    assert info(tmp_path / "run")["relative_l2"] < 1e-2
    with pytest.raises(UsageError, match="give it again as `problem=`"):
        nedhpc.load(tmp_path / "run")
    u = nedhpc.load(tmp_path / "run", problem=given)
    assert abs(float(u([[0.5]])[0, 0]) - np.exp(-0.5)) < 1e-2


def test_a_class_takes_options_from_the_table(tmp_path):
    table = TABLE | {"problem": {"rate": 2.0}}
    nedhpc.run(table, tmp_path / "run", problem=Decay)
    u = nedhpc.load(tmp_path / "run", problem=Decay)
    assert u.exact([[1.0]])[0, 0] == pytest.approx(np.exp(-2))
    with pytest.raises(UsageError, match="problem.rat: unknown key; did you mean 'rate'"):
        nedhpc.run(TABLE | {"problem": {"rat": 2.0}}, tmp_path / "b", problem=Decay)
    with pytest.raises(UsageError, match="given as an instance"):
        nedhpc.run(table, tmp_path / "c", problem=Decay())


def test_config_table_and_path_give_the_same_run(tmp_path):
    table = make_table(run={"max_steps": 5})
    (tmp_path / "case.toml").write_text(make_config(run={"max_steps": 5}).toml())
    given = {
        "config": make_config(run={"max_steps": 5}),
        "table": table,
        "path": tmp_path / "case.toml",
    }
    for name, config in given.items():
        nedhpc.run(config, out=tmp_path / name, comm=MPI.COMM_SELF)
    theta = [nedhpc.load(tmp_path / name).state.theta_P for name in given]
    assert np.array_equal(theta[0], theta[1]) and np.array_equal(theta[0], theta[2])


def test_resume_auto_continues(tmp_path):
    whole = nedhpc.run(make_config(run={"max_steps": 10}), tmp_path / "whole", comm=MPI.COMM_SELF)
    for steps in (5, 10):
        config = make_config(run={"max_steps": steps})
        nedhpc.run(config, tmp_path / "parts", comm=MPI.COMM_SELF, resume="auto")
    theta = [nedhpc.load(path).state.theta_P for path in (whole.run_dir, tmp_path / "parts")]
    assert np.array_equal(*theta)


def test_an_observer_is_one_class(tmp_path):
    class Steps(nedhpc.Observer):
        def __init__(self):
            self.events = []

        def start(self, run, moment):
            self.events.append(("start", moment.state.step))

        def step(self, run, moment):
            self.events.append(("step", moment.state.step, moment.measured().energy))
            return nedhpc.Stop("stopped", "enough") if moment.state.step == 3 else None

        def end(self, run, stop):
            self.events.append(("end", stop.status))

    seen = Steps()
    outcome = nedhpc.run(make_config(), tmp_path / "run", comm=MPI.COMM_SELF, observers=[seen])
    assert outcome.status == "stopped" and info(tmp_path / "run")["message"] == "enough"
    assert [event[0] for event in seen.events] == ["start", "step", "step", "step", "end"]
    assert info(tmp_path / "run")["step"] == 3
    assert info(tmp_path / "run")["energy"] == seen.events[3][2]


def test_a_run_leaves_the_process_as_it_was(tmp_path):
    """A run, even one that fails, restores dtype, threads and signals and frees communicators."""
    code = f"""
import signal, sys, torch
sys.path.insert(0, 'tests')
import nedhpc
from mpi4py import MPI
def facts():
    names = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGPIPE, signal.SIGHUP)
    return torch.get_default_dtype(), torch.get_num_threads(), [signal.getsignal(n) for n in names]
def handle():
    new = MPI.COMM_WORLD.Dup(); number = new.py2f(); new.Free(); return number
table = {make_table(run={"max_steps": 2}, device={"threads": 0})!r}
bad = table | {{"stepper": {{"type": "rk", "dt": 1e300}}}}
before = facts()
nedhpc.run(table, {str(tmp_path / "first")!r})
numbers = []
for k in range(3):
    nedhpc.run(table, {str(tmp_path)!r} + f"/good{{k}}")
    try:
        nedhpc.run(bad, {str(tmp_path)!r} + f"/bad{{k}}")
    except nedhpc.errors.NedError:
        pass
    else:
        raise SystemExit("the bad run did not fail")
    numbers.append(handle())
assert facts() == before, (before, facts())
assert len(set(numbers)) == 1, numbers
"""
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert child.returncode == 0, child.stderr


def test_exact_must_fit_the_points(tmp_path):
    wrong = {
        "a row": (lambda self, x: torch.exp(-x.T), r"returns \(1, 7\) for 7 points"),
        "a scalar": (lambda self, x: torch.tensor(1.0), r"returns \(\) for 7 points"),
        "single precision": (lambda self, x: x[:, 0].float(), "returns torch.float32 for points"),
        "a mean": (lambda self, x: x[:, 0] - x.mean(), "if the other points change"),
        "random numbers": (lambda self, x: torch.rand(len(x)), "called again"),
        "a bug": (lambda self, x: x[:, 3], "`exact` raises IndexError.*test_api.py, line"),
        "not finite": (
            lambda self, x: torch.log(x[:, 0] - 0.5),
            "not finite at 500. of 10001 points",
        ),
    }
    for name, (exact, part) in wrong.items():
        problem = type("P", (Decay,), {"exact": exact, "known": lambda self, j: j.u - 1})
        with pytest.raises(UsageError, match=part):
            nedhpc.run(TABLE, tmp_path / name, problem=problem)


def test_a_metric_must_give_one_number_for_each_point(tmp_path):
    problem = type("P", (Decay,), {"metrics": lambda self, x, u, y: {"worst": (u - y).abs().max()}})
    with pytest.raises(UsageError, match=r"metric 'worst' is \(\) for 7 points"):
        nedhpc.run(TABLE, tmp_path / "run", problem=problem)


def test_the_error_against_zero_is_a_root_mean_square(tmp_path):
    problem = type("P", (Decay,), {"exact": lambda self, x: 0 * x[:, 0]})
    start = {"run": TABLE["run"] | {"start": "random", "max_steps": 1}}
    out = nedhpc.run(TABLE | start, tmp_path / "run", problem=problem)
    u = nedhpc.load(out.run_dir, problem)
    rms = np.sqrt(np.mean(u(np.linspace(0, 1, 2001)) ** 2))
    assert abs(u.record.stats["relative_l2"] / rms - 1) < 1e-2


@pytest.mark.parametrize(
    "attributes, message",
    [
        ({"outputs": ("u", "u_x")}, "'u_x' is also the name of a derivative"),
        ({"outputs": ("u", "lap_u")}, "'lap_u' is also the name of a derivative"),
        ({"outputs": ("values",)}, "'values' is also the name of"),
        ({"coefficients": ["nu"]}, r"coefficients = \['nu'\]; needed is {name: number}"),
        ({"hard": [0.0]}, r"hard = \[0.0\]; needed is"),
        ({"metrics": lambda self, x, u, y: 1 / 0}, "`metrics` raises ZeroDivisionError"),
    ],
)
def test_wrong_attributes_of_a_problem_are_refused(tmp_path, attributes, message):
    problem = type("P", (Decay,), attributes)
    with pytest.raises(UsageError, match=message):
        nedhpc.run(TABLE, tmp_path / "run", problem=problem)


NEIGHBOUR = """
import nedhpc, helper
class P(nedhpc.Problem):
    domain = nedhpc.Box([0.0], [1.0])
    @nedhpc.residual()
    def fit(self, x, j): return j.u - helper.VALUE
"""


def test_a_problem_file_imports_its_neighbour(tmp_path):
    """Each file gets the helper of its own folder, and a changed helper is an error."""
    for value in (1.0, 2.0):
        folder = tmp_path / f"f{value:.0f}"
        folder.mkdir()
        (folder / "p.py").write_text(NEIGHBOUR)
        (folder / "helper.py").write_text(f"VALUE = {value}\n")
        table = TABLE | {"problem": {"name": f"{folder}/p.py:P"}}
        nedhpc.run(table, folder / "run", comm=MPI.COMM_SELF)
        assert abs(float(nedhpc.load(folder / "run")([[0.5]])[0, 0]) - value) < 1e-3
    (tmp_path / "f1" / "helper.py").write_text("VALUE = 3.0\n")
    with pytest.raises(UsageError, match="helper.py is not the file"):
        nedhpc.load(tmp_path / "f1" / "run")


def test_a_library_below_the_folder_of_a_problem_file_is_no_neighbour(tmp_path, monkeypatch):
    """It is a neighbour if Python finds it in the folder itself, as it does one's own package."""
    library, package = tmp_path / ".venv" / "lib", tmp_path / "helper"
    for folder in (library / "far", package):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("VALUE = 1.0\n")
    (tmp_path / "p.py").write_text("import far\n" + NEIGHBOUR)
    monkeypatch.syspath_prepend(library)
    table = TABLE | {"problem": {"name": f"{tmp_path}/p.py:P"}}
    nedhpc.run(table, tmp_path / "run", comm=MPI.COMM_SELF)
    assert "far" in sys.modules and "helper" not in sys.modules
    del sys.modules["far"]
    (library / "far" / "__init__.py").write_text("VALUE = 2.0\n")
    assert nedhpc.load(tmp_path / "run")([[0.5]]) is not None
    (package / "__init__.py").write_text("VALUE = 3.0\n")
    with pytest.raises(UsageError, match="helper/__init__.py is not the file"):
        nedhpc.load(tmp_path / "run")


NETWORK = """
import torch
class Net(torch.nn.Module):
    def __init__(self, width: int = 4):
        super().__init__()
        self.a, self.b = torch.nn.Linear(1, width), torch.nn.Linear(width, 1)
    def forward(self, x): return self.b(torch.tanh(self.a(x)))
"""


def test_a_network_class_gets_its_arguments(tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    network = {"name": f"{tmp_path}/net.py:Net", "arguments": {"width": 7}}
    nedhpc.run(TABLE | {"network": network}, tmp_path / "run", problem=Decay)
    assert info(tmp_path / "run")["num_parameters"] == 7 * 3 + 1
    network["arguments"] = {"wide": 7}
    with pytest.raises(UsageError, match="unknown key; did you mean 'width'"):
        nedhpc.run(TABLE | {"network": network}, tmp_path / "other", problem=Decay)


@pytest.mark.parametrize("where", ["caller", "file"])
def test_gradients_are_computed_if_the_process_does_not_record_them(tmp_path, where):
    """The caller or the problem file has switched them off for the whole process."""
    off = "torch.set_grad_enabled(False)" if where == "file" else ""
    (tmp_path / "helper.py").write_text("VALUE = 2.0\n")
    (tmp_path / "p.py").write_text(f"import torch\n{off}\n{NEIGHBOUR}")
    table = TABLE | {"problem": {"name": f"{tmp_path}/p.py:P"}}
    with torch.set_grad_enabled(where != "caller"):
        nedhpc.run(table, tmp_path / "run", comm=MPI.COMM_SELF)
        assert torch.is_grad_enabled() == (where != "caller")
    assert info(tmp_path / "run")["energy"] < 1e-10
