"""Time steppers of a flow: nedhpc's step rules, one class each, and the types of PETSc's TS."""

from nedhpc.steppers.registry import all_kinds, find, resolved, rules, settings

__all__ = ["all_kinds", "find", "resolved", "rules", "settings"]
