"""The best state of a run so far, judged by the energy on held-out points. Collective."""

import dataclasses

import numpy as np
from torch import Tensor

from nedhpc.ansatz.scaling import NAMES
from nedhpc.files.checkpoint import State
from nedhpc.running.case import Case

PREFIX = "best_"


def remember(case: Case, memory: dict, state: State, theta_P: Tensor) -> None:
    """Keep a state in the memory if it is the best so far. Collective.

    With N held-out rows of data, it must be better by the share 1/N, as much as one more parameter
    gains by chance (Akaike 1974). Of states that are equal by this measure the first has followed
    the noise least.

    Args:
        case: the case.
        memory: memory of running.adaptation, which is stored in checkpoints; changed in place.
        state: the state.
        theta_P: its parameters (theta, c) on the device.
    """
    written_K, balanced_K = case.held_out_energies(theta_P)
    if "best_units" not in memory:
        units_K = np.divide(balanced_K, written_K, np.ones_like(written_K), where=written_K > 0)
        memory["best_units"] = units_K
    energy = _energy(memory, written_K)
    num_rows = sum(len(data.held_out_x) for data in case.plan.data.values()) or np.inf
    if not energy < (1 - 1 / num_rows) * memory.get("best_energy", np.inf):
        return
    kept = {
        "energy": energy,
        "step": state.step,
        "growth": state.growth,
        "theta": state.theta_P,
        "coefficients": np.array(list(state.coefficients.values())),
        **state.scaling,
    }
    if state.reference_P is not None:
        kept["reference"] = state.reference_P
    memory |= {PREFIX + name: value for name, value in kept.items()}


def _energy(memory: dict, written_K: np.ndarray) -> float:
    """Energy on held-out points in units that stay when the rows are balanced again. Local.

    They are the first balance's for each term as a whole, so that states before and after a change
    of the scales can be compared.
    """
    return float(memory["best_units"] @ written_K)


def remembered(memory: dict) -> dict:
    """The entries of the memory that `remember` made. Local."""
    return {name: value for name, value in memory.items() if name.startswith(PREFIX)}


def better(case: Case, memory: dict, state: State) -> State | None:
    """The remembered state, if it is better than the given one; else None. Collective.

    Args:
        case: the case.
        memory: memory of running.adaptation.
        state: the last state of the run, whose clock the result has.
    """
    if "best_energy" not in memory:
        return None
    theta_P = case.parameters.join(state.theta_P, state.coefficients)
    if not _energy(memory, case.held_out_energies(theta_P)[0]) > memory["best_energy"]:
        return None
    coefficients = zip(state.coefficients, memory["best_coefficients"], strict=True)
    return dataclasses.replace(
        state,
        theta_P=memory["best_theta"],
        coefficients={name: float(value) for name, value in coefficients},
        growth=int(memory["best_growth"]),
        scaling={name: memory[PREFIX + name] for name in NAMES} if state.scaling else {},
        reference_P=memory.get("best_reference"),
        stepper={},
        draw=0,
        selection={},
    )
