"""The flow under PETSc TS: explicit types on theta_dot = v(theta), implicit ones on F = M theta_dot + g, step rules as type python.

The TS vector has all P entries on rank 0, so that norms are the same arithmetic at any rank count and all ranks take one
accept / reject decision. One ts.solve() does the run: PreStep draws the sample, PostStep reports and may stop.
"""

import itertools
import shlex

import numpy as np
import torch
from petsc4py import PETSc

from nedhpc.errors import NedError, UsageError
from nedhpc.parallel import broadcast
from nedhpc.steppers.base import StepInfo
from nedhpc.steppers.ptc import Ptc

RULES = {"ptc": Ptc}
"""Step rules of our own; any other stepper is a TS type of PETSc."""
EXPLICIT = ("euler", "rk", "ssp")

_prefixes = itertools.count()


def parse_options(text):
    """[(name, value or None)] of PETSc options as on a command line."""
    tokens, pairs = shlex.split(text), []
    for token in tokens:
        is_name = token.startswith("-") and not token[1:2].isdigit() and token[1:2] != "."
        if is_name:
            pairs.append([token[1:], None])
        elif not pairs or pairs[-1][1] is not None:
            raise UsageError(f"PETSc options {text!r}: {token!r} is a value without an option; options start with '-'")
        else:
            pairs[-1][1] = token
    return pairs


class TimeStepper:
    """A TS on `flow`, started from (theta, step, time, dt) and run to its end by `solve`. Collective on comm.

    before_step(step) draws the sample; after_step(theta, step, time, next dt, StepInfo) returns
    True to stop. Use as a context manager: the PETSc objects are destroyed on leaving.
    """

    def __init__(self, comm, flow, settings, like, max_steps, max_time):
        self.comm, self.flow, self.settings, self.like = comm, flow, settings, like
        self.max_steps, self.max_time = max_steps, max_time
        kind = settings.type
        self.rule = RULES[kind](flow, getattr(settings, kind)) if kind in RULES else None
        self.error = self.implicit = None
        self.solve_info = (0, float("nan"))

    def __enter__(self):
        P = len(self.like)
        self.vec = PETSc.Vec().createMPI((P if self.comm.rank == 0 else 0, P), comm=self.comm)
        self.ts = ts = PETSc.TS().create(comm=self.comm)
        ts.setProblemType(PETSc.TS.ProblemType.NONLINEAR)
        self.work = self.vec.duplicate()
        if self.rule is not None:
            ts.setType("python")
            ts.setPythonContext(self)
        elif self.settings.type in EXPLICIT:
            ts.setType(self.settings.type)
            ts.setRHSFunction(self._velocity, self.work)
        else:
            ts.setType(self.settings.type)
            self.implicit = ImplicitForm(self, ts)
        ts.setMaxSteps(self.max_steps)
        ts.setMaxTime(self.max_time if self.max_time is not None else 1e300)
        ts.setExactFinalTime(PETSc.TS.ExactFinalTime.MATCHSTEP if self.max_time is not None and self.rule is None
                             else PETSc.TS.ExactFinalTime.STEPOVER)
        self._apply_options()
        return self

    def __exit__(self, *exception):
        for name in self.option_names:
            PETSc.Options().delValue(name)
        for thing in (self.ts, self.vec, self.work, self.implicit and self.implicit.J):
            if thing is not None:
                thing.destroy()

    def _apply_options(self):
        """The user's options under a prefix of this TS alone, so that runs in one process do not share them."""
        prefix, options = f"ned{next(_prefixes)}_", PETSc.Options()
        pairs = parse_options(self.settings.petsc_options)
        self.option_names = [prefix + name for name, _ in pairs]
        for (_, value), name in zip(pairs, self.option_names):
            options.setValue(name, value)
        self.ts.setOptionsPrefix(prefix)
        try:
            self.ts.setFromOptions()
        except PETSc.Error as error:
            raise UsageError(f"PETSc refuses the options {self.settings.petsc_options!r}: {_last_line(error)}") from None
        unused = [name.removeprefix(prefix) for name in self.option_names
                  if not options.used(name) and not name.endswith("_view")]  # views are looked up at the end
        if unused:
            raise UsageError(f"PETSc options that a TS of type {self.settings.type} does not know: {' '.join('-' + n for n in unused)}; "
                             "see -help of PETSc's TS, or a typing error")

    def solve(self, theta_P, step, time, dt, stepper_state, before_step, after_step):
        """Run to max_steps, max_time or until after_step says stop."""
        ts, self.before_step, self.after_step = self.ts, before_step, after_step
        if stepper_state and self.rule is not None:
            self.rule.load(stepper_state)
        self._store(self.vec, theta_P)
        ts.setStepNumber(step)
        ts.setTime(time)
        ts.setTimeStep(dt)
        self.info = None
        ts.setPreStep(self._guard(self._pre_step))
        ts.setPostStep(self._guard(self._post_step))
        try:
            ts.solve(self.vec)
        except PETSc.Error as error:
            if self.error is not None:
                raise self.error from None
            raise NedError(f"PETSc TS stopped: {_last_line(error)}; the likely cause is a time step that its error control "
                           "cannot meet; try a smaller stepper.dt, another -ts_adapt_type, or a fixed sample") from error

    def state(self):
        return self.rule.state() if self.rule is not None else {}

    def _guard(self, callback):
        """Keep a callback's own exception: PETSc would wrap it."""
        def call(*args):
            try:
                return callback(*args)
            except Exception as error:
                self.error = error
                raise
        return call

    def _load(self, vec):
        theta = np.empty(len(self.like))
        if self.comm.rank == 0:
            theta[:] = vec.getArray(readonly=True)
        return torch.as_tensor(broadcast(self.comm, theta), dtype=self.like.dtype, device=self.like.device)

    def _store(self, vec, theta_P):
        array = vec.getArray()
        if self.comm.rank == 0:
            array[:] = theta_P.double().cpu().numpy()

    def _pre_step(self, ts):
        redrawn = self.before_step(ts.getStepNumber())
        self.last_time = ts.getTime()
        if self.rule is None and (redrawn or self.settings.type != "bdf"):
            # First-same-as-last types reuse a stage: one of the old sample, or one that a resumed run has only to rounding.
            # bdf lives on past states: it keeps them while the sample stays.
            ts.restartStep()

    def _post_step(self, ts):
        # TS has moved on already: the step taken is what the clock gained.
        info = self.info if self.rule is not None else StepInfo(ts.getTime() - self.last_time, None, *self.solve_info)
        if self.after_step(self._load(self.vec), ts.getStepNumber(), ts.getTime(), ts.getTimeStep(), info):
            ts.setConvergedReason(PETSc.TS.ConvergedReason.CONVERGED_USER)

    def _velocity(self, ts, t, u, f):
        def evaluate():
            theta_dot, info = self.flow.velocity(self._load(u))
            if info:
                self.solve_info = (info.effective_rank, info.projection_error)
            self._store(f, theta_dot)
        self._guard(evaluate)()

    # The TS of type python.

    def solveStep(self, ts, t, u):
        def step():
            theta_P, self.next_dt, self.info = self.rule.step(self._load(u), ts.getTimeStep())
            self._store(u, theta_P)
            ts.setTimeStep(self.info.dt)  # the clock advances by the step that the rule took
        self._guard(step)()

    def adaptStep(self, ts, t, u):
        return self.next_dt, True


class ImplicitForm:
    """F(t, theta, theta_dot) = 0 and its Jacobian shift M + A^T A on a TS, whose KSP is one solve of the distributed least squares.

    The Jacobian leaves out d(M theta_dot)/dtheta and what Gauss-Newton leaves out, so SNES iterates. It is a Mat and a PC of type
    python: with -ksp_type gmres the least squares becomes the preconditioner.
    """

    def __init__(self, stepper, ts):
        self.stepper, self.flow = stepper, stepper.flow
        ts.setIFunction(stepper._guard(self._function), stepper.work)
        n = (stepper.vec.getLocalSize(), stepper.vec.getSize())
        self.J = PETSc.Mat().createPython((n, n), self, comm=stepper.comm)
        self.J.setUp()
        ts.setIJacobian(stepper._guard(self._jacobian), self.J)
        if ts.getType() == "arkimex":
            ts.setARKIMEXFullyImplicit(True)
        ts.setMaxSNESFailures(-1)  # the adaptor cuts dt instead
        ksp = ts.getSNES().getKSP()
        ksp.setType("preonly")
        ksp.pc.setType("python")
        ksp.pc.setPythonContext(self)

    def _function(self, ts, t, u, u_dot, f):
        stepper = self.stepper
        stepper._store(f, self.flow.implicit(stepper._load(u), stepper._load(u_dot)))

    def _jacobian(self, ts, t, u, u_dot, shift, J, P):
        self.system, self.shift, self.factor = self.flow.linearise(self.stepper._load(u)), shift, 1.0
        J.assemble()  # with -snes_mf_operator J is PETSc's difference of F, and our P its preconditioner

    def scale(self, J, factor):
        """arkimex scales its stages' Jacobians."""
        self.factor *= factor

    def mult(self, J, x, y):
        stepper = self.stepper
        stepper._store(y, self.factor * self.flow.jacobian(self.system, self.shift, stepper._load(x)))

    def apply(self, pc, x, y):
        stepper = self.stepper
        solution, info = self.flow.solve_jacobian(self.system, self.shift, stepper._load(x))
        stepper.solve_info = (info.effective_rank, info.projection_error)
        stepper._store(y, solution / self.factor)


def _last_line(error):
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else repr(error)
