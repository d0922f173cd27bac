import torch

import nedhpc

RHO, CP, K, LX, LY, T0, T1, END = 8000.0, 500.0, 200.0, 0.04, 0.02, 300.0, 1000.0, 2.0


class Plate(nedhpc.Problem):
    """rho cp T_t = k lap T in a plate of 4 x 2 cm for 2 s, in SI units.

    The walls are at 300 K, and T = 300 + 700 sin(pi x / LX) sin(pi y / LY) at t = 0.
    """

    domain = nedhpc.SpaceTime([0.0, 0.0], [LX, LY], END)
    outputs = ("T",)
    terms = [
        nedhpc.Residual("pde", on="interior", jets=("T_t", "lap_T")),
        nedhpc.Residual("wall", on="boundary", jets=("T",)),
        nedhpc.Residual("start", on="initial", jets=("T",)),
    ]

    def pde(self, x, j, c):
        return RHO * CP * j.T_t - K * j.lap_T

    def wall(self, x, j, c):
        return j.T - T0

    def start(self, x, j, c):
        return (
            j.T
            - T0
            - (T1 - T0) * torch.sin(torch.pi * x[:, 0] / LX) * torch.sin(torch.pi * x[:, 1] / LY)
        )
