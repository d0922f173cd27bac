import nedhpc


class Rod(nedhpc.Problem):
    """y'' = 0 on (0, length), y(0) = 0, y(length) = 1."""

    def __init__(self, *, length: float = 100.0):
        self.domain = nedhpc.Box([0.0], [length])
        self.length = length
        self.terms = [
            nedhpc.Residual("ode", on="interior", jets=("u_xx",)),
            nedhpc.Residual("ends", on="boundary", jets=("u",)),
        ]

    def ode(self, x, j, c):
        return j.u_xx

    def ends(self, x, j, c):
        return j.u - (x[:, 0] > self.length / 2).to(x.dtype)
