"""One step of an explicit TS type for an ODE y' = f(t, y) that every rank holds whole."""

from collections.abc import Callable

import numpy as np

from nedhpc.parallel.petsc import PETSc
from nedhpc.steppers.options import new_prefix


def one_step(
    kind: str, subtype: str, velocity: Callable, y_P: np.ndarray, t: float, dt: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """y after one step, and the slopes of the stages in their order.

    Collective if `velocity` is. The TS lives on each rank by itself: all ranks compute the same.

    Args:
        kind: type of the TS: "euler", "rk" or "ssp".
        subtype: its own type, as -ts_rk_type takes it; "" if there is none.
        velocity: f as a function of (t, y (P,)), (P,); the same on every rank.
        y_P: the start, (P,) float64.
        t: its time.
        dt: the time step.

    Raises:
        the error of `velocity`.
    """
    vec, slopes, errors = PETSc.Vec().createSeq(len(y_P)), [], []

    def rhs(ts, t, y, f):
        try:
            slopes.append(velocity(t, y.getArray(readonly=True).copy()))
        except BaseException as error:  # PETSc would replace it by an error of its own
            errors.append(error)
            raise
        f.setArray(slopes[-1])

    prefix, options = new_prefix(), PETSc.Options()
    given = {"ts_adapt_type": "none"} | ({f"ts_{kind}_type": subtype} if subtype else {})
    work, ts = vec.duplicate(), PETSc.TS().create(comm=PETSc.COMM_SELF)
    try:
        for name, value in given.items():
            options.setValue(prefix + name, value)
        ts.setOptionsPrefix(prefix)
        ts.setProblemType(PETSc.TS.ProblemType.NONLINEAR)
        ts.setType(kind)
        ts.setRHSFunction(rhs, work)
        ts.setFromOptions()
        ts.setMaxSteps(1)
        ts.setExactFinalTime(PETSc.TS.ExactFinalTime.STEPOVER)
        vec.setArray(y_P)
        ts.setSolution(vec)
        ts.setTime(t)
        ts.setTimeStep(dt)
        ts.step()
        return vec.getArray(readonly=True).copy(), slopes
    except PETSc.Error:
        if errors:
            raise errors[0] from None
        raise
    finally:
        for name in given:
            options.delValue(prefix + name)
        for thing in (ts, vec, work):
            thing.destroy()
