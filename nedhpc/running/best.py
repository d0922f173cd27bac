"""The best state of a run so far, judged by the energy on held-out points. Collective."""

import dataclasses

import numpy as np

from nedhpc.ansatz.scaling import NAMES
from nedhpc.files.checkpoint import State
from nedhpc.running.case import Case

PREFIX = "best_"


def remember(memory: dict, state: State, held_out: float) -> None:
    """Keep a state in the memory if it is the best so far. Local.

    Args:
        memory: memory of running.adaptation, which is stored in checkpoints; changed in place.
        state: the state.
        held_out: its balanced energy on held-out points.
    """
    if not held_out < memory.get("best_energy", np.inf):
        return
    kept = {
        "energy": held_out,
        "step": state.step,
        "growth": state.growth,
        "theta": state.theta_P,
        "coefficients": np.array(list(state.coefficients.values())),
        **state.scaling,
    }
    if state.reference_P is not None:
        kept["reference"] = state.reference_P
    memory |= {PREFIX + name: value for name, value in kept.items()}


def remembered(memory: dict) -> dict:
    """The entries of the memory that `remember` made. Local."""
    return {name: value for name, value in memory.items() if name.startswith(PREFIX)}


def better(case: Case, memory: dict, state: State) -> State | None:
    """The remembered state, if it is better than the given one; else None.

    Args:
        case: the case.
        memory: memory of running.adaptation.
        state: the last state of the run, whose clock the result has.
    """
    if "best_energy" not in memory:
        return None
    theta_P = case.parameters.join(state.theta_P, state.coefficients)
    if not case.held_out_energy(theta_P) > memory["best_energy"]:
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
