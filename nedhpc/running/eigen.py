"""Eigenvalue problems: the start from the eigenpairs nearest to a number, and a check of the end.

The equations r = L u - lambda M u vanish for every eigenpair, and a descent ends in any of them. In
the last layer u = Phi w is linear, so A(s) = (L - s M) Phi, the rows at lambda = s, and B = M Phi =
A(s) - A(s + 1) are a discrete eigenproblem, A w = (lambda - s) B w by least squares. With the
singular value decomposition A = U S V^T and w = V S^-1 y it is

    T y = y / (lambda - s),    T = U^T B V S^-1,

the solution operator of the shifted equation. It is bounded, so that the eigenvalues nearest to s
are the largest of T, and what the features cannot represent gives no larger ones. One QR of [A, B]
over the ranks yields all. The pairs are judged by their least-squares misfit, as in the method of
particular solutions (Betcke and Trefethen, SIAM Review 47, 2005).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nedhpc.errors import UsageError
from nedhpc.parallel.comm import on_rank_0, total
from nedhpc.plan import Plan
from nedhpc.problems.base import Problem
from nedhpc.rows.held import dense
from nedhpc.running.case import Case
from nedhpc.solvers.tsqr import Tsqr, local_triangle, merge

CUTOFF = 1e-13
"""Singular values of A below this share of the largest are cut off."""
NULL = 1e-8
"""A vector that is cut off is an eigenvector for s if |B w| is above this share of |B|."""
MULTIPLE = 1e-4
"""Eigenvalues that differ by less than this share of |lambda - s| are a multiple one.

A pair whose imaginary part is larger is complex.
"""
NEAR = 1e-2
"""Eigenvalues are the same if they differ by less than this share of |lambda - s|."""
MAX_ITERATIONS, MAX_HALVINGS, RTOL = 20, 5, 1e-15
"""Of the Gauss-Newton steps: their number, that of halvings of one, and the solver's cutoff."""
USUAL_SIZE = 100.0
"""Norm of the last layer's weights from which a fit counts as ill-conditioned."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The eigenpairs nearest to s in the space of the last layer, the same on every rank."""

    values_E: np.ndarray
    """Eigenvalues, the nearest first; a complex pair is given by its real part, twice."""
    weights_EW: np.ndarray
    """Last-layer weights (E, W) of one eigenfunction each; those of a multiple eigenvalue are
    orthonormal in the rows B."""
    score: float
    """Largest |A w - (lambda - s) B w| / |A w|."""
    is_complex: bool
    """True if one of them is complex."""


def shift(problem: Problem) -> float:
    """The number s near which eigenvalues are looked for: their common initial value. Local."""
    return float(problem.coefficients[next(iter(problem.eigenvalues))])


def nearest(case: Case, theta_P: Tensor, number: int) -> Pairs | None:
    """The `number` eigenpairs nearest to the shift; None if there are fewer. Collective.

    Cost: two sets of rows and O(N W^2 + W^3) for W weights of an eigenfunction.

    Args:
        case: a case whose problem has `eigenvalues`, with a sample in its flow.
        theta_P: parameters (theta, c), whose features are used.
        number: number of pairs.

    Raises:
        UsageError: the shift itself is an eigenvalue.
    """
    problem, ansatz = case.plan.problem, case.plan.ansatz
    columns, own = ansatz.linear_columns, _columns(case.plan)[0]
    theta_P, rows = _without_u(case.plan, theta_P), []
    for value in (shift(problem), shift(problem) + 1):
        theta_P[_places(case.plan)] = value
        rows.append(case.flow.rows(theta_P, columns).A)
    A, shifted = (
        torch.cat([block for _, block in each.blocks()])[:, own].double() for each in rows
    )
    # The rows of other eigenfunctions vanish.
    both = torch.cat([A, A - shifted], 1)
    both = both[(both != 0).any(1)]
    R = merge(case.comm, local_triangle(dense(both)))
    R = None if R is None else R.cpu().numpy()
    return on_rank_0(case.comm, _pairs, R, shift(problem), number)


def _without_u(plan: Plan, theta_P: Tensor) -> Tensor:
    """The parameters with a last layer that gives u = 0. Local.

    Integrals of products of u, which are no part of the eigenproblem, have no rows there.
    """
    ansatz, theta_P = plan.ansatz, theta_P.clone()
    theta_P[ansatz.linear_columns] = 0
    bias, scaling = ansatz.layout[-1], ansatz.scaling
    theta_P[bias.offset : bias.end] = torch.as_tensor(-scaling.offset_M / scaling.size_M)
    return theta_P


def _columns(plan: Plan) -> list[list[int]]:
    """Columns of the last layer that belong to each eigenfunction. Local."""
    ansatz, outputs = plan.ansatz, tuple(plan.problem.outputs)
    units, num_outputs = ansatz.widths[-2], len(outputs)
    found = []
    for names in plan.problem.eigenfunctions.values():
        numbers = [outputs.index(name) for name in names]
        weights = [m * units + unit for m in numbers for unit in range(units)]
        found.append([*weights, *(num_outputs * units + m for m in numbers)])
    return found


def _places(plan: Plan) -> list[int]:
    """Places of the eigenvalues in (theta, c). Local."""
    names = list(plan.problem.coefficients)
    return [plan.energy.num_network + names.index(name) for name in plan.problem.eigenvalues]


def _pairs(R: np.ndarray, s: float, number: int) -> Pairs | None:
    """The pairs from the triangle of [A, B]. Local."""
    width = R.shape[1] // 2
    A, B = R[:, :width], R[:, width:]
    if not np.isfinite(R).all():
        return None
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    kept = S > CUTOFF * S[0]
    if (np.linalg.norm(B @ Vh[~kept].T, axis=0) > NULL * np.linalg.norm(B, 2)).any():
        raise UsageError(
            f"the initial value {s:g} of the eigenvalues is itself an eigenvalue, so that those "
            "nearest to it cannot be computed; let the coefficients start a little below it"
        )
    to_w = Vh[kept].T / S[kept]
    values, vectors = np.linalg.eig(U[:, kept].T @ B @ to_w)
    order = np.argsort(-np.abs(values), kind="stable")[:number]
    if len(order) < number or values[order[-1]] == 0:
        return None
    values = values[order]
    # Of a complex pair, which rounding may make of a double eigenvalue, each vector of the real
    # plane serves.
    w_WE = to_w @ np.where(values.imag < 0, vectors[:, order].imag, vectors[:, order].real)
    distance_E = (1 / values).real
    first = 0
    for last in range(1, number + 1):
        step = np.inf if last == number else abs(distance_E[last] - distance_E[first])
        if step > MULTIPLE * abs(distance_E[first]):
            triangle = np.linalg.qr(B @ w_WE[:, first:last], mode="r")
            w_WE[:, first:last] = np.linalg.solve(triangle.T, w_WE[:, first:last].T).T
            first = last
    Aw, Bw = A @ w_WE, B @ w_WE
    misfit_E = np.linalg.norm(Aw - distance_E * Bw, axis=0) / np.linalg.norm(Aw, axis=0)
    is_complex = bool((np.abs(values.imag) > MULTIPLE * np.abs(values)).any())
    return Pairs(s + distance_E, w_WE.T, float(misfit_E.max()), is_complex)


def solve(case: Case, theta_P: Tensor) -> tuple[float, Tensor, float]:
    """(score, theta, energy) with the last layer and the eigenvalues of the nearest pairs.

    Each eigenfunction has the mean square one. The score is the square of that of the pairs, times
    the size of the weights if that is large. Collective.

    Args:
        case: as for `nearest`.
        theta_P: parameters (theta, c), whose features are used.

    Raises:
        UsageError: as for `nearest`.
    """
    plan = case.plan
    own, theta_P = _columns(plan), _without_u(plan, theta_P)
    pairs = nearest(case, theta_P, len(own))
    if pairs is None:
        return np.inf, theta_P, np.inf
    weights_EW = torch.as_tensor(pairs.weights_EW).to(theta_P)
    last_P, trial_P = theta_P[plan.ansatz.linear_columns], theta_P.clone()
    for columns, weights_W in zip(own, weights_EW, strict=True):
        trial_P[plan.ansatz.linear_columns][columns] += weights_W
    square_M, outputs = _mean_squares(case, trial_P), list(plan.problem.outputs)
    functions = plan.problem.eigenfunctions.values()
    for columns, weights_W, names in zip(own, weights_EW, functions, strict=True):
        square = float(sum(square_M[outputs.index(name)] for name in names))
        last_P[columns] += weights_W / square**0.5
    theta_P[_places(plan)] = torch.as_tensor(pairs.values_E).to(theta_P)
    energy = float(case.flow.energies(theta_P, 0.0).sum())
    return pairs.score**2 * (1 + float(last_P.norm()) / USUAL_SIZE), theta_P, energy


def _mean_squares(case: Case, theta_P: Tensor) -> np.ndarray:
    """Mean square of each output on the sample, in the interior if it has some. Collective."""
    sample = case.flow.sample
    points = sample.get("interior") or next(iter(sample.values()))
    u_NM = case.evaluation.u_now(theta_P, points.x_ND).double()
    num, *squares = total(case.comm, [len(u_NM), *u_NM.square().sum(0).tolist()])
    return np.array(squares) / num


def refined(case: Case, theta_P: Tensor) -> Tensor:
    """Parameters (P,) after Gauss-Newton steps in the last layer and the eigenvalues. Collective.

    They give the eigenfunctions the size that the integrals ask for, and refine both. A step that
    raises the energy is halved: the step to a size far off is too long.

    Args:
        case: the case, with a sample in its flow.
        theta_P: parameters near an eigenpair, as from `solve`.
    """
    flow, solver = case.flow, Tsqr(case.comm, RTOL)
    columns = slice(case.plan.ansatz.linear_columns.start, len(theta_P))
    E = float(flow.energies(theta_P, 0.0).sum())
    for _ in range(MAX_ITERATIONS):
        linear = flow.rows(theta_P, columns)
        delta, _ = solver.solve_rows(solver.init(linear.A, -linear.r_N))
        for halvings in range(MAX_HALVINGS + 1):
            trial_P = theta_P.clone()
            trial_P[columns] += delta / 2**halvings
            E_trial = float(flow.energies(trial_P, 0.0).sum())
            if E_trial < E:
                break
        else:
            break
        is_small_gain = halvings == 0 and E_trial > 0.5 * E
        theta_P, E = trial_P, E_trial
        if is_small_gain:
            break
    return theta_P


def doubts(case: Case, theta_P: Tensor) -> list[str]:
    """What speaks against the eigenvalues of a state being the nearest ones. Collective.

    The pairs nearest to the shift are computed once more with the features of the state. Unlike a
    start, this also judges a state that was reached from random parameters.

    Args:
        case: the case, with a sample in its flow.
        theta_P: parameters (theta, c).
    """
    problem, s = case.plan.problem, shift(case.plan.problem)
    subject = f"the eigenvalues may not be those nearest to {s:g}"
    if case.plan.ansatz.linear_columns is None:
        return [f"{subject}: this cannot be checked with a network of your own"]
    try:
        pairs = nearest(case, theta_P, len(problem.eigenvalues))
    except UsageError as error:
        return [f"{subject}: {error}"]
    if pairs is None:
        return [f"{subject}: the last layer has too few units to check it"]
    if pairs.is_complex:
        return [f"{subject}, because some of those are complex"]
    found_E = np.array(sorted(theta_P[_places(case.plan)].tolist(), key=lambda v: abs(v - s)))
    distance_E = np.maximum(np.abs(pairs.values_E - s), np.abs(found_E - s))
    if (np.abs(found_E - pairs.values_E) <= NEAR * distance_E).all():
        return []
    return [
        f"{subject}: the run ends with {_listed(found_E)}, and the last layer has about "
        f"{_listed(pairs.values_E)}; use run.start = 'last_layer', more hidden units or another "
        "initial value of the coefficients"
    ]


def _listed(values_E: np.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in values_E)
