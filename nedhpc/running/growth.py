"""A wider network for a run that the program's own choice of one does not solve. Collective."""

import dataclasses

import numpy as np

from nedhpc.ansatz.mlp import MLP
from nedhpc.errors import UsageError
from nedhpc.files.checkpoint import State
from nedhpc.plan import Plan
from nedhpc.running.best import PREFIX
from nedhpc.running.start import first_growth

FACTORS = (2.0, 1.5)
"""Ratio of the widths to those before, for one hidden layer and for more: the cost of a step grows
by 4 and by 5."""
MAX_PARAMETERS = 4000
BEST = (PREFIX + "theta", PREFIX + "reference")
"""Entries of the adaptation's memory that are parameters."""


def wider_plan(plan: Plan) -> Plan | None:
    """The plan with wider hidden layers; None if it is too large. Local."""
    hidden = plan.config.network.hidden or []
    factor = FACTORS[len(hidden) > 1]
    try:
        wider = plan.variant(hidden=[round(factor * units) for units in hidden])
    except UsageError:
        return None
    return wider if wider.energy.num_parameters <= MAX_PARAMETERS else None


def first_leg(plan: Plan, state: State) -> Plan:
    """The plan of the state's window with the sample of a start. Local."""
    return plan.leg(dataclasses.replace(state, growth=first_growth(plan)))


def carried_over(state: State, memory: dict, narrow: MLP, wide: MLP) -> tuple[State, dict]:
    """A state and a memory of running.adaptation with the same solutions in a wider network. Local.

    Args:
        state: the state.
        memory: the memory.
        narrow: the network of both.
        wide: one with wider hidden layers.
    """

    def widened(theta_P: np.ndarray) -> np.ndarray:
        return wide.widened(theta_P, narrow)

    pieces = [dataclasses.replace(piece, theta_P=widened(piece.theta_P)) for piece in state.pieces]
    reference_P = state.reference_P
    state = dataclasses.replace(
        state,
        theta_P=widened(state.theta_P),
        reference_P=None if reference_P is None else widened(reference_P),
        pieces=tuple(pieces),
    )
    return state, memory | {name: widened(memory[name]) for name in BEST if name in memory}
