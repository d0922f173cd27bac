"""The flow under PETSc TS: explicit types on theta_dot = v(theta), implicit ones on F = M theta_dot + g, step rules as type python.

The TS vector has all P entries on rank 0, so that norms are the same arithmetic at any rank count and all ranks take one
accept / reject decision. One ts.solve() does the run: PreStep draws the sample, PostStep reports and may stop.

Resuming is exact to the bit: types that carry a stage or a slope from step to step (rk, arkimex) restart every step; types that
remember past solutions (MEMORY) save where their last steps began, and a resumed run takes those steps again, each put to the end
that it had. Only a first guess extrapolated by -ts_theta_initial_guess_extrapolate, an adaptor's -ts_adapt_time_step_increase_delay
and the first |F| that pseudo's frtol and -ts_pseudo_increment_dt_from_initial_dt refer to begin anew.
"""

import itertools
import re
import shlex

import numpy as np
import torch
from petsc4py import PETSc

from nedhpc.errors import NedError, NonFiniteError, UsageError
from nedhpc.parallel.comm import broadcast
from nedhpc.steppers.base import StepInfo
from nedhpc.steppers.first_order import BASELINES
from nedhpc.steppers.ptc import Ptc
from nedhpc.steppers.spring import Spring

RULES = {"ptc": Ptc, "spring": Spring, **BASELINES}
"""Step rules of our own; any other stepper is a TS type of PETSc."""
EXPLICIT = ("euler", "rk", "ssp")
MEMORY = {"bdf": 6, "theta": 1, "beuler": 1, "cn": 1, "pseudo": 1}
"""Past steps that a TS type remembers: bdf's formula, the error estimate of the theta family, the norm of F of pseudo."""

STEADY = (
    PETSc.TS.ConvergedReason.CONVERGED_PSEUDO_FATOL,
    PETSc.TS.ConvergedReason.CONVERGED_PSEUDO_FRTOL,
)
LATE = re.compile(r"_(view|view_pre|view_solution|view_final_residual_vec)$|_mat_mffd_")
"""Options that PETSc looks up when they are needed."""

_prefixes = itertools.count()


def parse_options(text):
    """[(name, value or None)] of PETSc options as on a command line."""
    tokens, pairs = shlex.split(text), []
    for token in tokens:
        is_name = token.startswith("-") and not token[1:2].isdigit() and token[1:2] != "."
        if is_name:
            pairs.append([token[1:], None])
        elif not pairs or pairs[-1][1] is not None:
            raise UsageError(
                f"PETSc options {text!r}: {token!r} is a value without an option; options start with '-'"
            )
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
        self.depth = MEMORY.get(kind, 0)
        self.error = self.implicit = self.solve_info = None

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
        ts.setExactFinalTime(
            PETSc.TS.ExactFinalTime.MATCHSTEP
            if self.max_time is not None and self.rule is None
            else PETSc.TS.ExactFinalTime.STEPOVER
        )
        try:
            self._apply_options()
        except UsageError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        for name in self.option_names:
            PETSc.Options().delValue(name)
        for thing in (
            self.ts,
            self.vec,
            self.work,
            self.implicit and self.implicit.J,
        ):  # Python's collector would be out of step
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
            raise UsageError(
                f"PETSc refuses the options {self.settings.petsc_options!r}: {_last_line(error)}"
            ) from None
        unused = [
            name.removeprefix(prefix)
            for name in self.option_names
            if not options.used(name) and not LATE.search(name)
        ]
        if unused:
            raise UsageError(
                f"PETSc options that a TS of type {self.settings.type} does not know: {' '.join('-' + n for n in unused)}; "
                "see -help of PETSc's TS, or a typing error"
            )

    def solve(self, theta_P, step, time, dt, stepper_state, before_step, after_step):
        """Run to max_steps, max_time or until after_step says stop."""
        ts, self.before_step, self.after_step = self.ts, before_step, after_step
        self.states, self.past, self.info = [(theta_P, time, dt)], [], None
        if stepper_state.get("type") == self.settings.type:
            if self.rule is not None:
                self.rule.load(
                    {name: value for name, value in stepper_state.items() if name != "type"}
                )
            elif "theta" in stepper_state:
                past = zip(
                    torch.as_tensor(
                        stepper_state["theta"], dtype=self.like.dtype, device=self.like.device
                    ),
                    map(float, stepper_state["time"]),
                    map(float, stepper_state["dt"]),
                )
                self.states = [*past, *self.states]
        self.first_step = step + 1 - len(self.states)
        ts.setStepNumber(self.first_step)
        self._put(*self.states[0])
        ts.setPreStep(self._guard(self._pre_step))
        ts.setPostStep(self._guard(self._post_step))
        try:
            ts.solve(self.vec)
        except PETSc.Error as error:
            if self.error is not None:
                raise self.error from None
            raise (
                self.implicit.failure()
                if self.implicit and self.implicit.failed()
                else NedError(
                    f"PETSc TS stopped: {_last_line(error)}; the likely cause is a time step that its error control "
                    "cannot meet; try a smaller stepper.dt, another -ts_adapt_type, or a fixed sample"
                )
            ) from error

    def state(self):
        """What a resumed run needs beside theta, time and dt."""
        state = {"type": self.settings.type}
        if self.rule is not None:
            state |= self.rule.state()
        elif self.past:
            theta, time, dt = zip(*self.past)
            state |= {
                "theta": torch.stack(theta).double().cpu().numpy(),
                "time": np.array(time),
                "dt": np.array(dt),
            }
        return state

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
        return torch.as_tensor(
            broadcast(self.comm, theta), dtype=self.like.dtype, device=self.like.device
        )

    def _store(self, vec, theta_P):
        array = vec.getArray()
        if self.comm.rank == 0:
            array[:] = theta_P.double().cpu().numpy()

    def _put(self, theta_P, time, dt):
        self.theta_P = theta_P
        self._store(self.vec, theta_P)
        self.ts.setTime(time)
        self.ts.setTimeStep(dt)

    def _pre_step(self, ts):
        redrawn = self.before_step(ts.getStepNumber())
        self.last_time = ts.getTime()
        if self.rule is not None:
            return
        if redrawn or not self.depth:
            # First-same-as-last types reuse a stage: one of the old sample, or one that a resumed run has only to rounding.
            ts.restartStep()
            self.past = []
            if self.implicit:
                self.implicit.restart()
        if self.depth:
            self.past = [*self.past, (self.theta_P, self.last_time, ts.getTimeStep())][
                -self.depth :
            ]

    def _post_step(self, ts):
        taken = ts.getStepNumber() - self.first_step
        if taken < len(self.states):
            # TS forgets its past where it sees that theta was changed. The norm is taken for PETSc to replace the one it keeps.
            seen = self.vec.stateGet()
            self._put(*self.states[taken])
            self.vec.norm()
            return self.vec.stateSet(seen)
        self.theta_P = self._load(self.vec)
        if self.after_step(
            self.theta_P, ts.getStepNumber(), ts.getTime(), ts.getTimeStep(), self._step_info(ts)
        ):
            ts.setConvergedReason(PETSc.TS.ConvergedReason.CONVERGED_USER)

    def _step_info(self, ts):
        if self.rule is not None:
            return self.info
        if self.implicit:
            self.implicit.check()
        # TS has moved on already: the step taken is what the clock gained.
        dt, solve = ts.getTime() - self.last_time, self.solve_info
        steady = ts.getConvergedReason() in STEADY
        return (
            StepInfo(dt, stalled=steady)
            if solve is None
            else StepInfo(
                dt, None, solve.effective_rank, solve.projection_error, steady, solve.note
            )
        )

    def _velocity(self, ts, t, u, f):
        def evaluate():
            theta_dot, self.solve_info = self.flow.velocity(self._load(u))
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
    """F(t, theta, theta_dot) = M theta_dot + g = 0 and its Jacobian shift M + A^T A on a TS, for the TS's SNES and KSP.

    The Jacobian leaves out d(M theta_dot)/dtheta and what Gauss-Newton leaves out, so SNES iterates; -snes_mf_operator -ksp_type gmres
    differences F instead and keeps this one as the preconditioner. It is a Mat and a PC of type python, which applies the distributed
    least squares; the default KSP is that solve and nothing else.
    """

    def __init__(self, stepper, ts):
        self.stepper, self.flow, self.ts, self.finite = stepper, stepper.flow, ts, True
        ts.setIFunction(stepper._guard(self._function), stepper.work)
        n = (stepper.vec.getLocalSize(), stepper.vec.getSize())
        self.J = PETSc.Mat().createPython((n, n), self, comm=stepper.comm)
        self.J.setUp()
        ts.setIJacobian(stepper._guard(self._jacobian), self.J)
        kind, options = ts.getType(), dict(parse_options(stepper.settings.petsc_options))
        self.restarted = False
        if kind == "arkimex":
            ts.setARKIMEXFullyImplicit(True)
            ts.getSNES().setInitialGuess(stepper._guard(self._first_guess))
        if (
            options.get("ts_adapt_type", "none" if kind in ("theta", "beuler", "cn") else "basic")
            != "none"
        ):
            ts.setMaxSNESFailures(-1)  # the adaptor cuts dt instead
        snes = ts.getSNES()
        # F is close to the gradient of an energy, and its norm in theta says little: search along a step where F is normal to it.
        snes.getLineSearch().setType("cp")
        snes.setTolerances(max_it=100)
        snes.setDivergenceTolerance(-1)
        ksp = snes.getKSP()
        ksp.setType("preonly")
        ksp.pc.setType("python")
        ksp.pc.setPythonContext(self)

    def _function(self, ts, t, u, u_dot, f):
        stepper = self.stepper
        F_P = self.flow.implicit(stepper._load(u), stepper._load(u_dot))
        self.finite = bool(F_P.isfinite().all())  # SNES cuts its step, TS its dt
        stepper._store(f, F_P)

    def check(self):
        """NonFiniteError where the last F was not finite."""
        if not self.finite:
            raise NonFiniteError(
                "M theta_dot + g is not finite; the likely cause is a time step dt that is too large, or a problem "
                "function that divides by zero or takes a root or log of a negative number"
            )

    def failed(self):
        return not self.finite or self.ts.getSNES().getConvergedReason() < 0

    def failure(self):
        try:
            self.check()
        except NonFiniteError as error:
            return error
        reason = self.ts.getSNES().getConvergedReason()
        return NedError(
            f"the nonlinear solve of the step failed ({SNES_REASONS.get(reason, reason)}); take a smaller stepper.dt, an adaptor "
            "that cuts it (-ts_adapt_type basic), or the full Jacobian (-snes_mf_operator -ksp_type gmres)"
        )

    def restart(self):
        """Nothing of the steps before is used again: pseudo keeps F of this theta, arkimex a guess of its first slope."""
        self.restarted = True
        x = self.ts.getSNES().getSolution()
        if x:
            x.stateIncrease()

    def _first_guess(self, snes, x):
        if self.restarted and not x.equal(self.stepper.vec):  # a slope, not a stage
            x.set(0)
        self.restarted = False

    def _jacobian(self, ts, t, u, u_dot, shift, J, P):
        self.system, self.shift, self.factor = (
            self.flow.linearise(self.stepper._load(u)),
            shift,
            1.0,
        )
        J.assemble()  # with -snes_mf_operator J is PETSc's difference of F, and our P its preconditioner

    def scale(self, J, factor):
        """arkimex scales the Jacobian of its first slope."""
        self.factor *= factor

    def mult(self, J, x, y):
        stepper = self.stepper
        stepper._store(
            y, self.factor * self.flow.jacobian(self.system, self.shift, stepper._load(x))
        )

    def apply(self, pc, x, y):
        stepper = self.stepper
        solution, stepper.solve_info = self.flow.solve_jacobian(
            self.system, self.shift, stepper._load(x)
        )
        stepper._store(y, solution / self.factor)


SNES_REASONS = {
    value: name
    for name, value in vars(PETSc.SNES.ConvergedReason).items()
    if isinstance(value, int)
}


def _last_line(error):
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else repr(error)
