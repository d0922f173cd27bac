"""Regression: fit u(x) to a named function or to a person's own file of inputs and targets."""

from math import pi
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy.stats import qmc

from nedhpc.errors import UsageError
from nedhpc.problems.base import Box, DataSet, Problem, Residual

BOREHOLE = (
    ("radius", 0.05, 0.15),
    ("radius of influence", 100, 50_000),
    ("upper transmissivity", 63_070, 115_600),
    ("upper head", 990, 1110),
    ("lower transmissivity", 63.1, 116),
    ("lower head", 700, 820),
    ("length", 1120, 1680),
    ("conductivity", 9855, 12_045),
)
"""The eight inputs of the borehole function, with their ranges."""


def borehole(x):
    """Flow through a borehole in 100 m^3 a year, inputs scaled to [-1, 1] (Harper and Gupta 1983; Surjanovic and Bingham's
    virtual library of simulation experiments)."""
    r_w, r, T_u, H_u, T_l, H_l, L, K_w = (
        low + (high - low) * (x[:, i] + 1) / 2 for i, (_, low, high) in enumerate(BOREHOLE)
    )
    log = torch.log(r / r_w)
    return (
        0.02 * pi * T_u * (H_u - H_l) / (log * (1 + 2 * L * T_u / (log * r_w**2 * K_w) + T_u / T_l))
    )


FUNCTIONS = {
    "sinc": lambda x: torch.sinc(10 * x[:, 0]),
    "sine": lambda x: torch.sin(20 * pi * x[:, 0]),
    "step": lambda x: torch.sign(x[:, 0]),
    "gaussian": lambda x: torch.exp(-(x * x).sum(1)),
    "borehole": borehole,
}
"""Targets on [-1, 1]^dim; `sinc` is sin(10 pi x) / (10 pi x); `borehole` has dim = 8."""


class Regression(Problem):
    """min sum |u(x_q) - y_q|^2 / (2 N) on the point set "data".

    Either `function` (a name of FUNCTIONS) at `num_points` Sobol points of [-1, 1]^dim, or `file`: a CSV (the last `targets`
    columns are targets), or an NPZ or HDF5 file with arrays x (N, d) and y (N, m). `held_out` is the share of a file's rows
    kept for the error, chosen by `split_seed`.
    """

    def __init__(
        self,
        *,
        function: str = "",
        file: str = "",
        dim: int = 1,
        num_points: int = 1000,
        targets: int = 1,
        held_out: float = 0.2,
        split_seed: int = 0,
    ):
        if bool(function) == bool(file):
            raise UsageError('problem: regression needs either function = "..." or file = "..."')
        if function:
            if function not in FUNCTIONS:
                raise UsageError(
                    f"problem.function = {function!r} is unknown; allowed: {', '.join(FUNCTIONS)}"
                )
            if function == "borehole" and dim != len(BOREHOLE):
                raise UsageError(
                    f"problem.dim = {dim}: function = 'borehole' has {len(BOREHOLE)} inputs"
                )
            self.function = FUNCTIONS[function]
            self.domain = Box([-1.0] * dim, [1.0] * dim)
            engine = qmc.Sobol(dim, scramble=True, rng=split_seed)
            x = self.domain.place(
                "interior", engine.random(2 ** max(0, num_points - 1).bit_length())[:num_points]
            )
            self.data = DataSet(
                x, self.function(torch.as_tensor(x)).numpy().reshape(num_points, -1)
            )
        else:
            if not 0 <= held_out < 1:
                raise UsageError(f"problem.held_out = {held_out} is not in [0, 1)")
            self.function = None
            self.data = split(*read(Path(file), targets), held_out, split_seed, file)
            low, high = self.data.x_ND.min(0), self.data.x_ND.max(0)
            if not (low < high).all():
                raise UsageError(
                    f"{file}: input column {int(np.argmin(low < high))} is constant; leave it out"
                )
            self.domain = Box(low, high)
        count = self.data.y_NM.shape[1]
        self.outputs = ("u",) if count == 1 else tuple(f"u{i + 1}" for i in range(count))
        self.terms = [Residual("fit", on="data", jets=self.outputs)]

    @property
    def has_exact(self):
        return self.function is not None

    def exact(self, x):
        return self.function(x)

    def fit(self, x, j, c, y):
        return torch.stack([getattr(j, name) for name in self.outputs], 1) - y


def read(path, targets):
    """(x_ND, y_NM) of a CSV, NPZ or HDF5 file, float64. NPZ files are read without pickle."""
    if not path.is_file():
        raise UsageError(f"problem.file = {str(path)!r}: there is no such file")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                x, y = file["x"], file["y"]
        elif path.suffix in (".h5", ".hdf5"):
            with h5py.File(path, "r") as file:
                x, y = file["x"][:], file["y"][:]
        elif path.suffix == ".csv":
            table = np.atleast_2d(np.genfromtxt(path, delimiter=","))
            if len(table) > 1 and np.isnan(table[0]).all():
                table = table[1:]  # a header line
            x, y = table[:, :-targets], table[:, -targets:]
        else:
            raise UsageError(
                f"problem.file = {str(path)!r}: ends in neither .csv, .npz, .h5 nor .hdf5"
            )
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(
            f"problem.file = {str(path)!r} cannot be read: {error}; it needs arrays x (N, d) and y (N, m), or "
            "comma-separated numbers with the targets in the last columns"
        ) from None
    x, y = np.asarray(x, float), np.asarray(y, float)
    x, y = (x[:, None] if x.ndim == 1 else x), (y[:, None] if y.ndim == 1 else y)
    if len(x) != len(y) or x.ndim != 2 or y.ndim != 2 or not x.shape[1] or not y.shape[1]:
        raise UsageError(
            f"problem.file = {str(path)!r}: x has shape {x.shape} and y {y.shape}; needed are (N, d) and (N, m)"
        )
    bad = ~(np.isfinite(x).all(1) & np.isfinite(y).all(1))
    if bad.any():
        raise UsageError(
            f"problem.file = {str(path)!r}: row {int(np.argmax(bad)) + 1} holds a value that is not a finite number"
        )
    return x, y


def split(x, y, held_out, seed, file):
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(x))
    num_held = round(held_out * len(x))
    if len(x) - num_held < 1:
        raise UsageError(f"{file}: no rows are left to train on with held_out = {held_out}")
    held, kept = order[:num_held], np.sort(order[num_held:])
    return DataSet(x[kept], y[kept], x[held], y[held])
