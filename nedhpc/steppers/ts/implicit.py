"""The implicit form F(t, theta, theta_dot) = M theta_dot + g = 0 of a flow, and its Jacobian.

PETSc's implicit TS types need it.
"""

from nedhpc.errors import FailedStepError, NedError, NonFiniteError
from nedhpc.parallel.petsc import PETSc

SNES_REASONS = {
    value: name
    for name, value in vars(PETSc.SNES.ConvergedReason).items()
    if isinstance(value, int)
}
"""Names of the reasons why SNES stopped."""


class ImplicitForm:
    """F and its Jacobian for a TS, whose solvers are SNES (nonlinear) and KSP (linear).

    The Jacobian is shift M + A^T A, the Gauss-Newton one. It leaves out d(M theta_dot)/dtheta and
    r d2r/dtheta2, so SNES converges linearly. With -snes_mf_operator -ksp_type gmres, PETSc
    differences F for the exact Jacobian, and ours is the preconditioner.

    The Jacobian is a Mat of type python (`mult`), because A^T A is never formed. Its inverse is a
    PC of type python (`apply`), which does the distributed least-squares solve. The default KSP
    applies this PC once, without iteration. All methods are callbacks of PETSc, collective on the
    stepper's comm.

    Args:
        stepper: the TimeStepper, which converts between PETSc vectors and tensors.
        ts: its TS, whose type is set.
    """

    def __init__(self, stepper, ts):
        self.stepper, self.flow, self.ts = stepper, stepper.flow, ts
        self.bad_theta, self.restarted = None, False
        ts.setIFunction(stepper.guard(self._function), stepper.work)
        sizes = (stepper.vec.getLocalSize(), stepper.vec.getSize())
        self.J = PETSc.Mat().createPython((sizes, sizes), self, comm=stepper.comm)
        self.J.setUp()
        ts.setIJacobian(stepper.guard(self._jacobian), self.J)
        kind = ts.getType()
        if kind == "arkimex":
            # There is no explicit part: all of F is treated implicitly.
            ts.setARKIMEXFullyImplicit(True)
            ts.getSNES().setInitialGuess(stepper.guard(self._first_guess))
        default = "none" if kind in ("theta", "beuler", "cn") else "basic"
        if dict(stepper.options).get("ts_adapt_type", default) != "none":
            # If a nonlinear solve fails, the adaptor shortens dt and repeats the step. By default
            # TS would give up instead.
            ts.setMaxSNESFailures(-1)
        self._set_solvers(ts.getSNES())

    def _set_solvers(self, snes):
        # Use the critical-point line search. F is close to the gradient of an energy, so this
        # search looks for a point at which F is orthogonal to the step. The norm of F in theta is
        # not a merit function, because it depends on the parametrisation.
        snes.getLineSearch().setType("cp")
        # For the same reason it does no harm if |F| grows for a while.
        snes.setDivergenceTolerance(-1)
        snes.setTolerances(max_it=100)
        ksp = snes.getKSP()
        ksp.setType("preonly")
        ksp.pc.setType("python")
        ksp.pc.setPythonContext(self)

    def _function(self, ts, t, u, u_dot, f):
        stepper = self.stepper
        theta_P = stepper.parameters.load(u)
        F_P = self.flow.residual(theta_P, stepper.parameters.load(u_dot), t)
        # Do not raise: SNES shortens its step, or TS its dt, if F is not finite.
        self.bad_theta = None if bool(F_P.isfinite().all()) else theta_P
        stepper.parameters.store(f, F_P)

    def _jacobian(self, ts, t, u, u_dot, shift, J, P):
        self.system = self.flow.linearise(self.stepper.parameters.load(u), t)
        self.shift, self.factor = shift, 1.0
        # With -snes_mf_operator, P is our matrix and J is PETSc's difference of F. Assembly makes J
        # start at this theta.
        J.assemble()

    def check(self) -> None:
        """Raise NonFiniteError if the last F was not finite. Collective on comm if so."""
        if self.bad_theta is not None:
            cause = "a time step dt that is too large"
            raise self.flow.non_finite(self.bad_theta, "M theta_dot + g", cause)

    def failure(self) -> NedError | None:
        """The error of the last step's nonlinear solve; None if it did not fail. Collective."""
        try:
            self.check()
        except NonFiniteError as error:
            return error
        reason = self.ts.getSNES().getConvergedReason()
        if reason >= 0:
            return None
        return FailedStepError(
            f"the nonlinear solve of the step failed ({SNES_REASONS.get(reason, reason)}); use a "
            "smaller stepper.dt, an adaptor that shortens it (-ts_adapt_type basic), or the full "
            "Jacobian (-snes_mf_operator -ksp_type gmres)"
        )

    def restart(self) -> None:
        """Make the next step independent of the steps before.

        This is needed if the sample has changed, or if the run must be repeatable.
        """
        self.restarted = True
        # pseudo reuses F of the last step unless the state number of the solution vector changes,
        # so increase it.
        x = self.ts.getSNES().getSolution()
        if x:
            x.stateIncrease()

    def _first_guess(self, snes, x):
        # Before its stages, arkimex solves for the slope theta_dot. That solve starts from what x
        # holds, a stage of the step before. A solve for a stage starts from theta instead; this
        # tells the two apart.
        if self.restarted and not x.equal(self.stepper.vec):
            x.set(0)
        self.restarted = False

    def scale(self, J, factor):
        """Multiply the Jacobian by a number. arkimex does so for the solve of its first slope."""
        self.factor *= factor

    def mult(self, J, x, y):
        """y = factor (shift M + A^T A) x."""
        product = self.system.apply(self.shift, self.stepper.parameters.load(x))
        self.stepper.parameters.store(y, self.factor * product)

    def apply(self, pc, x, y):
        """y = (shift M + A^T A)^-1 x / factor."""
        stepper = self.stepper
        solution, stepper.solve_info = self.system.solve(self.shift, stepper.parameters.load(x))
        stepper.parameters.store(y, solution / self.factor)
