"""Units and long names of what checkpoints hold, for programs that know only HDF5. Local."""

import h5py

DESCRIPTIONS = {
    "state/theta": ("parameters of the network", "1"),
    "state/clock/step": ("accepted steps", "1"),
    "state/clock/time": ("time of the flow", "1"),
    "state/clock/dt": ("time step for the next step", "1"),
    "state/clock/wall_time": ("wall time, resumes included", "s"),
    "sampling/draw": ("number of the sample's draw", "1"),
    "sampling/growth": ("the sample has 2^growth times as many points as the config asks for", "1"),
    "sampling/selection/index": ("chosen points, as indices into the pool of the draw", "1"),
    "sampling/selection/weight": ("quadrature weights of the chosen points", "1"),
    "scaling/centre": ("the network sees (x - centre) / half", "units of the coordinates"),
    "scaling/half": ("half the range of each coordinate", "units of the coordinates"),
    "scaling/offset": ("u = offset + size v", "units of the outputs"),
    "scaling/size": ("u = offset + size v", "units of the outputs"),
    "balance/reference": ("parameters at which the rows are balanced", "1"),
    "windows/now": ("start and end of the present time window", "units of t"),
    "config": ("resolved config, TOML", ""),
    "stats/relative_l2": ("relative L2 error", "1"),
    "stats/energy": ("energy on the sample", "1"),
    "stats/held_out_energy": ("energy on points that are not trained on", "1"),
    "stats/seconds_per_step": ("wall time of a step", "s"),
    "stats/peak_memory_mb": ("memory of the largest rank", "MB"),
}
"""Long name and unit of a dataset by its path."""


def describe(file: h5py.File) -> None:
    """Write the attributes `long_name` and `units` of the datasets that are there."""
    for name, (long_name, units) in DESCRIPTIONS.items():
        if name in file:
            file[name].attrs.update({"long_name": long_name, "units": units})
    for name, item in file["state/coefficients"].items():
        item.attrs.update({"long_name": f"coefficient {name}", "units": "1"})
