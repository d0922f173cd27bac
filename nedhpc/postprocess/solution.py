"""The trained network of a run as a callable u(x). Local, without MPI and PETSc."""

import copy
import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike

from nedhpc.ansatz import jets
from nedhpc.ansatz.pieces import Pieces
from nedhpc.ansatz.scaling import Scaling
from nedhpc.errors import NotAStateError, UsageError, shortened
from nedhpc.files import checkpoint, march, series
from nedhpc.network import make_network, with_network
from nedhpc.parallel.precision import float64_default
from nedhpc.plan import make_problem
from nedhpc.postprocess.solution_module import SolutionModule
from nedhpc.problems import Problem
from nedhpc.problems.reference import exact_values, reference_values
from nedhpc.user_code import check_familiar

if TYPE_CHECKING:
    import xarray

log = logging.getLogger("nedhpc")
T = TypeVar("T")

CHUNK = 16384
"""Number of points that are evaluated at once."""


def _intact(read: Callable[[Path], T], path: Path) -> T | None:
    """What a file beside the checkpoint holds; None if it is not there or, with a warning, torn."""
    try:
        return read(path) if path.exists() else None
    except NotAStateError as error:
        log.warning("%s", error)
        return None


class Solution:
    """u(x) and its derivatives for a run folder or a checkpoint. Local.

    Points x are a torch tensor or anything that numpy can convert to an array. The shape is (N, D),
    or (D,) for one point; in one dimension also (N,) or a number. All results are float64 numpy
    arrays.

    Args:
        path: a run folder, whose newest checkpoint is read, or a checkpoint.
        problem: the problem or its class, which replaces the run's problem file. It is needed if
            that file was edited or never run by this user, or if the problem came from a notebook.

    Raises:
        NotAStateError: the path holds no usable checkpoint.
        UsageError: the run's problem file is gone, was edited or was never run by this user, or the
            parameters do not belong to the problem.
    """

    coefficients: dict[str, float]
    """The problem's trainable coefficients."""
    coefficient_errors: dict[str, float]
    """Their standard errors from the noise of the data; NaN if they are not known."""
    error_estimates: dict[str, float]
    """Estimated error of each output relative to its spread; NaN if it is not known."""
    series: dict[str, np.ndarray]
    """The time series by dataset name; empty for a checkpoint outside a run folder."""
    outputs: tuple[str, ...]
    """Names of the M outputs."""

    def __init__(self, path: str | Path, problem: Problem | type[Problem] | None = None):
        path = Path(path)
        self.run_dir = path if path.is_dir() else path.parent
        if path.is_dir():
            _, self.state, self.record, _ = checkpoint.newest(path)
        else:
            self.state, self.record = checkpoint.read(path)
        config = self.record.parsed(path)
        named = () if problem is None else ("problem.name",)
        check_familiar(config, self.record.user_files, named)
        with float64_default():
            self.problem = make_problem(config, problem)
            self.ansatz = make_network(with_network(config, self.problem), self.problem)
        self.config = config
        self.ansatz.scaling = self._scaling(self.state.scaling)
        solved = [(p.end, p.theta_P, self._scaling(p.scaling)) for p in self.state.pieces]
        self._pieces = Pieces(self.ansatz, solved)
        if not checkpoint.belongs(self.state, self.record, checkpoint.layout(self.ansatz)):
            raise UsageError(
                f"{path}: the parameters ({self.record.parameters}) do not belong to this "
                f"problem, whose network has {shortened(', '.join(checkpoint.layout(self.ansatz)))}"
            )
        self.coefficients = {name: float(c) for name, c in self.state.coefficients.items()}
        errors = {n: self.record.stats.get(f"coefficient_error_{n}") for n in self.coefficients}
        self.coefficient_errors = {n: np.nan if e is None else float(e) for n, e in errors.items()}
        self.outputs = tuple(self.problem.outputs)
        known = {name: self.record.stats.get(f"error_estimate_{name}") for name in self.outputs}
        self.error_estimates = {n: np.nan if e is None else float(e) for n, e in known.items()}
        self.series = _intact(series.read, self.run_dir / "series.h5") or {}
        self._march = _intact(march.read, self.run_dir / march.NAME) or march.NOTHING

    def __call__(self, x: ArrayLike) -> np.ndarray:
        """The values u(x), (N, M)."""
        found = self.jets(self.outputs, x)
        return np.stack([found[name] for name in self.outputs], 1)

    def jet(self, name: str, x: ArrayLike) -> np.ndarray:
        """A derivative by its name: (N,) for e.g. "u_xx" or "lap_u", (N, D) for "grad_u".

        Raises:
            UsageError: no output or derivative has that name.
        """
        return self.jets((name,), x)[name]

    def gradient(self, x: ArrayLike) -> np.ndarray:
        """First derivatives du_m/dx_d, (N, M, D), including that in time."""
        names = [[f"{u}_{x}" for x in self.problem.coordinates] for u in self.outputs]
        found = self.jets([name for row in names for name in row], x)
        return np.stack([np.stack([found[name] for name in row], 1) for row in names], 1)

    def exact(self, x: ArrayLike) -> np.ndarray | None:
        """The problem's reference at x, (N, M), at the state's time; None if it has none.

        Values are NaN outside a table, and for outputs that it does not have.
        """
        x_ND = self.points(x)
        if not self.problem.has_exact:
            return None if self.problem.reference is None else reference_values(self.problem, x_ND)
        with float64_default():
            return exact_values(self.problem, x_ND, self.state.time).numpy()

    def module(self) -> SolutionModule:
        """The network as a torch module: points (N, D) to (N, M), differentiable, on the CPU.

            program = torch.export.export(u.module(), (x,))

        `parameters()` are those of the network, `to("cuda")` moves it, and torch.export writes it
        for programs without nedhpc. Its parameters are copies.
        """
        every = [*self._pieces.solved, (self.ansatz, self.state.theta_P)]
        return SolutionModule(self.outputs, self.problem.coordinates, every, self._pieces.ends)

    def to_xarray(self) -> "xarray.Dataset":
        """The time series as an xarray.Dataset over `step`, with units and long names.

        Raises:
            UsageError: xarray is not installed.
        """
        try:
            import xarray
        except ImportError:
            raise UsageError("this needs xarray: pip install 'nedhpc[data]'") from None
        found = {n: ("step", values, series.described(n)) for n, values in self.series.items()}
        return xarray.Dataset(found)

    @property
    def times(self) -> np.ndarray:
        """Times (K,) of the states of a march in time that march.h5 holds; empty without."""
        return self._march[0]

    @property
    def every_time(self) -> np.ndarray:
        """Times of all states of a march in time, the last one included; empty without."""
        return np.unique([*self.times, self.state.time]) if self.problem.is_march else np.empty(0)

    def at(self, time: float) -> "Solution":
        """The solution of a march at one of `times`, or at the time of its last state.

        Raises:
            UsageError: there is no state at that time.
        """
        times, theta_KP = self._march
        found = copy.copy(self)
        near = np.flatnonzero(np.isclose(times, time, rtol=1e-9, atol=0))
        if len(near):
            k = near[0]
            found.state = dataclasses.replace(self.state, theta_P=theta_KP[k], time=float(times[k]))
        elif not np.isclose(time, self.state.time, rtol=1e-9, atol=0):
            held = ", ".join(f"{t:.6g}" for t in (*times, self.state.time))
            raise UsageError(f"t = {time:g}: there are states at the times {held}")
        return found

    def points(self, x: ArrayLike) -> torch.Tensor:
        """Points as a float64 tensor (N, D).

        Raises:
            UsageError: x has another width, or is not an array of real numbers.
        """
        dim = self.problem.domain.dim
        coordinates = ", ".join(self.problem.coordinates)
        needed = f"needed are points (N, {dim}) with the coordinates {coordinates}"
        try:
            x = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
            if np.iscomplexobj(x):
                raise TypeError("it is complex")
            x = np.array(x, float)
        except (TypeError, ValueError) as error:
            raise UsageError(f"x is not an array of numbers ({error}); {needed}") from None
        if dim == 1 and x.ndim < 2:
            x = x.reshape(-1, 1)
        elif x.ndim == 1:
            x = x[None]
        if x.ndim != 2 or x.shape[1] != dim:
            raise UsageError(f"x has shape {x.shape}; {needed}")
        return torch.as_tensor(x)

    def _scaling(self, arrays) -> Scaling:
        return Scaling.of(arrays, self.problem.domain.dim, len(self.problem.outputs))

    def jets(self, names: Sequence[str], x: ArrayLike) -> dict[str, np.ndarray]:
        """Outputs and derivatives by name, as `jet` gives them, from one evaluation.

        Raises:
            UsageError: no output or derivative has that name.
        """
        layout = jets.parse(names, self.outputs, self.problem.coordinates)
        theta_P = torch.as_tensor(self.state.theta_P)
        with float64_default(), torch.no_grad():
            parts = [
                layout.view(self._pieces.jets(theta_P, x_ND, layout))
                for x_ND in self.points(x).split(CHUNK)
            ]
        return {name: torch.cat([getattr(j, name) for j in parts]).numpy() for name in layout.names}
