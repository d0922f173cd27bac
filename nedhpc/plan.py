"""Everything about a run that is known without MPI, PETSc and a GPU, computed once.

`nedhpc check` prints a Plan, and `nedhpc run` runs one.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nedhpc import config as configs
from nedhpc import steppers
from nedhpc.ansatz.pieces import Pieces
from nedhpc.ansatz.scaling import Scaling
from nedhpc.config import Config, Sampling
from nedhpc.errors import ConfigError, Errors, UsageError
from nedhpc.files.checkpoint import State
from nedhpc.flows import metrics
from nedhpc.flows.balance import Balance
from nedhpc.flows.energy import Energy
from nedhpc.flows.stage import Desk, march_terms
from nedhpc.march import check_march, fit_config, fit_terms, start_scales, with_stepper
from nedhpc.network import make_network, with_network
from nedhpc.parallel.precision import float64_default
from nedhpc.problems import bind_terms, build, check, construct
from nedhpc.problems.base import Problem
from nedhpc.problems.bound import BoundTerm
from nedhpc.problems.conditions import hard_terms
from nedhpc.problems.contradictions import contradictions
from nedhpc.problems.coverage import remarks
from nedhpc.problems.data import DataSet, named_sets, validated
from nedhpc.problems.integrals import with_nodes
from nedhpc.problems.reentrant import corner_notes
from nedhpc.problems.reference import check_reference
from nedhpc.problems.sizes import output_sizes
from nedhpc.problems.windows import continued, why_not
from nedhpc.sampling.counts import grown, point_counts
from nedhpc.sampling.points import HELD_OUT
from nedhpc.solvers import SOLVERS, Cost, Size, choose
from nedhpc.user_code import GIVEN

NUMBER = 8
"""Bytes of a float64."""
PROCESS_BYTES = 350 * 2**20
"""Memory of a rank that has loaded torch, PETSc and MPI but has no data yet."""
THETA_COPIES = 12
"""Number of vectors of length P that a step holds: TS, trials, corrections, directions."""


class Plan:
    """A valid run: problem, ansatz, points, stepper, metric, solver and what they cost. Local.

    Args:
        config: typed settings. The attribute `config` has all defaults filled in.
        problem: an instance or a class that replaces the problem of the config.
        num_ranks: ranks that will share the points.
        available_bytes: memory of rank 0's machine; default: this machine's.

    Raises:
        ConfigError: everything that is wrong with the config.
        UsageError: the run would not fit into memory.
    """

    def __init__(
        self,
        config: Config,
        problem: Problem | type[Problem] | None = None,
        num_ranks: int = 1,
        available_bytes: int | None = None,
    ):
        self.num_ranks = num_ranks
        self.available_bytes = available_bytes or psutil.virtual_memory().total
        with float64_default():
            self.problem = make_problem(config, problem)
            self.chooses_hidden = config.network.hidden is None and config.network.name is None
            """True if the widths of the hidden layers are the program's choice."""
            config = with_stepper(with_network(config, self.problem), self.problem)
            self.data = {n: held_out(config.sampling, n, d) for n, d in self.given.items()}
            """The data sets by name, with the rows that are held out for validation."""
            with Errors() as errors:
                self.terms = errors.catch(bind_terms, self.problem, config.weights.factors)
                errors.catch(check_reference, self.problem)
                self.domain = errors.catch(with_nodes, self.problem.domain, self.terms)
                sampling = config.sampling
                self.counts = errors.catch(
                    point_counts, sampling, self.domain, self.terms, self.data
                )
                self.stepper = errors.catch(steppers.find, config.stepper.type)
                self.stepper_settings = errors.catch(steppers.settings, config.stepper)
                self._metric = errors.catch(metrics.find, config.flow.metric)
                self.ansatz = errors.catch(make_network, config, self.problem)
                errors.catch(check_windows, config.run.windows, self.problem, self.terms)
                errors.catch(check_second, config, self.terms, self.problem)
                found = (self.stepper, self.stepper_settings)
                errors.catch(check_march, config, self.problem, *found)
        resolved = config.stepper.model_copy(update=steppers.resolved(config.stepper))
        self.config = config.model_copy(update={"stepper": resolved})
        self._settle_terms()
        self.pieces = Pieces(self.ansatz)
        self._prepare()

    @property
    def given(self) -> dict[str, DataSet]:
        """The data sets by name, as the problem gives them."""
        return named_sets(self.problem.data)

    def leg(self, state: State) -> "Plan":
        """The plan of the window and of the growth of the sample that a state is in. Local.

        Raises:
            UsageError: this many points do not fit into memory.
        """
        leg = copy.copy(self)
        solved = [(p.end, p.theta_P, self.scaling(p.scaling)) for p in state.pieces]
        leg.pieces = Pieces(self.ansatz, solved)
        if state.window is not None:
            leg.domain = self.domain.between(*state.window)
        if state.pieces:
            leg.terms = continued(self.terms, self.problem, leg.pieces.last)
        leg.counts = grown(self.counts, self.config.sampling.rule, self.domain, state.growth)
        leg._prepare()
        return leg

    def scaling(self, arrays: Mapping[str, np.ndarray]) -> Scaling:
        """The Scaling of the arrays that a state holds. Local."""
        return Scaling.of(arrays, self.problem.domain.dim, len(self.problem.outputs))

    def enter(self, state: State) -> "Plan":
        """The leg of a state, with its balance; its scales are put into the ansatz. Local.

        Raises:
            UsageError: this many points do not fit into memory.
        """
        self.ansatz.scaling = self.scaling(state.scaling)
        leg = self.leg(state)
        if state.reference_P is not None:
            leg.energy.balance = Balance(
                self.ansatz, leg.terms, state.reference_P, leg.domain, self.given
            )
        return leg

    def energy_after(self, error) -> Energy:
        """The energy of this window if the one before had no error. Local.

        Args:
            error: jets (N, C, M) of that error, as a function of points and a layout.
        """

        def before(x_ND, layout):
            return self.pieces.last(x_ND, layout) + error(x_ND, layout)

        energy = copy.copy(self.energy)
        energy.terms = continued(self.terms, self.problem, before)
        return energy

    def variant(self, num_ranks: int | None = None, **network) -> "Plan":
        """The same plan with other settings of the built-in network, or on other ranks. Local.

        Args:
            num_ranks: ranks that will share the points.
            network: keys of [network], `hidden` and `activation`; None is no change.

        Raises:
            UsageError: the run does not fit into memory.
        """
        plan = copy.copy(self)
        plan.num_ranks = num_ranks or self.num_ranks
        changes = {key: value for key, value in network.items() if value is not None}
        settings = self.config.network.model_copy(update=changes)
        plan.config = self.config.model_copy(update={"network": settings})
        if settings.name is None:  # Each plan puts its own scales into its network.
            plan.ansatz = make_network(plan.config, plan.problem)
            plan.pieces = Pieces(plan.ansatz)
        plan._prepare()
        return plan

    def _prepare(self) -> None:
        """Build what depends on the window and on the number of points."""
        self.energy = Energy(
            self.problem, self.terms, self.ansatz, self.config.solver.chunk, self.balanced
        )
        self.metric = self._metric(self.energy, self.config.flow.metric_eps)
        self._choose_solver()

    def _settle_terms(self) -> None:
        """Replace the terms of a march by those of its stages, and decide on balanced rows."""
        self.desk: Desk | None = None
        """Holds the stage that is solved now, if the run marches in time."""
        if self.problem.is_march:
            self.terms, self.desk = march_terms(self.terms, self.problem)
            with float64_default():
                self._fit = fit_terms(self.terms, self.problem)
        is_residual = all(term.kind.is_least_squares for term in self.terms)
        is_auto = self.config.weights.balance == "auto" and self.desk is None
        self.balanced = is_auto and is_residual
        """True if the rows are balanced."""

    def fit(self, terms: Sequence[BoundTerm] = ()) -> "Plan":
        """The plan of a march's fit to u0, or of another fit if its terms are given. Local."""
        plan = copy.copy(self)
        plan.desk, plan.terms = None, tuple(terms) or self._fit
        plan.counts = {term.on: self.counts[term.on] for term in plan.terms}
        plan.config = fit_config(self.config)
        plan.stepper = steppers.find(plan.config.stepper.type)
        plan._prepare()
        return plan

    def first_scales(self) -> dict[str, np.ndarray]:
        """The arrays of the Scaling with which this window starts. Local."""
        if self.config.network.scaling == "none":
            return {}
        domain, num_outputs = self.domain, len(self.problem.outputs)
        found = Scaling.identity(domain.dim, num_outputs)
        if self.ansatz.scales_coordinates:
            free = np.array([period is None for period in domain.periods])
            half_D = np.where(free, (domain.high - domain.low) / 2, 1.0)
            centre_D = np.where(free, (domain.high + domain.low) / 2, 0.0)
            found = dataclasses.replace(found, centre_D=centre_D, half_D=half_D)
        if self.problem.is_march:
            found = found.outputs(*start_scales(self.terms, self.problem))
        elif self.energy.is_least_squares:
            coefficients, data = self.problem.coefficients.values(), self.given
            sizes = output_sizes(self.terms, domain, data, coefficients, num_outputs)
            found = found.outputs(*sizes)
        return found.arrays

    def contradictions(self) -> list[str]:
        """Conditions that contradict each other, are missing or idle, a sentence each. Local."""
        problem, num_outputs = self.problem, len(self.problem.outputs)
        # The stages of a march have no meaning before the first step.
        if problem.is_march or not self.energy.is_least_squares:
            return []
        terms = [*self.terms, *hard_terms(problem)]
        given = (terms, self.domain, self.given, problem.coefficients.values(), num_outputs)
        return [*contradictions(*given), *remarks(problem, self.terms)]

    def notes(self) -> list[str]:
        """What makes this problem hard for a smooth network, a sentence each. Local."""
        return [] if self.problem.is_march else corner_notes(self.problem, self.terms)

    @classmethod
    def read(
        cls,
        path: str | Path,
        overrides: Sequence[str] = (),
        petsc_options: Sequence[str] = (),
        problem: Problem | type[Problem] | None = None,
        num_ranks: int = 1,
    ) -> "Plan":
        """The Plan of a config file. Errors of keys and of the problem are reported together.

        Arguments and errors are those of `config.read` and of Plan.
        """
        return cls.of_table(configs.read(path, overrides, petsc_options), path, problem, num_ranks)

    @classmethod
    def of_table(
        cls,
        table: Mapping[str, Any],
        source: str | Path | None = None,
        problem: Problem | type[Problem] | None = None,
        num_ranks: int = 1,
    ) -> "Plan":
        """The Plan of a config table. Errors of keys and of the problem are reported together.

        Args:
            table: the config table, as TOML gives it.
            source: its file, for messages; None if there is none.
            problem, num_ranks: as for Plan, whose errors it raises.
        """
        config, found = None, []
        try:
            config = configs.validate(named(table, problem))
        except ConfigError as error:
            found += error.problems
        try:
            if config is not None:
                return cls(config, problem, num_ranks)
            # The keys are wrong. Build the problem too, so that its errors are reported as well.
            section = table.get("problem") if problem is None else None
            if isinstance(section, Mapping) and isinstance(section.get("name"), str):
                with float64_default():
                    build(section)
        except ConfigError as error:
            found += error.problems
        raise ConfigError(found, source)

    @property
    def num_rows(self) -> int:
        """Number of rows of the scaled Jacobian on all ranks."""
        return sum(self.energy.num_rows(self.counts))

    @property
    def method(self) -> str:
        """ "metric/stepper/solver"."""
        metric = self.config.flow.metric if self.stepper.uses_metric else "euclidean"
        return f"{metric}/{self.config.stepper.type}/{self.solver}"

    @property
    def memory(self) -> dict[str, int]:
        """Largest memory of rank 0 in bytes, {purpose: bytes}; an estimate."""
        return {
            "process": PROCESS_BYTES,
            "points": self._point_bytes(),
            "parameters": THETA_COPIES * NUMBER * self.energy.num_parameters,
            "step": self.cost.bytes,
        }

    def _choose_solver(self) -> None:
        """Choose the solver, decide whether its rows stay factored, and estimate a step's cost.

        Raises:
            UsageError: the run does not fit into memory.
        """
        config, energy = self.config, self.energy
        size = Size(
            num_rows=self.num_rows,
            num_parameters=energy.num_parameters,
            num_ranks=self.num_ranks,
            dense_metric=self.metric.is_dense,
            chunk=energy.chunk,
            point_bytes=energy.point_bytes,
            rank=config.solver.krylov.rank,
            max_iterations=config.solver.krylov.max_iterations,
        )
        rest = PROCESS_BYTES + self._point_bytes() + THETA_COPIES * NUMBER * energy.num_parameters
        if rest > self.available_bytes:
            raise UsageError(
                f"{sum(self.counts.values())} points and {energy.num_parameters} parameters need "
                f"{rest / 2**30:.1f} GiB on rank 0 before the first step, and this machine has "
                f"{self.available_bytes / 2**30:.1f}; use fewer points, a smaller network or more "
                "ranks"
            )
        if self.stepper.uses_solver:
            self.solver = choose(config.solver.type, size, self.available_bytes - rest)
            self.cost = SOLVERS[self.solver].cost(size)
        else:
            # One gradient: a sweep forward and one back over every point.
            self.solver = "none"
            local = -(-size.num_rows // size.num_ranks)
            sweep = 10 * min(local, energy.chunk) * energy.point_bytes
            self.cost = Cost(sweep, 6 * local * energy.num_parameters)
        self.is_factored = (
            self.solver == "dual" and not self.metric.is_dense and energy.factors_pay(self.counts)
        )

    def _point_bytes(self) -> int:
        """Bytes of a draw's points with weights, targets, normals and factors, and of the data.

        A draw counts twice, because the old one is still there while the new one is made. There are
        also the held-out points.
        """
        problem, dim = self.problem, self.problem.domain.dim
        factors = max(term.num_components for term in self.terms)
        columns = 2 * dim + 1 + len(problem.outputs) + factors
        local = sum(-(-count // self.num_ranks) for count in self.counts.values())
        local = ceil((1 + HELD_OUT / 2) * local)
        data = sum(len(d.x_ND) + len(d.held_out_x) for d in self.data.values())
        return NUMBER * columns * (2 * local + data)


def named(table: Mapping[str, Any], problem: Problem | type[Problem] | None) -> Mapping[str, Any]:
    """The table, with "python:MyProblem" as the problem's name if an object was given. Local."""
    if problem is None:
        return table
    cls = problem if isinstance(problem, type) else type(problem)
    return {**table, "problem": {**table.get("problem", {}), "name": f"{GIVEN}:{cls.__name__}"}}


def held_out(sampling: Sampling, name: str, data: DataSet) -> DataSet:
    """The data set, of which rows are held out for validation unless the config needs all. Local.

    A number of rows in the config says that no others are to be held out.
    """
    needs_all = sampling.adapt != "auto" or getattr(sampling, name, None) is not None
    return data if needs_all else validated(data)


def make_problem(config: Config, given: Problem | type[Problem] | None) -> Problem:
    """The checked problem: the one that is given, or else the one that the config names. Local.

    Raises:
        ConfigError: the problem cannot be built, or lacks something.
        UsageError: `given` is not a problem.
    """
    table = config.problem.model_dump()
    if given is None:
        return build(table)
    options = {key: value for key, value in table.items() if key != "name"}
    if isinstance(given, Problem):
        if options:
            text = "the problem was given as an instance, which has no options"
            raise ConfigError([f"problem.{key}: {text}" for key in options])
        problem = given
    elif isinstance(given, type) and issubclass(given, Problem):
        problem = construct(given, options, "problem", given.__name__)
    else:
        raise UsageError(
            f"problem = {given!r}: needed is a class derived from nedhpc.Problem, or an instance"
        )
    check(problem, type(problem).__name__)
    return problem


def check_windows(number: int, problem: Problem, terms: Sequence[BoundTerm]) -> None:
    """Raise UsageError if time windows are asked for and the problem cannot be solved in them."""
    reason = why_not(problem, terms) if number > 1 else ""
    if reason:
        raise UsageError(f"run.windows = {number}: time windows are not possible, because {reason}")


def check_second(config: Config, terms: Sequence[BoundTerm], problem: Problem) -> None:
    """Raise UsageError if run.estimate_error is set and there can be no second solution."""
    network, reason = config.network, ""
    if network.name is not None:
        reason = f"the size of your own network {network.name!r} is not known to the program"
    elif not network.hidden:
        reason = "a network without hidden layers has one size only"
    elif any(term.kind.needs_targets for term in terms):
        reason = "outputs of a cross-entropy are logits, whose differences are no errors"
    elif problem.eigenvalues:
        reason = "eigenfunctions are known up to their sign only, so that differences are no errors"
    if config.run.estimate_error and reason:
        raise UsageError(
            "run.estimate_error = true: the problem cannot be solved with a network of another "
            f"size, because {reason}; remove run.estimate_error"
        )
