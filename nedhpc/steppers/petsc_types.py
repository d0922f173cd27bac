"""The types of PETSc's TS that can step a flow, with the traits of a StepRule. Local.

This is a table of facts, which does not import PETSc.
"""

from dataclasses import dataclass

from nedhpc.steppers.base import StepRule


@dataclass(frozen=True, slots=True)
class PetscType:
    """A TS type."""

    name: str
    implicit: bool
    """True if it steps F = M theta_dot + g = 0 with a Jacobian, False for theta_dot = v(theta)."""
    memory: int = 0
    """Number of past steps that the next step depends on."""
    uses_solver: bool = True
    uses_metric: bool = True
    chooses_dt: bool = False
    """False, although an adaptor may choose dt.

    An adaptor cannot recover from an energy that is not finite. The run can, by a smaller dt.
    """
    lowers_energy: bool = False
    marches: bool = False
    Settings: type = StepRule.Settings
    """An empty table, because the settings are PETSc options."""


_TYPES = (
    PetscType("euler", implicit=False),
    PetscType("rk", implicit=False),
    PetscType("ssp", implicit=False),
    # The theta family estimates its error from the step before.
    PetscType("beuler", implicit=True, memory=1),
    PetscType("theta", implicit=True, memory=1),
    PetscType("cn", implicit=True, memory=1),
    # A formula of order k uses k past states; the order is at most 6.
    PetscType("bdf", implicit=True, memory=6),
    PetscType("arkimex", implicit=True),
    PetscType("rosw", implicit=True),
    # The next dt depends on the norm of F before the step.
    PetscType("pseudo", implicit=True, memory=1),
)
PETSC_TYPES = {kind.name: kind for kind in _TYPES}
