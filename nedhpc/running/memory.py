"""The memory of running.adaptation, as a checkpoint may hold it. Local."""

import numpy as np

from nedhpc.errors import NotAStateError
from nedhpc.plan import Plan

LISTS = ("energies", "held_out", "moves", "error_f")
"""Entries that are vectors of any length. All entries without a shape of their own are numbers."""
TOGETHER = (
    ("best_energy", "best_units", "best_step", "best_growth", "best_theta", "best_coefficients"),
    ("error_M", "spread_M"),
)
"""Entries of which none is there without the others."""


def check(memory: dict, plan: Plan) -> None:
    """Check that a memory, which comes from a file, belongs to a run.

    Args:
        memory: {name: number or array}.
        plan: that of the run.

    Raises:
        NotAStateError: an entry has another shape or no real numbers, or others of it are missing.
    """
    dim, outputs = plan.problem.domain.dim, len(plan.problem.outputs)
    shapes = {
        "best_units": (len(plan.terms),),
        "best_theta": (plan.energy.num_network,),
        "best_coefficients": (len(plan.problem.coefficients),),
        "best_reference": (plan.energy.num_parameters,),
        **dict.fromkeys(("best_centre", "best_half"), (dim,)),
        **dict.fromkeys(("best_offset", "best_size", "error_M", "spread_M"), (outputs,)),
    }
    for name, entry in memory.items():
        array = np.asarray(entry)
        fits = array.ndim == 1 if name in LISTS else array.shape == shapes.get(name, ())
        if not fits or array.dtype.kind not in "biuf":
            raise NotAStateError(
                f"the checkpoint's {name!r:.40} has shape {array.shape} and type {array.dtype}, "
                "which does not fit to this run"
            )
    for names in TOGETHER:
        if missing := [name for name in names if name not in memory]:
            if len(missing) < len(names):
                raise NotAStateError(f"the checkpoint lacks {', '.join(missing)}")
