"""The error that the held-out residual implies, through the linearised operator. Collective.

Let L be the derivative of the balanced residual r at the solution u. The error e satisfies L e = -r
to first order. It is looked for among random features that the network has never seen,
w = sum_i c_i phi_i, by least squares on training and held-out points together. With w = Phi c and
Phi = U S V^T, the unknowns are y = S V^T c, so that |y| is the root mean square of w in units of
the outputs' sizes:

    y = argmin |L Phi V S^-1 y + r|.

The features explain only a part of r, the share |P r| / |r|, where P projects on the columns of
L Phi. More features are tried if the share is small and the error may matter: a front or a wave
that 128 features cannot follow hides errors that are 60 times the estimate. What the last of them
do not explain is taken to give an error as large for the same size of residual: y is divided by the
share. With noisy data, more features would explain the noise, so there are no more.

In a later time window, r is the residual of the initial condition that the window before, with its
own estimated error added, would give. So an error that grows from window to window is found.

Hierarchical error estimates do the same with a finer mesh (Bank and Smith, SIAM J. Numer. Anal. 30,
1993).

The sensitivity is the smallest singular value of L Phi V S^-1 for smooth features. If it vanishes,
u can be changed without changing any residual: the conditions do not determine the solution. For an
ordinary differential equation, few features show this. Where a wall lacks a condition, u can be
changed by any smooth function of the wall, to which the features only come near: the value falls to
zero as features are added, the more slowly the more coordinates there are. If the conditions
determine the solution, it does not fall. Hence

    sensitivity = s_all (s_all / s_some)^(D + 1),

if that is less than s_few, the value of a few features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from nedhpc.ansatz.jets import JetLayout, parse
from nedhpc.ansatz.mlp import MLP
from nedhpc.ansatz.scaling import Scaling
from nedhpc.flows.energy import Energy
from nedhpc.flows.integrals import integrated
from nedhpc.flows.system import summed
from nedhpc.parallel.comm import on_rank_0, total
from nedhpc.problems.terms import gradients
from nedhpc.sampling.points import Points
from nedhpc.solvers.tsqr import merge

COUNTS = (128, 512, 1024)
"""Numbers of features that are tried, the last only for one output: larger matrices take long."""
STEEP, SMOOTH = 60.0, 8.0
"""Largest standard deviation of the slopes of a feature, in scaled coordinates; the least is 1.

SMOOTH is that for the sensitivity. Steep features would hide smooth functions by rounding.
"""
ENOUGH = 0.9
"""Share of the residual from which no more features are tried."""
MATTERS = 1e-4
"""Error, in units of the outputs' sizes, below which no more features are tried."""
LEAST_ROWS = 2
"""Rows for each column, so that more features do not only follow the points."""
FEW, SOME = 24, 48
"""Numbers of the features, the smoothest first, with which the sensitivity is compared."""
MAX_POINTS = 4000
"""Points of each part that a rank uses, so that the estimate stays cheap beside a run."""
CUTOFF = 1e-7
"""Combinations of features with a smaller share of the largest singular value are left out."""
LEAST = 1e-10
"""Smaller singular values of the operator, relative to the largest, are raised to it."""
MAX_DIM = 3
"""In more coordinates so few features span no useful space."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated error of u; the same on every rank."""

    error_M: np.ndarray
    """Root mean square of the estimated error of each output, in units of its size."""
    theta_f: np.ndarray
    """Parameters (P_f,) of the features whose sum is the error."""
    share: float
    """Share of the residual that the features explain."""
    sensitivity: float
    """Root mean square of the balanced residual for an error of u of size one, at the least.

    It is extrapolated as the module's docstring says.
    """


def features(
    energy: Energy, number: int, steepest: float, low: np.ndarray, high: np.ndarray
) -> tuple[MLP, np.ndarray]:
    """A network of random features in the variables of the ansatz, and its parameters. Local.

    Args:
        energy: the energy; its ansatz gives scaling, embedding and hard conditions.
        number: number of the features.
        steepest: as STEEP.
        low: lower bounds of the domain, (D,).
        high: upper bounds, (D,).
    """
    net = _network(energy.ansatz, energy.ansatz.scaling, number)
    slopes = np.geomspace(1, steepest, number)[:, None]
    return net, net.features(12345, slopes, low, high)


def _network(ansatz, scaling: Scaling, number: int) -> MLP:
    """A network of the features, in the variables of the ansatz. Local."""
    net = MLP(
        len(scaling.centre_D),
        [number],
        ansatz.num_outputs,
        embedding=ansatz.embedding,
        constraint=ansatz.constraint,
    )
    net.scaling = scaling
    return net


def _number(ansatz, scaling: Scaling, theta_f: np.ndarray) -> int:
    """Number of the features to which parameters belong. Local."""
    one, biases = _network(ansatz, scaling, 1).num_parameters, ansatz.num_outputs
    return (len(theta_f) - biases) // (one - biases)


def error_jets(
    ansatz, scaling: Scaling, theta_f: np.ndarray
) -> Callable[[torch.Tensor, JetLayout], torch.Tensor]:
    """Jets (N, C, M) of an estimated error, as a function of points and a layout. Local.

    Args:
        ansatz: the ansatz; its embedding and its hard conditions are used.
        scaling: its scaling when the error was estimated.
        theta_f: as in Estimate.
    """
    net = _network(ansatz, scaling, _number(ansatz, scaling, theta_f))
    error, zero = torch.as_tensor(theta_f), torch.as_tensor(theta_f).clone()
    zero[net.linear_columns] = 0  # leaves the offset, and what the hard conditions ask for

    def jets(x_ND: torch.Tensor, layout: JetLayout) -> torch.Tensor:
        with torch.no_grad():
            return net.jets(error.to(x_ND), x_ND, layout) - net.jets(zero.to(x_ND), x_ND, layout)

    return jets


def estimate(
    comm,
    energy: Energy,
    theta_P: torch.Tensor,
    samples: list[dict[str, Points]],
    low: np.ndarray,
    high: np.ndarray,
    is_noisy: bool = False,
) -> Estimate | None:
    """The estimate, as the module's docstring says; None if there are too few points.

    Args:
        comm: communicator.
        energy: a balanced energy of residuals.
        theta_P: parameters, (P,).
        samples: points with factors: the training and the held-out ones.
        low, high: bounds of the domain, (D,).
        is_noisy: there are data, so that the residual may be noise.
    """
    nodes = {integral.on for integral in energy.integrals}
    samples = [
        {on: p if on in nodes else _thinned(p) for on, p in points.items()} for points in samples
    ]
    smooth = features(energy, COUNTS[0], SMOOTH, low, high)
    num_rows, R, Phi_M = _triangles(comm, energy, theta_P, samples, *smooth)
    sensitivity = on_rank_0(comm, _sensitivity, R, Phi_M, len(low) + 1)
    if sensitivity is None:
        return None
    most = min(COUNTS[-1], num_rows / LEAST_ROWS) / energy.ansatz.num_outputs
    found = None
    for number in COUNTS[:1] if is_noisy else COUNTS:
        if found is not None and (number > most or not _matters(found)):
            break
        steep = features(energy, number, STEEP, low, high)
        _, R, Phi_M = _triangles(comm, energy, theta_P, samples, *steep)
        found = on_rank_0(comm, _error, R, Phi_M, *steep, sensitivity)
        if found is None:
            break
    return found


def _matters(found: Estimate) -> bool:
    """True if features leave much of the residual, and so perhaps much of the error, unseen."""
    return found.share < ENOUGH and float(found.error_M.max()) > MATTERS


def _triangles(comm, energy: Energy, theta_P, samples, net: MLP, theta: np.ndarray):
    """(number of rows of all ranks, R of [L Phi, r], R of Phi for each output). Collective."""
    share = len(samples) ** -0.5
    theta_f = torch.as_tensor(theta).to(theta_P)
    rows = torch.cat(
        [r for points in samples for r in _residuals(comm, energy, theta_P, net, theta_f, points)]
    )
    values_M = [
        torch.cat([_values(comm, net, theta_f, points, m) for points in samples])
        for m in range(net.num_outputs)
    ]
    num_rows = total(comm, [len(rows)])[0]
    return (
        num_rows,
        _triangle(comm, share * rows),
        [_triangle(comm, share * values) for values in values_M],
    )


def _thinned(points: Points) -> Points:
    """At most MAX_POINTS of this rank's points, evenly chosen, with larger weights. Local."""
    every = -(-len(points.x_ND) // MAX_POINTS)
    if every <= 1:
        return points
    y, n = (None if v is None else v[::every] for v in (points.y_NM, points.n_ND))
    factors = {name: b[::every] for name, b in points.factors.items()}
    weight_N = points.weight_N[::every]
    weight_N = weight_N * (points.weight_N.sum() / weight_N.sum())
    return Points(points.x_ND[::every], weight_N, y, n, factors)


def _residuals(comm, energy: Energy, theta_P, net: MLP, theta_f, points):
    """Rows [L phi, r], (N, P_f + 1), of each chunk of a sample's points. Collective on comm."""
    columns = net.linear_columns
    width = columns.stop - columns.start
    slope_IP = _integral_slopes(comm, energy, theta_P, net, theta_f, points)
    energy = integrated(comm, energy, theta_P, points, slopes=False)
    for piece in energy.pieces(points):
        _, j, c, value = energy.linearised_value(piece, theta_P)
        linear = piece.term.kind.linearise(value, j, c, piece.y_NM)
        lin = net.linearise(theta_f, piece.x_ND, piece.term.layout)
        root_N = piece.w_N.sqrt()
        for (seed, c_seed), r_N in zip(linear.seeds, linear.r_NK.unbind(1), strict=True):
            out = seed.new_empty(len(seed), width + 1)
            lin.rows(root_N.view(-1, 1, 1) * seed, out[:, :width], columns)
            if slope_IP is not None:
                out[:, :width] += root_N[:, None] * c_seed[:, -len(slope_IP) :] @ slope_IP
            out[:, width] = root_N * r_N
            yield out


def _integral_slopes(comm, energy: Energy, theta_P, net: MLP, theta_f, points):
    """Derivatives of the integrals along the features, (I, P_f); None without integrals."""
    if not energy.integrals:
        return None
    columns = net.linear_columns
    sums_IP = theta_P.new_zeros(energy.num_integrals, columns.stop - columns.start)
    for components, piece in energy.nodes(points):
        _, j, c, value = energy.linearised_value(piece, theta_P)
        lin = net.linearise(theta_f, piece.x_ND, piece.term.layout)
        for row, (seed, _) in zip(sums_IP[components], gradients(value, j, c), strict=True):
            rows = lin.rows(seed, seed.new_empty(len(seed), len(row)), columns)
            row += piece.w_N @ rows
    return summed(comm, sums_IP.reshape(-1)).reshape(sums_IP.shape)


def _values(comm, net: MLP, theta_f, points: dict[str, Points], m: int) -> torch.Tensor:
    """Values of output m of the features in the interior, or at the data, in units of its size.

    Shape (N, P_f / M); the squares of a column add up to a mean square over all ranks.
    """
    on = "interior" if "interior" in points else next(iter(points))
    x_ND, weight_N = points[on].x_ND, points[on].weight_N
    measure = float(total(comm, [float(weight_N.sum())])[0])
    names = tuple(f"u{o}" for o in range(net.num_outputs))
    lin = net.linearise(
        theta_f, x_ND, parse((names[m],), names, [f"x{i}" for i in range(x_ND.shape[1])])
    )
    seed = x_ND.new_zeros(len(x_ND), 1, net.num_outputs)
    seed[:, 0, m] = (weight_N / measure).sqrt() / float(net.scaling.size_M[m])
    columns = net.linear_columns
    rows = lin.rows(seed, x_ND.new_empty(len(x_ND), columns.stop - columns.start), columns)
    return rows[:, _columns_of(m, net.num_outputs, rows.shape[1] // net.num_outputs - 1)]


def _columns_of(m: int, num_outputs: int, number: int) -> list[int]:
    """Columns of the last layer that belong to output m: its weights, then its bias."""
    start = m * number
    return [*range(start, start + number), num_outputs * number + m]


def _triangle(comm, rows: torch.Tensor) -> torch.Tensor | None:
    """R of a QR factorisation of the rows of all ranks, on rank 0; None elsewhere."""
    return merge(comm, torch.linalg.qr(rows.double(), mode="r").R)


def _error(R, Phi_M, net: MLP, theta_f: np.ndarray, sensitivity: float) -> Estimate | None:
    """The estimate from the triangles of steep features. Local."""
    found = _operator(R, Phi_M)
    if found is None:
        return None
    B, blocks = found
    U, s, Vh = torch.linalg.svd(B, full_matrices=False)
    r = R[:, -1]
    explained = U.T @ r
    y = -Vh.T @ (explained / s.clamp(min=LEAST * float(s[0])))
    tiny = np.finfo(float).tiny
    share = float(explained.norm()) / max(float(r.norm()), tiny)
    y /= max(share, tiny)
    parts = y.split([basis.shape[1] for _, basis in blocks])
    last = np.zeros(net.linear_columns.stop - net.linear_columns.start)
    for part, (columns, basis) in zip(parts, blocks, strict=True):
        last[columns] = (basis @ part).cpu().numpy()
    theta_f = theta_f.copy()
    theta_f[net.linear_columns] = last
    error_M = np.array([float(part.norm()) for part in parts])
    return Estimate(error_M, theta_f, share, sensitivity)


def _sensitivity(R, Phi_M, exponent: int) -> float | None:
    """The sensitivity, as the module's docstring says; None if there are too few points."""
    found = [_operator(R, Phi_M, number) for number in (FEW, SOME, None)]
    if None in found:
        return None
    few, some, every = (float(torch.linalg.svdvals(operator[0])[-1]) for operator in found)
    # Rounding may make the value of all features larger than that of some.
    return min(few, every * min(1.0, every / some) ** exponent if some else 0.0)


def _operator(R, Phi_M, number: int | None = None):
    """L Phi V S^-1 for the first `number` features, and (columns, V S^-1) of each output. Local.

    None if there are too few points, or if a value is not finite.
    """
    if not all(values.isfinite().all() for values in (R, *Phi_M)):
        return None
    blocks, every = [], Phi_M[0].shape[1] - 1
    for m, Phi in enumerate(Phi_M):
        local = [*range(every if number is None else number), every]
        _, s, Vh = torch.linalg.svd(Phi[:, local], full_matrices=False)
        kept = s > CUTOFF * s[0]
        columns = [_columns_of(m, len(Phi_M), every)[i] for i in local]
        blocks.append((columns, Vh[kept].T / s[kept]))
    B = torch.cat([R[:, columns] @ basis for columns, basis in blocks], 1)
    return None if len(B) < B.shape[1] else (B, blocks)
