"""Problems that users asked about, in their own units, reach a right answer with few settings.

tests/cases holds the inputs. Each run is that of a user: `nedhpc run`, then `nedhpc.load`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import case_references as references
import numpy as np
import pytest
import tomli_w
import torch
from exact_jets import perturbed, relative_residuals
from processes import finish, start

import nedhpc
from nedhpc.errors import UsageError
from nedhpc.plan import Plan

CASES = Path(__file__).parent / "cases"
SECONDS, TIMEOUT = 110.0, 150


@dataclass(frozen=True)
class Trial:
    """A config with overrides, its reference, and the relative L2 error that each output needs."""

    name: str
    config: str | dict[str, Any]
    """A file in tests/cases, or a table."""
    reference: Callable[[], references.Reference]
    threshold: float = 1e-3
    overrides: list[str] = field(default_factory=list)

    def write(self, folder) -> Path:
        """The config's file; that of a table is written to the folder."""
        if isinstance(self.config, str):
            return CASES / self.config
        path = folder / "case.toml"
        path.write_text(tomli_w.dumps(self.config))
        return path


def small(cls, **sampling):
    """The table of a problem in more.py: one layer of 30, few points and nothing else."""
    problem = {"name": f"{CASES / 'more.py'}:{cls}"}
    return {"problem": problem, "network": {"hidden": [30]}, "sampling": sampling}


def rod(length):
    override = f"problem.length={length}"
    config = "01-linear-long-domain/case.toml"
    return Trial(f"rod-{length:g}", config, lambda: references.rod(length), 1e-6, [override])


TRIALS = [
    *map(rod, (100.0, 1e4, 1e-6)),
    Trial("lotka-volterra", "03-lotka-volterra/case.toml", references.lotka_volterra),
    Trial("nonlocal-aux", "06-nonlocal-term/case.toml", references.nonlocal_term),
    Trial("robertson", "09-robertson/case.toml", references.robertson, 1e-2),
    Trial("two-scales", "11-two-scales/case.toml", references.two_scales),
    Trial("convection", "13-convection-30/case.toml", references.convection, 1e-2),
    Trial("convection-periodic", "13-convection-30/periodic.toml", references.convection, 1e-2),
    Trial("identity-3000", "17-identity-3000/case.toml", references.identity),
    Trial("oscillator-30", "19-long-oscillator/case.toml", lambda: references.oscillator(30.0)),
    Trial("plate", "23-heat-si/case.toml", references.plate, 1e-2),
    Trial("beam", small("Beam", interior=200), references.beam),
    Trial("logistic", small("Logistic", interior=200), references.logistic),
    Trial("michaelis-menten", small("MichaelisMenten", interior=200), references.michaelis_menten),
    Trial("pendulum", small("Pendulum", interior=400), references.pendulum),
    Trial("channel", small("Channel", interior=200), references.channel),
    Trial("small-and-large", "small-and-large/case.toml", references.small_and_large),
    Trial("wall", small("Wall", interior=400, boundary=100, initial=100), references.wall),
    Trial("brusselator", small("Brusselator", interior=400), references.brusselator),
]
each_trial = pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)


def solved(config, overrides, folder):
    """(exit code, error text, the Solution if the code is 0) of a run."""
    settings = [*overrides, f"run.max_wall_time={SECONDS}"]
    words = [word for setting in settings for word in ("--set", setting)]
    process = start("run", config, "--out", folder / "run", *words)
    code, _, err = finish(process, TIMEOUT)
    return code, err, nedhpc.load(folder / "run") if code == 0 else None


@pytest.mark.slow
@each_trial
def test_a_run_reaches_the_right_value(trial, tmp_path):
    code, err, u = solved(trial.write(tmp_path), trial.overrides, tmp_path)
    assert code == 0, err
    errors = dict(zip(u.outputs, trial.reference().errors(u), strict=False))
    assert max(errors.values()) <= trial.threshold, errors


@pytest.mark.slow
def test_a_term_that_mixes_points_is_right_or_refused(tmp_path):
    config = CASES / "06-nonlocal-term"
    name = f"problem.name={config / 'problem.py'}:Direct"
    code, err, u = solved(config / "case.toml", [name], tmp_path)
    assert code in (0, 2), err
    if code == 0:
        assert max(references.nonlocal_term().errors(u)) <= 1e-3


@each_trial
def test_the_config_is_valid_and_the_reference_solves_its_terms(trial, tmp_path):
    plan = Plan.read(trial.write(tmp_path), trial.overrides)
    reference = trial.reference()
    residuals = relative_residuals(plan.problem, reference.u, reference.low)
    assert max(residuals.values()) < 1e-4, residuals


def test_the_term_that_mixes_points_is_refused():
    config = CASES / "06-nonlocal-term"
    with pytest.raises(UsageError, match="depends on"):
        Plan.read(config / "case.toml", [f"problem.name={config / 'problem.py'}:Direct"])


@each_trial
def test_the_check_accepts_the_reference_and_refuses_another_function(trial, tmp_path):
    reference = trial.reference()
    plan = Plan.read(trial.write(tmp_path), trial.overrides)
    inside = reference.x_ND[:, -1] > (-np.inf if reference.low is None else reference.low)
    x, y = reference.x_ND[inside], reference.y_NM[inside]
    part = references.Reference(x, y, reference.u, reference.offset)
    wrong = perturbed(plan.problem, reference.u, 0.05, reference.low)

    def as_numpy(u):
        return lambda x: u(torch.as_tensor(x)).detach().numpy()

    assert max(part.errors(as_numpy(reference.u))) < trial.threshold / 100
    assert min(part.errors(as_numpy(wrong))) > trial.threshold
