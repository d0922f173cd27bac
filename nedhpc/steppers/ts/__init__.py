"""The flow under PETSc's TS. Importing this subpackage imports PETSc."""

from nedhpc.steppers.ts.time_stepper import End, TimeStepper

__all__ = ["End", "TimeStepper"]
