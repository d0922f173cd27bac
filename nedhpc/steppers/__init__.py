"""Time steppers of a flow: nedhpc's step rules, one class each, and the types of PETSc's TS."""

from nedhpc.steppers.registry import find, resolved, rules, settings

__all__ = ["find", "resolved", "rules", "settings"]
