"""-k u_xx = sin(pi x) in a rod with u = 0 at its ends; the conductivity k is unknown."""

from math import pi

import torch

import nedhpc


class Inverse(nedhpc.Problem):
    """The arguments of the constructor are the keys of [problem] in the config."""

    domain = nedhpc.Interval(0.0, 1.0)
    coefficients = {"k": 1.0}  # what is sought, with the value that the search starts from

    def __init__(self, file: str):
        x, u = nedhpc.read_table(file, targets=["u"])
        self.data = nedhpc.DataSet(x, u)

    # A method names what it needs: x (points), j (u and its derivatives), c (coefficients),
    # y (measured values, (N, M)). What it returns is zero for the solution.
    @nedhpc.residual("interior")
    def equation(self, x, j, c):
        return -c.k * j.u_xx - torch.sin(pi * x[:, 0])

    @nedhpc.residual("boundary")
    def ends(self, j):
        return j.u

    # A small weight, because the data are noisy and the equation is exact.
    @nedhpc.residual("data", weight=0.1)
    def sensors(self, j, y):
        return j.u - y[:, 0]
