from math import pi

import torch

import nedhpc


class Convection(nedhpc.Problem):
    """u_t + beta u_x = 0 on (0, 2 pi) x (0, 1), u = sin x at t = 0, periodic (in the network)."""

    domain = nedhpc.SpaceTime([0.0], [2 * pi], 1.0)

    def __init__(self, *, beta: float = 30.0, weight: float = 1.0):
        self.beta = beta
        self.terms = [
            nedhpc.Residual("pde", on="interior", jets=("u_t", "u_x")),
            nedhpc.Residual("start", on="initial", jets=("u",), weight=weight),
        ]

    def pde(self, x, j, c):
        return j.u_t + self.beta * j.u_x

    def start(self, x, j, c):
        return j.u - torch.sin(x[:, 0])


class PeriodicConvection(Convection):
    """The same on a domain that is periodic in x."""

    domain = nedhpc.SpaceTime([0.0], [2 * pi], 1.0, periodic=[0])


class Periodic(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(3, 40),
            torch.nn.Tanh(),
            torch.nn.Linear(40, 40),
            torch.nn.Tanh(),
            torch.nn.Linear(40, 1),
        )

    def forward(self, x):
        return self.body(torch.stack([torch.sin(x[..., 0]), torch.cos(x[..., 0]), x[..., 1]], -1))
