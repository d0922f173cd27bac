import torch

import nedhpc


class Aux(nedhpc.Problem):
    """u' + 2 u + 5 int_0^t u = 1, u(0) = 0, with v = int_0^t u as a second output."""

    domain = nedhpc.SpaceTime([], [], 2.0)
    outputs = ("u", "v")
    terms = [
        nedhpc.Residual("ode", on="interior", jets=("u", "u_t", "v", "v_t")),
        nedhpc.Residual("start", on="initial", jets=("u", "v")),
    ]

    def ode(self, x, j, c):
        return torch.stack([j.u_t + 2 * j.u + 5 * j.v - 1, j.v_t - j.u], 1)

    def start(self, x, j, c):
        return torch.stack([j.u, j.v], 1)


class Direct(nedhpc.Problem):
    """The same with the integral as a cumulative sum over the grid's points."""

    domain = nedhpc.SpaceTime([], [], 2.0)
    terms = [
        nedhpc.Residual("ode", on="interior", jets=("u", "u_t")),
        nedhpc.Residual("start", on="initial", jets=("u",)),
    ]

    def ode(self, x, j, c):
        t = x[:, 0]
        order = torch.argsort(t)
        h = 2.0 / len(t)
        total = torch.empty_like(j.u)
        integral = h * (torch.cumsum(j.u[order], 0) - 0.5 * j.u[order])
        total = total.index_put((order,), integral)
        return j.u_t + 2 * j.u + 5 * total - 1

    def start(self, x, j, c):
        return j.u
