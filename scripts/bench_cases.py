"""What the benchmarks compare: the methods, the cases of the comparison, and the aims."""

from dataclasses import dataclass

LEVELS = (1e-3, 1e-4, 1e-5, 1e-6)
"""Errors for which the page shows the time to reach them."""
SECONDS, AIM_SECONDS = 60, 300
"""Wall time of a run of the comparison, and of a run for an aim."""
NED = ("ned_l2", "ned_energy", "ned")
METHODS = {
    "ned_l2": "NED, l2",
    "ned_energy": "NED, energy",
    "ned": "NED",
    "sgd": "SGD",
    "adam": "Adam",
    "lbfgs": "L-BFGS",
}
OVERRIDES = {"ned_l2": ["flow.metric=l2"], "ned_energy": ["flow.metric=energy"], "ned": []}
# Training with a baseline usually starts from random parameters.
OVERRIDES |= {
    name: [f"stepper.type={name}", "flow.metric=euclidean", "run.start=random"]
    for name in ("sgd", "adam", "lbfgs")
}


@dataclass(frozen=True)
class Case:
    """A problem of the comparison. Each method runs `config` with settings of its own."""

    name: str
    problem: str
    network: str
    config: str
    published: str = "none known"
    """The best published relative L2 error, its wall time, the method and the hardware."""
    kind: str = "pde"
    """One of pde, regression, classification."""
    methods: tuple[str, ...] = tuple(METHODS)


@dataclass(frozen=True)
class Aim:
    """A row of the aim table: the smallest error that NED reaches in five minutes."""

    name: str
    case: str
    config: str
    least: float
    """Relative L2 error that NED must reach."""
    aim: float
    """Relative L2 error that we would like NED to reach."""
    within: tuple[float, float] | None = None
    """(error, seconds): the aim also includes this error within these seconds."""
    stop: float = 1e-30
    """Relative L2 error at which the run stops.

    It is smaller than the aim, so that more time would not change the verdict.
    """


WITHOUT_METRIC = ("ned", "sgd", "adam", "lbfgs")
"""Methods of the cases with P > N. The dual solver needs the metric euclidean."""
CASES = [
    Case(
        "poisson_2d",
        "2D Poisson, sin sin",
        "2-64-1",
        "configs/poisson_2d.toml",
        "1.2e-7 in 468 s (ENGD, RTX 6000)",
    ),
    Case(
        "poisson_2d_deep",
        "2D Poisson, sin sin",
        "2-64-64-48-48-1",
        "configs/bench/poisson_2d_deep.toml",
        "1.6e-6 in 1000 s (KFAC*, GPU)",
        methods=WITHOUT_METRIC,
    ),
    Case(
        "poisson_5d",
        "5D Poisson, cos sum",
        "5-64-1",
        "configs/poisson_5d.toml",
        "3.5e-8 in 3000 s (ENGD, GPU)",
    ),
    Case(
        "poisson_5d_deep",
        "5D Poisson, cos sum",
        "5-64-64-48-48-1",
        "configs/bench/poisson_5d_deep.toml",
        "1.7e-7 in 7000 s (SPRING, GPU)",
        methods=WITHOUT_METRIC,
    ),
    Case(
        "heat_1d",
        "heat 1+1, u_t = u_xx / 4",
        "2-64-1",
        "configs/heat_1d.toml",
        "8.7e-8 in 923 s (ENGD, GPU)",
    ),
    Case(
        "regression_sine",
        "regression, sin(20 pi x)",
        "1-64-1",
        "configs/regression_sine.toml",
        kind="regression",
    ),
    Case(
        "regression_step",
        "regression, sign(x)",
        "1-40-1",
        "configs/regression_step.toml",
        kind="regression",
    ),
    Case(
        "regression_8d",
        "regression, 8D borehole",
        "8-40-1",
        "configs/regression_8d.toml",
        kind="regression",
    ),
    Case(
        "digits",
        "classification, digits",
        "64-64-10",
        "configs/digits.toml",
        kind="classification",
        methods=WITHOUT_METRIC,
    ),
    Case(
        "poisson_10d",
        "10D Poisson, sum x_{2i-1} x_{2i}",
        "10-256-256-128-128-1",
        "configs/poisson_10d.toml",
        "8.9e-6 in 6250 s (SPRING, GPU)",
        methods=WITHOUT_METRIC,
    ),
]
AIMS = [
    Aim(
        "poisson_2d",
        "2D Poisson 2-64-1",
        "configs/poisson_2d.toml",
        5e-8,
        1e-8,
        (1e-6, 10),
        stop=1e-9,
    ),
    Aim(
        "poisson_2d_any",
        "2D Poisson, any network",
        "configs/bench/poisson_2d_any.toml",
        1e-10,
        1e-12,
        stop=5e-13,
    ),
    Aim(
        "poisson_2d_two_layers",
        "2D Poisson, two hidden layers, P >= 1000",
        "configs/bench/poisson_2d_two_layers.toml",
        1e-6,
        1e-8,
        stop=5e-9,
    ),
    Aim("poisson_5d", "5D Poisson 5-64-1", "configs/poisson_5d.toml", 1e-6, 3.5e-8, stop=2e-8),
    Aim(
        "poisson_5d_any",
        "5D Poisson, any network",
        "configs/bench/poisson_5d_any.toml",
        1e-6,
        1e-8,
        stop=1e-9,
    ),
    Aim("heat_1d", "heat 1+1, 2-64-1", "configs/heat_1d.toml", 3e-7, 3e-8, stop=5e-9),
    Aim(
        "regression_sinc",
        "regression sinc(10x), P <= 500",
        "configs/bench/regression_sinc.toml",
        1e-5,
        1e-8,
        stop=1e-9,
    ),
    Aim(
        "regression_sine",
        "regression sin(20 pi x), P <= 500",
        "configs/bench/regression_sine.toml",
        1e-5,
        1e-8,
        stop=1e-9,
    ),
]
