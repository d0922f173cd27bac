"""A new metric and a new stepper are one class each; nothing else is edited."""

import subprocess
import sys
import tomllib

import numpy as np
import pytest
import torch
from conftest import evolve, make_case, make_config

from nedhpc import steppers
from nedhpc.cli.main import main
from nedhpc.config import Positive, Section, Stepper
from nedhpc.errors import ConfigError, UsageError
from nedhpc.files import checkpoint
from nedhpc.files.resume import load_resume
from nedhpc.flows import metrics
from nedhpc.flows.metrics import JetMetric
from nedhpc.postprocess.info import info
from nedhpc.steppers.base import StepInfo, StepRule

pytestmark = pytest.mark.mpi


class Slope(JetMetric):
    """The seminorm of the gradient."""

    name = "slope"

    def jets(self, outputs):
        return tuple(f"grad_{u}" for u in outputs)


class SignDescent(StepRule):
    """theta - rate sign(g). Its memory is the number of its steps."""

    name = "sign"
    uses_solver = uses_metric = False

    class Settings(Section):
        rate: Positive = 1e-3

    def __init__(self, flow, settings):
        super().__init__(flow, settings)
        self.count = 0

    def step(self, theta_P, t, dt):
        g_P, _ = self.flow.gradient(theta_P, t)
        self.count += 1
        return theta_P - self.settings.rate * g_P.sign(), dt, StepInfo(self.settings.rate)

    def state(self):
        return {"count": self.count}

    def load(self, state):
        self.count = int(state["count"])


@pytest.mark.parametrize("kind", ["ptc", "beuler", "rk"])
def test_a_new_metric_runs(comm, folder, kind):
    stepper = {"type": kind, "dt": 1.0 if kind == "ptc" else 1e-3}
    tables = {"flow": {"metric": "slope", "metric_eps": 1e-2}, "stepper": stepper}
    evolve(make_config(run={"max_steps": 3}, **tables), folder / "run", comm)
    if comm.rank == 0:
        facts = info(folder / "run")
        assert facts["step"] == 3 and facts["method"].startswith(f"slope/{kind}/")


def test_a_new_metric_enters_residual_and_jacobian(comm):
    """The flow's residual and the system's Jacobian see M = B^T B + eps I of the new rows."""
    case = make_case(comm, flow={"metric": "slope", "metric_eps": 1e-2})
    theta = torch.as_tensor(case.plan.ansatz.initial(0))
    B = case.flow.metric.rows(theta, case.flow.sample).A_NP
    B = torch.cat(comm.allgather(B))
    v = torch.as_tensor(np.random.default_rng(0).standard_normal(len(theta)))
    g, _ = case.flow.gradient(theta, 0.0)
    torch.testing.assert_close(case.flow.residual(theta, v, 0.0), B.T @ (B @ v) + 1e-2 * v + g)
    system = case.flow.linearise(theta, 0.0)
    difference = system.apply(2.0, v) - system.apply(1.0, v)
    torch.testing.assert_close(difference, B.T @ (B @ v) + 1e-2 * v, rtol=1e-8, atol=1e-8)


def test_metrics_know_whether_they_are_dense():
    assert not metrics.find("euclidean").is_dense
    assert all(metrics.find(name).is_dense for name in ("l2", "h1", "energy", "slope"))


def test_a_new_stepper_runs_and_resumes(comm, folder):
    def config(steps):
        stepper = {"type": "sign", "sign": {"rate": 1e-4}}
        return make_config(stepper=stepper, run={"max_steps": steps})

    _, whole = evolve(config(9), folder / "whole", comm)
    evolve(config(4), folder / "parts", comm)
    _, resumed = evolve(config(9), folder / "parts", comm, load_resume(comm, folder / "parts"))
    assert np.array_equal(whole.theta_P, resumed.theta_P)
    assert int(resumed.stepper["count"]) == 9
    if comm.rank == 0:
        assert info(folder / "parts")["method"] == "euclidean/sign/none"


def test_resolved_tables_are_part_of_the_record(comm, folder):
    """config.toml holds the table of every stepper.

    If a later config names none of these tables, that is not a change.
    """
    stepper = {"type": "rk", "dt": 1e-4}
    evolve(make_config(stepper=stepper, run={"max_steps": 1}), folder / "run", comm)
    written = tomllib.loads((folder / "run/config.toml").read_text())["stepper"]
    assert written["ptc"]["factor"] == 4.0 and written["adam"]["betas"] == [0.9, 0.999]
    state, about = load_resume(comm, folder / "run")
    more = make_config(stepper=stepper, run={"max_steps": 2})
    evolve(more, folder / "run", comm, (state, about))
    _, about = load_resume(comm, folder / "run")
    assert list(about.changes)[1:] == ["after step 1: run.max_steps = 2 (was 1)"]


def test_all_errors_of_the_section_come_at_once():
    wrong = Stepper(
        type="ptx",
        petsc_options="5",
        ptc={"factr": 2},
        sgd={"nesterov": True},
        adam={"lr": -1, "schedule": "cosin"},
        sping={},
        spring=3,
    )
    with pytest.raises(ConfigError) as caught:
        steppers.settings(wrong)
    for part in (
        "8 errors",
        "stepper.type = 'ptx': unknown value; did you mean 'ptc'?; allowed: ptc, ",
        "stepper.petsc_options: ",
        "stepper.ptc.factr: unknown key; did you mean 'factor'?; allowed: factor, ",
        "stepper.sgd: nesterov = true needs momentum > 0",
        "stepper.adam.lr = -1: must be greater than 0",
        "stepper.adam.schedule = 'cosin': unknown value; did you mean 'cosine'?",
        "stepper.sping: unknown key; did you mean 'spring'?",
        "stepper.spring = 3: must be a table",
    ):
        assert part in str(caught.value), part


def test_settings_have_defaults_and_given_values():
    assert steppers.settings(Stepper()) == steppers.find("ptc").Settings()
    assert steppers.settings(Stepper(ptc={"slack": 3})).slack == 3.0
    resolved = steppers.resolved(Stepper(type="rk", spring={"search": False}))
    assert resolved["type"] == "rk" and resolved["spring"]["search"] is False
    assert steppers.resolved(Stepper(**resolved)) == resolved


def test_steppers_know_what_they_use():
    ptc, adam, rk = (steppers.find(name) for name in ("ptc", "adam", "rk"))
    assert ptc.uses_solver and ptc.uses_metric and ptc.chooses_dt
    assert not adam.uses_solver and not adam.uses_metric and adam.chooses_dt
    assert rk.uses_solver and rk.uses_metric and not rk.chooses_dt


def test_an_unknown_metric_is_named(tmp_path, capsys):
    with pytest.raises(UsageError, match="did you mean 'energy'"):
        metrics.find("enrgy")
    path = tmp_path / "case.toml"
    path.write_text(
        '[problem]\nname = "poisson"\n[sampling]\ninterior = 9\n[flow]\nmetric = "l3"\n'
        "[stepper.ptc]\nslak = 2\n"
    )
    assert main(["check", str(path)]) == 2
    text = capsys.readouterr().err
    assert "flow.metric = 'l3'" in text and "did you mean 'slack'" in text and "2 errors" in text


def test_names_and_settings_need_neither_petsc_nor_mpi():
    code = (
        "import sys, nedhpc.steppers as s; from nedhpc.config import Stepper\n"
        "s.settings(Stepper())\n"
        "assert not {'petsc4py', 'mpi4py'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("options, step", [("-ts_max_steps 3", 3), ("-ts_max_time 2.5e-4", 3)])
def test_an_end_by_petsc_keeps_the_last_step(comm, folder, options, step):
    options = f"{options} -ts_adapt_type none"
    stepper = {"type": "rk", "dt": 1e-4, "petsc_options": options}
    status, state = evolve(
        make_config(stepper=stepper, run={"max_steps": 50}, output={"every_steps": 10}),
        folder / "run",
        comm,
    )
    assert status == ("max_steps" if "steps" in options else "max_time")
    assert state.step == step
    if comm.rank == 0:
        assert checkpoint.newest(folder / "run")[1].step == step
