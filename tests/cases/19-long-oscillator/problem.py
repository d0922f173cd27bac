import numpy as np
import torch

import nedhpc


class Cosine(nedhpc.Problem):
    """y''/2 + y = 0 on (-half, half), y(0) = 1, y'(0) = 0."""

    outputs = ("y",)

    def __init__(self, *, half: float = 300.0, weight: float = 1.0):
        self.domain = nedhpc.Box([-half], [half])
        self.data = nedhpc.DataSet(np.zeros((1, 1)), np.ones((1, 1)))
        self.terms = [
            nedhpc.Residual("ode", on="interior", jets=("y", "y_xx")),
            nedhpc.Residual("middle", on="data", jets=("y", "y_x"), weight=weight),
        ]

    def ode(self, x, j, c):
        return 0.5 * j.y_xx + j.y

    def middle(self, x, j, c, y):
        return torch.stack([j.y - y[:, 0], j.y_x], 1)
