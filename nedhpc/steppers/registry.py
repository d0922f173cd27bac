"""Steppers by name, and the settings that a config holds for them. Local.

This module imports neither PETSc nor MPI.
"""

import importlib
import pkgutil

from pydantic import ValidationError

from nedhpc.config import Section, Stepper, explain
from nedhpc.errors import ConfigError, UsageError
from nedhpc.names import subclasses_by_name, unknown
from nedhpc.steppers.base import StepRule
from nedhpc.steppers.options import stepper_options
from nedhpc.steppers.petsc_types import PETSC_TYPES, PetscType


def rules() -> dict[str, type[StepRule]]:
    """{name: class} of all step rules: those of this package, and any others that were imported.

    The subpackage `ts` is not imported, because it needs PETSc and has no rules.
    """
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            importlib.import_module(f"{__package__}.{module.name}")
    found = subclasses_by_name(StepRule)
    # Messages list the rules that use the metric first.
    return dict(sorted(found.items(), key=lambda item: (not item[1].uses_metric, item[0])))


def all_kinds() -> dict[str, type[StepRule] | PetscType]:
    """{name: step rule or PETSc type}."""
    return rules() | PETSC_TYPES


def find(name: str) -> type[StepRule] | PetscType:
    """The step rule or PETSc type of that name.

    Both have the traits uses_solver, uses_metric and chooses_dt.

    Raises:
        ConfigError: there is none; the message gives the nearest name and all that are allowed.
    """
    found = all_kinds()
    if name not in found:
        raise ConfigError([unknown(f"stepper.type = {name!r}", "value", name, found)])
    return found[name]


def settings(stepper: Stepper) -> Section:
    """The validated settings of the stepper in use, with defaults.

    The tables of the other steppers and the PETSc options are validated too.

    Raises:
        ConfigError: everything that is wrong with the section [stepper].
    """
    tables, errors = _validated(stepper)
    for check in (lambda: find(stepper.type), lambda: stepper_options(stepper.petsc_options)):
        try:
            check()
        except ConfigError as error:
            errors += error.problems
        except UsageError as error:
            errors.append(f"stepper.petsc_options: {error}")
    if errors:
        raise ConfigError(errors)
    return tables[stepper.type] if stepper.type in tables else find(stepper.type).Settings()


def resolved(stepper: Stepper) -> dict:
    """The section [stepper] as a table of TOML, with the tables of settings filled in.

    It has the tables that the config gives, that of the rule in use, and those of this package's
    rules. A user's class that the process has imported but that the run does not use has no table.

    Raises:
        ConfigError: a table is not valid.
    """
    tables, errors = _validated(stepper)
    if errors:
        raise ConfigError(errors)
    keys = {name: getattr(stepper, name) for name in Stepper.model_fields}
    used = {stepper.type, *(stepper.model_extra or {})}
    used |= {name for name, rule in rules().items() if rule.__module__.startswith(__package__)}
    return keys | {
        name: table.model_dump(mode="json") for name, table in tables.items() if name in used
    }


def _validated(stepper):
    """({rule: settings}, errors) of all rules. A table that the config lacks has defaults."""
    known, given = rules(), stepper.model_extra or {}
    tables, errors = {}, []
    for name in given.keys() - known.keys():
        allowed = [*Stepper.model_fields, *known]
        errors.append(unknown(f"stepper.{name}", "key", name, allowed))
    for name, rule in known.items():
        table = given.get(name, {})
        if not isinstance(table, dict):
            errors.append(f"stepper.{name} = {table!r}: must be a table")
            continue
        try:
            tables[name] = rule.Settings.model_validate(table)
        except ValidationError as error:
            prefix = ("stepper", name)
            errors += [explain(item, rule.Settings, prefix) for item in error.errors()]
    return tables, errors
