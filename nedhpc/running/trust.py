"""How far the answer can be trusted: its error, and what is wrong with it in words. Collective."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from nedhpc.flows.estimate import MAX_DIM, error_jets, estimate
from nedhpc.parallel.comm import total
from nedhpc.running.case import Case

POOR = 1e-5
"""A balanced energy above this is too large for a solution to be trusted."""
LARGE = 1e-3
"""A balanced energy above this is a warning even if the estimated error is small."""
OVERFIT = 10.0
"""Held-out energy over that of the sample from which the sample is called overfitted."""
NEGLIGIBLE = 1e-12
"""Balanced energies below this are too small to matter."""
UNDETERMINED = 3e-4
"""A smaller sensitivity of the residuals means that the solution is not unique."""
LARGE_ERROR = 1e-2
"""An estimated error above this is a warning."""


@dataclass(frozen=True, slots=True)
class Known:
    """The estimated error of the solution up to the end of a window."""

    error_M: np.ndarray
    """Root mean square error of each output in its worst window, in its units; NaN if not known."""
    spread_M: np.ndarray
    """Largest standard deviation of each output in a window, in its units."""
    sensitivity: float = np.inf
    """The least of all windows, as in flows.estimate."""
    error_f: np.ndarray = field(default_factory=lambda: np.empty(0))
    """The error in the last window, as flows.estimate.Estimate.theta_f; empty if not known."""
    second_M: np.ndarray | None = None
    """Root mean square difference from a second solution, in the outputs' units; None without."""

    @property
    def relative_M(self) -> np.ndarray:
        """Error of each output relative to its spread, by the larger estimate; NaN if not known."""
        error_M = self.error_M if self.second_M is None else np.fmax(self.error_M, self.second_M)
        return error_M / np.maximum(self.spread_M, 1e-300)

    @property
    def relative(self) -> float:
        """Largest error of an output relative to its spread; NaN if it is not known."""
        return float(self.relative_M.max())

    def stats(self, outputs: Sequence[str]) -> dict:
        """The facts that `nedhpc info` reports of it, {name: value}."""
        by_output = zip(outputs, self.relative_M.tolist(), strict=True)
        found = {f"error_estimate_{name}": error for name, error in by_output}
        return found | {"error_estimate": self.relative, "has_second": self.second_M is not None}


def moments(case: Case, theta_P: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (M,) of the outputs in the window that is solved now."""
    sample = case.held_out
    points = sample.get("interior") or next(iter(sample.values()))
    u_NM = case.evaluation.u_now(theta_P, points.x_ND).double()
    sums = [len(u_NM), *u_NM.sum(0).tolist(), *u_NM.square().sum(0).tolist()]
    num, *sums = total(case.comm, sums)
    mean_M, square_M = np.array(sums[: u_NM.shape[1]]) / num, np.array(sums[u_NM.shape[1] :]) / num
    return mean_M, np.sqrt(np.maximum(square_M - mean_M**2, 0))


def known(case: Case, theta_P: Tensor, before: Known | None) -> Known:
    """What is known of the error in the present window and those before. Cost: some seconds.

    Args:
        case: the case.
        theta_P: parameters on the device.
        before: of the windows before; None if there are none.
    """
    ansatz, domain = case.plan.ansatz, case.leg.domain
    spread_M, found = moments(case, theta_P)[1], None
    energy = case.leg.energy
    usable = case.plan.balanced and ansatz.scales_coordinates and domain.dim <= MAX_DIM
    if usable and energy.balance is not None:
        if before is not None and len(before.error_f):
            scaling = case.leg.pieces.last_scaling
            energy = case.leg.energy_after(error_jets(ansatz, scaling, before.error_f))
        samples = [case.flow.sample, case.held_out]
        bounds, is_noisy = (domain.low, domain.high), bool(case.plan.data)
        found = estimate(case.comm, energy, theta_P, samples, *bounds, is_noisy)
    now = Known(np.full(len(spread_M), np.nan), spread_M)
    if found is not None:
        error_M = found.error_M * ansatz.scaling.size_M
        now = Known(error_M, spread_M, found.sensitivity, found.theta_f)
    if before is None:
        return now
    return Known(
        np.maximum(now.error_M, before.error_M),
        np.maximum(now.spread_M, before.spread_M),
        min(now.sensitivity, before.sensitivity),
        now.error_f,
    )


def warnings(
    measured,
    found: Known,
    balanced: bool,
    solved_to: float | None,
    worst: str,
    contradictions: list[str],
) -> list[str]:
    """What the user must know, one sentence each; none if all is well. Local.

    Args:
        measured: the last measurement.
        found: what is known of the error.
        balanced: True if the rows are balanced; else the size of an energy tells nothing.
        solved_to: time to which the solution was found, if that is not the end.
        worst: the place of the largest residual, in words.
        contradictions: conditions that contradict each other or are missing, a sentence each.
    """
    texts = []
    E, held_out = measured.balanced_energy, measured.balanced_held_out_energy
    if solved_to is not None:
        texts.append(
            f"the solution is known up to t = {solved_to:.6g} only; give the run more steps or time"
        )
    if found.sensitivity < UNDETERMINED:
        texts.append(
            "the terms do not determine the solution: it can be changed without a change of any "
            "residual; the likely cause is a missing condition"
        )
    if measured.relative_l2 is not None:
        return texts  # the error is measured
    texts += contradictions
    # A second solution that is wrong in the same way would not show it: it changes no limit.
    if balanced and held_out > (POOR if np.isnan(found.error_M).any() else LARGE):
        texts.append(
            f"the equations are not satisfied: the balanced energy on held-out points is "
            f"{held_out:.1e}, and the largest residual is that of {worst}; likely causes are a "
            "network that is too small, too few steps, or conditions that contradict each other, "
            "e.g. in a corner"
        )
    elif held_out > OVERFIT * E and held_out > NEGLIGIBLE:
        texts.append(
            f"the energy on held-out points is {held_out / E:.0f} times that on the sample; use "
            "more points"
        )
    if found.relative > LARGE_ERROR:
        texts.append(f"the estimated error is {found.relative:.1e} of the solution's variation")
    return texts
