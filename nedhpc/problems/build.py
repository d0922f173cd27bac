"""Builds the problem that a config names, and checks it before it runs. Local."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pydantic

from nedhpc.ansatz import jets
from nedhpc.domains.base import Domain
from nedhpc.domains.trial import domain_errors
from nedhpc.errors import ConfigError, UsageError
from nedhpc.files.tables import bad_name
from nedhpc.names import unknown
from nedhpc.problems import heats, odes, space_time
from nedhpc.problems.base import Problem, declared_terms
from nedhpc.problems.bound import BoundTerm
from nedhpc.problems.corners import InBall, LShape, LShapeFeature, OutsideDisk, SquareWithHoles
from nedhpc.problems.coverage import periodic_errors
from nedhpc.problems.data import DataSet, named_sets
from nedhpc.problems.digits import Digits
from nedhpc.problems.dry_run import dry_run
from nedhpc.problems.eigenvalue import Eigenvalue
from nedhpc.problems.elliptic import (
    AdvectionDiffusion,
    Eikonal,
    Helmholtz,
    NonlinearPoisson,
    PoissonBoltzmann,
)
from nedhpc.problems.fluids import BackwardStep, Cavity, Kovasznay, Stokes
from nedhpc.problems.heat import Heat
from nedhpc.problems.integrals import bind, constraint
from nedhpc.problems.inverse import Conductivity, Viscosity
from nedhpc.problems.march import march_errors
from nedhpc.problems.marches import (
    Advection,
    AllenCahn,
    Burgers,
    HeatMarch,
    KdV,
    KdVTwoSolitons,
    KuramotoSivashinsky,
)
from nedhpc.problems.marches_in_many import FokkerPlanck, Transport
from nedhpc.problems.marches_in_plane import AllenCahnPlane, BurgersPlane, HeatPlane, TaylorGreen
from nedhpc.problems.marches_of_systems import GrayScott, Schroedinger, Wave
from nedhpc.problems.materials import Materials
from nedhpc.problems.poisson import Poisson
from nedhpc.problems.regression import Regression
from nedhpc.problems.solids import Beam, Biharmonic, Elasticity
from nedhpc.problems.terms import Conserved, Integral, Term
from nedhpc.problems.variational import PLaplacian, PoissonRitz
from nedhpc.user_calls import called, shortened
from nedhpc.user_code import find_class

MAX_DIM = 1000
"""Most coordinates of a problem; the walls of a box of more would take too long to count."""
ATTRIBUTES = (
    "domain",
    "outputs",
    "coefficients",
    "eigenvalues",
    "terms",
    "data",
    "reference",
    "hard",
)
"""Attributes of a problem, which may be properties and raise."""
CATALOGUE: dict[str, type[Problem]] = {
    "poisson": Poisson,
    "helmholtz": Helmholtz,
    "nonlinear_poisson": NonlinearPoisson,
    "poisson_boltzmann": PoissonBoltzmann,
    "advection_diffusion": AdvectionDiffusion,
    "eikonal": Eikonal,
    "poisson_ritz": PoissonRitz,
    "p_laplacian": PLaplacian,
    "l_shape": LShape,
    "l_shape_feature": LShapeFeature,
    "square_with_holes": SquareWithHoles,
    "outside_disk": OutsideDisk,
    "in_ball": InBall,
    "materials": Materials,
    "biharmonic": Biharmonic,
    "beam": Beam,
    "elasticity": Elasticity,
    "kovasznay": Kovasznay,
    "cavity": Cavity,
    "stokes": Stokes,
    "backward_step": BackwardStep,
    "heat": Heat,
    "eigenvalue": Eigenvalue,
    "regression": Regression,
    "digits": Digits,
    "viscosity": Viscosity,
    "conductivity": Conductivity,
    "heat_march": HeatMarch,
    "advection": Advection,
    "burgers": Burgers,
    "allen_cahn": AllenCahn,
    "kdv": KdV,
    "kdv_two_solitons": KdVTwoSolitons,
    "kuramoto_sivashinsky": KuramotoSivashinsky,
    "burgers_spacetime": space_time.BurgersSpaceTime,
    "allen_cahn_spacetime": space_time.AllenCahnSpaceTime,
    "kdv_spacetime": space_time.KdVSpaceTime,
    "kuramoto_sivashinsky_spacetime": space_time.KuramotoSivashinskySpaceTime,
    "gray_scott_spacetime": space_time.GrayScottSpaceTime,
    "wave_spacetime": space_time.WaveSpaceTime,
    "heat_ball": heats.HeatBall,
    "heat_varying": heats.HeatVarying,
    "heat_multiscale": heats.HeatMultiscale,
    "heat_holes": heats.HeatHoles,
    "heat_long": heats.HeatLong,
    "lotka_volterra": odes.LotkaVolterra,
    "robertson": odes.Robertson,
    "integro_differential": odes.IntegroDifferential,
    "heat_plane": HeatPlane,
    "allen_cahn_plane": AllenCahnPlane,
    "burgers_plane": BurgersPlane,
    "taylor_green": TaylorGreen,
    "wave": Wave,
    "schroedinger": Schroedinger,
    "gray_scott": GrayScott,
    "transport": Transport,
    "fokker_planck": FokkerPlanck,
}


def build(table: Mapping[str, Any]) -> Problem:
    """The problem of a config's table [problem].

    Args:
        table: `name`, and the arguments of the problem's constructor.

    Raises:
        ConfigError: every bad option, or everything that the class lacks.
    """
    options = dict(table)
    name = options.pop("name")
    cls = find_class(name, Problem, CATALOGUE, "problem.name")
    problem = construct(cls, options, "problem", name)
    check(problem, name)
    return problem


def construct(cls: type, options: dict[str, Any], section: str, name: str) -> Any:
    """cls(**options), after a check of the options against the constructor's annotations.

    Args:
        cls: the class.
        options: arguments of its constructor; they are converted in place.
        section: config section that holds the options, for messages.
        name: name of the class, for messages.

    Raises:
        ConfigError: every option that is unknown, wrong or missing, or the constructor's error.
    """
    where = f"{section}.name = {name!r}"
    parameters = called(f"{where}: its signature", inspect.signature, cls).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    errors = []
    for key, value in options.items():
        if key not in parameters:
            if not open_ended:
                errors.append(unknown(f"{section}.{key}", "key", key, ["name", *parameters]))
            continue
        annotation = parameters[key].annotation
        try:
            if annotation is not inspect.Parameter.empty:
                options[key] = pydantic.TypeAdapter(annotation).validate_python(value)
        except pydantic.ValidationError as error:
            errors.append(f"{section}.{key} = {value!r}: {error.errors()[0]['msg']}")
        except (pydantic.errors.PydanticUserError, NameError, TypeError):
            pass  # the annotation is not one that pydantic knows; the class checks its argument
    for key, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variadic and key not in options:
            errors.append(f"{section}.{key}: missing; {name} needs it")
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            errors.append(f"{name}: its argument {key!r} is positional-only; leave out the '/'")
    if isinstance(options.get("dim"), int) and not 1 <= options["dim"] <= MAX_DIM:
        errors.append(f"{section}.dim = {options['dim']}: must be at least 1, at most {MAX_DIM}")
    if errors:
        raise ConfigError(errors)
    return called(f"{where}: its constructor", cls, **options)


def check(problem: Problem, name: str) -> None:
    """Check that a problem has all that a run needs.

    Args:
        problem: the problem.
        name: its name, for messages.

    Raises:
        ConfigError: everything that the class lacks.
    """
    for attribute in ATTRIBUTES:
        called(f"{name}: its attribute `{attribute}`", getattr, problem, attribute, None)
    domain = getattr(problem, "domain", None)
    if not isinstance(domain, Domain):
        raise ConfigError([f"{name}: set `domain`, e.g. `domain = nedhpc.Box([0, 0], [1, 1])`"])
    errors = [f"{name}: {error}" for error in domain_errors(domain)]
    if errors:
        raise ConfigError(errors)  # the checks below use its parts
    found = (*_bad_names(problem), *_bad_eigenvalues(problem), *_bad_data(problem))
    errors = [f"{name}: {error}" for error in found]
    if not isinstance(problem.terms, Sequence) or not all(
        isinstance(term, Term) and isinstance(term.name, str) for term in problem.terms
    ):
        errors.append(
            f"{name}: terms = {shortened(repr(problem.terms))}; needed is a list of "
            "nedhpc.Residual, nedhpc.Density or nedhpc.CrossEntropy with names"
        )
        raise ConfigError(errors)  # the checks below use its terms
    terms = declared_terms(problem)
    if not terms:
        errors.append(
            f"{name}: it has no terms; decorate a method with @nedhpc.residual, "
            "@nedhpc.density or @nedhpc.rate, or list nedhpc.Residual, nedhpc.Density or "
            "nedhpc.CrossEntropy in `terms`"
        )
    errors += [f"{name}: {error}" for error in march_errors(problem, terms)]
    names = [term.name for term in terms]
    for term in terms:
        errors += [f"{name}: term {term.name!r} {error}" for error in _bad_term(problem, term)]
        if names.count(term.name) > 1:
            errors.append(f"{name}: term {term.name!r} is declared {names.count(term.name)} times")
    errors = errors or [f"{name}: {error}" for error in periodic_errors(problem, terms)]
    if errors:
        raise ConfigError(list(dict.fromkeys(errors)))


def _bad_names(problem: Problem) -> list[str]:
    errors, outputs = [], problem.outputs
    is_list = isinstance(outputs, Sequence) and not isinstance(outputs, str)
    if not is_list or not outputs or any(outputs.count(name) > 1 for name in outputs):
        errors.append(
            f'outputs = {outputs!r}; needed is a tuple of different names, e.g. ("u", "v")'
        )
    else:
        bad = [name for name in outputs if not (isinstance(name, str) and name.isidentifier())]
        errors += [f"the output {name!r} is not a Python name" for name in bad]
        errors += [
            f"the output {name!r} is also the name of a derivative or of all values; rename it"
            for name in outputs
            if not bad and _is_jet(name, [u for u in outputs if u != name] or [""], problem)
        ]
    if not isinstance(problem.coefficients, Mapping):
        return [*errors, f"coefficients = {problem.coefficients!r}; needed is {{name: number}}"]
    for name, value in problem.coefficients.items():
        if not (isinstance(name, str) and name.isidentifier()):
            errors.append(f"the coefficient {name!r} is not a Python name")
        if not (isinstance(value, int | float) and math.isfinite(value)):
            errors.append(
                f"the coefficient {name!r} starts at {value!r}; needed is a finite number"
            )
    return errors


def _bad_eigenvalues(problem: Problem) -> list[str]:
    given = problem.eigenvalues
    if not isinstance(given, Mapping) or not all(
        isinstance(names, str) or _is_text(names) for names in given.values()
    ):
        return [f"eigenvalues = {given!r}; needed is {{coefficient: output or outputs}}"]
    if not given or not isinstance(problem.coefficients, Mapping):
        return []
    functions = list(problem.eigenfunctions.values())
    outputs = [name for names in functions for name in names]
    errors = [
        f"eigenvalues: {name!r} is none of the coefficients {', '.join(problem.coefficients)}"
        for name in given
        if name not in problem.coefficients
    ]
    errors += [
        f"eigenvalues: {name!r} is none of the outputs {', '.join(problem.outputs)}"
        for name in outputs
        if name not in problem.outputs
    ]
    if len(set(outputs)) < len(outputs) or len(set(map(len, functions))) > 1:
        errors.append("eigenvalues: each eigenfunction needs as many outputs, all of its own")
    if not errors and len({problem.coefficients[name] for name in given}) > 1:
        errors.append(
            "eigenvalues: their coefficients need the same initial value, near which the "
            "eigenvalues are looked for"
        )
    return errors


def _bad_data(problem: Problem) -> list[str]:
    """Messages about data sets that do not fit the domain and the outputs."""
    errors = []
    for name, data in named_sets(problem.data).items():
        if not isinstance(data, DataSet):
            errors.append(
                f"{name} is a {type(data).__name__}; needed is nedhpc.DataSet(x, y), or a table of "
                "them by name"
            )
        elif name in problem.domain.parts or not (isinstance(name, str) and name.isidentifier()):
            errors.append(
                f"the data set {name!r} must have a Python name that no part of the domain has"
            )
        else:
            errors += _bad_set(name, data, problem.domain.dim)
    return errors


def _bad_set(title: str, data: DataSet, dim: int) -> list[str]:
    """Messages about one data set."""
    errors = []
    pairs = [("x_ND", "y_NM")]
    if np.size(data.held_out_x) or np.size(data.held_out_y):
        pairs.append(("held_out_x", "held_out_y"))
    for pair in pairs:
        for name in pair:
            array = getattr(data, name)
            if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.ndim != 2:
                kind = getattr(array, "dtype", type(array).__name__)
                shape = getattr(array, "shape", "")
                errors.append(
                    f"{title}.{name} is {kind} {shape}; needed is a numpy array of float64 "
                    "with a row for each point"
                )
            elif not np.isfinite(array).all():
                errors.append(f"{title}.{name} holds numbers that are not finite")
        if errors:
            continue
        x, y = (getattr(data, name) for name in pair)
        if len(x) != len(y) or not len(x) or x.shape[1] != dim:
            errors.append(
                f"{title}.{pair[0]} has shape {x.shape} and {title}.{pair[1]} {y.shape}; "
                f"needed are (N, {dim}) for {dim} coordinates, and (N, M), with at least one row"
            )
    return errors


def _is_jet(name: str, outputs: list[str], problem: Problem) -> bool:
    """True if `name` means a jet of the other outputs, or all values."""
    try:
        return name == "values" or bool(jets.parse((name,), outputs, problem.coordinates))
    except UsageError:
        return False


def _bad_term(problem: Problem, term: Term) -> list[str]:
    errors = []
    if reason := bad_name(term.name):
        errors.append(f"has a name that cannot be stored: {reason}")
    elif not callable(getattr(problem, term.name, None)):
        errors.append(f"needs a method `def {term.name}(self, x, j)`")
    if not (term.jets is None or isinstance(term.jets, str) or _is_text(term.jets)):
        errors.append(f'has jets = {term.jets!r}; needed are names, e.g. ("u", "lap_u")')
    sets = named_sets(problem.data)
    if term.on == "data" and not sets:
        errors.append('is on "data" but the problem has no `data = nedhpc.DataSet(x, y)`')
    elif term.on not in (*problem.domain.parts, *sets):
        allowed = ", ".join((*problem.domain.parts, *(sets or ["data"])))
        periods = zip(problem.coordinates, problem.domain.periods, strict=True)
        periodic = ", ".join(x for x, period in periods if period is not None)
        why = f"; ends of a periodic direction ({periodic}) are no boundary" if periodic else ""
        errors.append(f"is on {term.on!r}; allowed: {allowed}{why}")
    if term.needs_targets and term.on not in sets:
        kind = type(term).__name__
        errors.append(f'is a {kind} on {term.on!r}; it needs targets, which "data" has')
    if not (isinstance(term.weight, int | float) and 0 < term.weight < math.inf):
        errors.append(f"has weight {term.weight}; it must be positive and finite")
    return errors


def _is_text(names: object) -> bool:
    return isinstance(names, Sequence) and all(isinstance(name, str) for name in names)


def bind_terms(problem: Problem, weights: Mapping[str, float]) -> tuple[BoundTerm, ...]:
    """Bind all terms to the problem by a dry run of each.

    Args:
        problem: a checked problem.
        weights: the config's [weights], factors by name of a term or of a part.

    Raises:
        ConfigError: what each term's dry run found, and the weights that name nothing.
    """
    terms, errors, bound = declared_terms(problem), [], []
    known = dict.fromkeys(name for term in terms for name in (term.name, term.on))
    for key in weights:
        if key not in known:
            errors.append(unknown(f"weights.{key}", "name of a term or part", key, known))
    integrals = _bind_integrals(problem, terms, errors)
    conserved = [term for term in integrals if isinstance(term.kind, Conserved)]
    integrals = tuple(term for term in integrals if term not in conserved)
    for term in terms:
        weight = weights.get(term.name, 1.0)
        weight *= weights.get(term.on, 1.0) if term.on != term.name else 1.0
        try:
            if not isinstance(term, Integral):
                bound.append(dry_run(problem, term, weight, integrals))
            elif term.target is not None:
                bound.append(constraint(problem, term, weight, integrals))
        except UsageError as error:
            errors.append(str(error))
    if integrals and not any(term.integrals for term in bound) and not errors:
        names = ", ".join(repr(integral.name) for integral in integrals)
        errors.append(f"no term uses the integrals {names}; give them a target, or an argument i")
    if not bound and not errors:
        errors.append("there are integrals only; a run needs a term, or an integral with a target")
    if errors:
        raise ConfigError(errors)
    return (*bound, *conserved)


def _bind_integrals(
    problem: Problem, terms: Sequence[Term], errors: list[str]
) -> tuple[BoundTerm, ...]:
    """The bound integrals. What is wrong with others is raised, since no term can be tried then."""
    found = []
    for term in terms:
        if isinstance(term, Integral):
            try:
                found.append(bind(problem, term))
            except UsageError as error:
                errors.append(str(error))
    if errors:
        raise ConfigError(errors)
    return tuple(found)
