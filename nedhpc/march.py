"""What a config means for a march in time: its stepper, and the fit to u0 at its start. Local."""

from collections.abc import Sequence

import numpy as np
import torch

from nedhpc import steppers
from nedhpc.config import Config, Stepper
from nedhpc.errors import ConfigError
from nedhpc.flows.stage import FitTerm, StageTerm, fit_term
from nedhpc.names import unknown
from nedhpc.problems.base import Problem, declared_terms
from nedhpc.problems.bound import BoundTerm
from nedhpc.problems.march import start_jets, start_sizes
from nedhpc.problems.terms import Conserved

TYPE, DT = "sdirk4", 1e-2
"""Stepper if the config gives none, and the share of run.max_time of its first dt."""
FIT_DT = 1e6
"""First time step of the fit to u0."""
LEAST_SPREAD = 1e-8
"""A spread of u0 below this share of its size is rounding."""


def with_stepper(config: Config, problem: Problem) -> Config:
    """The config with the stepper and the first dt of a march in time, if it gives none."""
    given, changes = config.stepper.model_fields_set, {}
    if problem.is_march and "type" not in given:
        changes["type"] = TYPE
    if problem.is_march and "dt" not in given and config.run.max_time is not None:
        changes["dt"] = DT * config.run.max_time
    return config.model_copy(update={"stepper": config.stepper.model_copy(update=changes)})


def check_march(config: Config, problem: Problem, stepper, settings) -> None:
    """Raise ConfigError if the settings do not fit a march in time, or ask for one without a rate.

    Args:
        config: the config.
        problem: the problem.
        stepper: the step rule or PETSc type.
        settings: its settings.
    """
    errors, name = [], config.stepper.type
    known = [term.name for term in declared_terms(problem) if isinstance(term, Conserved)]
    errors += [
        unknown(f"stepper.{name}.conserve: {key!r}", "conserved quantity", key, known)
        for key in getattr(settings, "conserve", ())
        if key not in known
    ]
    if problem.is_march and not stepper.marches:
        names = ", ".join(key for key, kind in steppers.all_kinds().items() if kind.marches)
        errors.append(
            f"stepper.type = {name!r}: the problem has a rate, so that the run marches in time; "
            f"allowed: {names}"
        )
    if stepper.marches and not problem.is_march:
        errors.append(
            f"stepper.type = {name!r}: it marches in time, and the problem has no rate; mark the "
            "method that returns N of u_t = N(u) with @nedhpc.rate(), or choose another type"
        )
    if problem.is_march:
        given = (
            (config.run.max_time is None, "run.max_time: missing; the time at which a march ends"),
            (
                config.sampling.rule == "residual",
                "sampling.rule = 'residual': a march in time has no such rule; use 'sobol'",
            ),
            (
                config.run.estimate_error,
                "run.estimate_error = true: a march in time is not solved twice; remove it",
            ),
        )
        errors += [text for is_wrong, text in given if is_wrong]
    if errors:
        raise ConfigError(errors)


def fit_config(config: Config) -> Config:
    """The config of the fit to u0."""
    sampling = config.sampling.model_copy(update={"adapt": "none"})
    return config.model_copy(update={"stepper": Stepper(dt=FIT_DT), "sampling": sampling})


def stage_of(terms: Sequence[BoundTerm]) -> StageTerm:
    """The term of a march's stages."""
    return next(term for term in terms if isinstance(term, StageTerm))


def fit_terms(terms: Sequence[BoundTerm], problem: Problem) -> tuple[FitTerm, ...]:
    """The terms of the fit to u0. Raises UsageError if `start` of the problem cannot be used."""
    stage = stage_of(terms)
    _, spread_M, rms_CM = start_sizes(problem, stage.layout)

    def u0(x_ND, layout):
        return start_jets(problem, x_ND, layout)

    return (fit_term(stage, u0, fit_weights(spread_M, rms_CM)),)


def fit_weights(spread_M: np.ndarray, rms_CM: np.ndarray) -> torch.Tensor:
    """Weights (C, M) of a fit: jets relative to their sizes, but small ones to the spread of u.

    Args:
        spread_M: standard deviation of each output.
        rms_CM: root mean square of each jet.
    """
    scale = float(max(spread_M.max(), 1e-3 * rms_CM[0].max())) or 1.0
    return torch.as_tensor(1 / np.maximum(rms_CM, scale))


def start_scales(terms: Sequence[BoundTerm], problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and sizes (M,) of the outputs from u0. Raises as `fit_terms`."""
    mean_M, spread_M, rms_CM = start_sizes(problem, terms[0].layout)
    size_M = np.where(spread_M > LEAST_SPREAD * rms_CM[0], spread_M, rms_CM[0])
    return mean_M, np.where(size_M > 0, size_M, 1.0)
