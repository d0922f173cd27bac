"""The catalogue, and how a problem named in a config is found and built."""

import difflib
import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path

import pydantic

from nedhpc.errors import ConfigError, UsageError
from nedhpc.problems.base import Box, CrossEntropy, DataSet, Density, Problem, Residual, SpaceTime
from nedhpc.problems.digits import Digits
from nedhpc.problems.heat import Heat
from nedhpc.problems.poisson import Poisson
from nedhpc.problems.regression import Regression

CATALOGUE = {"poisson": Poisson, "heat": Heat, "regression": Regression, "digits": Digits}


def build(table):
    """The problem of a config's [problem] table: `name`, and the options of its constructor. ConfigError for bad options."""
    options = dict(table)
    name = options.pop("name")
    cls = load_class(name, Problem, "problem.name") if ":" in name else CATALOGUE.get(name)
    if cls is None:
        close = difflib.get_close_matches(name, CATALOGUE, 1)
        raise ConfigError(
            [
                f"problem.name = {name!r} is unknown"
                + (f"; did you mean {close[0]!r}?" if close else "")
                + f'; allowed: {", ".join(CATALOGUE)}, or a class of your own as "file.py:Class"'
            ]
        )
    parameters = inspect.signature(cls).parameters
    errors = []
    for key, value in options.items():
        if key not in parameters:
            close = difflib.get_close_matches(key, parameters, 1)
            errors.append(
                f"problem.{key}: unknown key"
                + (f"; did you mean {close[0]!r}?" if close else "")
                + f"; allowed for {name}: {', '.join(['name', *parameters])}"
            )
            continue
        annotation = parameters[key].annotation
        try:
            if annotation is not inspect.Parameter.empty:
                options[key] = pydantic.TypeAdapter(annotation).validate_python(value)
        except pydantic.ValidationError as error:
            errors.append(f"problem.{key} = {value!r}: {error.errors()[0]['msg']}")
    if isinstance(options.get("dim"), int) and options["dim"] < 1:
        errors.append(f"problem.dim = {options['dim']}: must be at least 1")
    if errors:
        raise ConfigError(errors)
    problem = cls(**options)
    check(problem, name)
    return problem


def check(problem, name):
    """A person's own class may lack what a run needs: say it before the run."""
    errors = []
    domain = getattr(problem, "domain", None)
    if not isinstance(domain, Box):
        errors.append(
            f"{name}: set `domain = nedhpc.Box(low, high)` or `nedhpc.SpaceTime(low, high, end)`"
        )
    if not problem.terms:
        errors.append(
            f"{name}: `terms` is empty; list at least one nedhpc.Residual, nedhpc.Density or nedhpc.CrossEntropy"
        )
    for term in problem.terms:
        if not callable(getattr(problem, term.name, None)):
            errors.append(
                f"{name}: term {term.name!r} needs a method `def {term.name}(self, x, j, c)`"
            )
        sets = (*getattr(domain, "point_sets", Box.point_sets), "data")
        if term.on not in sets:
            errors.append(
                f"{name}: term {term.name!r} is on {term.on!r}; allowed: {', '.join(sets)}"
            )
        if term.on == "data" and problem.data is None:
            errors.append(
                f'{name}: term {term.name!r} is on "data" but the problem has no `data = nedhpc.DataSet(x, y)`'
            )
        if isinstance(term, CrossEntropy) and term.on != "data":
            errors.append(
                f'{name}: term {term.name!r} is a CrossEntropy on {term.on!r}; it needs targets, which "data" has'
            )
        if not term.weight > 0:
            errors.append(
                f"{name}: term {term.name!r} has weight {term.weight}; it must be positive"
            )
    if errors:
        raise ConfigError(errors)


def load_class(name, base, key):
    """The class of "file.py:Class"; runs that file, which the person named."""
    path, _, cls_name = name.rpartition(":")
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            [f"{key} = {name!r}: there is no file {path} (paths are relative to the config file)"]
        )
    spec = importlib.util.spec_from_file_location(f"nedhpc_user_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(
            [f"{key} = {name!r}: {path} raises {type(error).__name__}: {error}"]
        ) from error
    cls = getattr(module, cls_name, None)
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise ConfigError(
            [
                f"{key} = {name!r}: {path} has no class {cls_name} that derives from {base.__module__}.{base.__name__}"
            ]
        )
    return cls


def user_files(config):
    """{key: path} of the config's Python files."""
    names = {"problem.name": config.problem.name, "network.name": config.network.name or ""}
    return {key: Path(name.rpartition(":")[0]) for key, name in names.items() if ":" in name}


def digests(config):
    """{key: SHA-256} of the files that the config names, Python and data; "missing" for one that cannot be read."""
    files = user_files(config)
    if isinstance(data := getattr(config.problem, "file", None), str) and data:
        files["problem.file"] = Path(data)
    found = {}
    for key, path in files.items():
        try:
            found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            found[key] = "missing"
    return found


def check_unchanged(config, known, named=()):
    """Refuse to run a Python file that a checkpoint names unless it is what ran then, or the person named its key."""
    for key, path in user_files(config).items():
        if key in named:
            continue
        if not path.is_file():
            raise UsageError(
                f"{key}: {path} is gone; give its new place with --set {key}=FILE.py:CLASS"
            )
        if hashlib.sha256(path.read_bytes()).hexdigest() != known.get(key):
            raise UsageError(
                f"{key}: {path} is not the file that the run was started with and is not run for that reason; restore it, or "
                f"name it with --set {key}=FILE.py:CLASS"
            )


__all__ = [
    "CATALOGUE",
    "Box",
    "CrossEntropy",
    "DataSet",
    "Density",
    "Problem",
    "Residual",
    "SpaceTime",
    "build",
    "check_unchanged",
    "digests",
    "load_class",
]
