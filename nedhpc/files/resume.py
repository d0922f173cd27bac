"""What a resumed run may change: all but what its parameters, points and data belong to. Local."""

from nedhpc import config as configs
from nedhpc.errors import ConfigError, UsageError
from nedhpc.files import checkpoint

KEPT = {
    "network": "theta belongs to that network",
    "problem.name": "theta solves that problem",
    "problem.dim": "theta belongs to a problem of that dimension",
    "problem.held_out": "rows that were trained on would be held out",
    "problem.split_seed": "rows that were trained on would be held out",
    "run.seed": "the points drawn so far are those of that seed",
    "run.start": "it acts at step 0 only",
    "run.initial": "it acts at step 0 only",
}
"""Keys and tables that a resumed run keeps, and why."""
FILES = ("problem.name", "network.name", "problem.file")
"""Keys that name a file, which may have moved."""
FORGETTING = (
    "problem",
    "sampling",
    "flow",
    "stepper.type",
    "stepper.spring.damping",
    "device.dtype",
)
"""A change of these leaves a stepper's memory of past steps without meaning."""
REMEDY = "start another run, with run.initial = a checkpoint to begin from its theta"


def changes(old, new):
    """{key: (old value, new value)} of two Configs."""
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before | after)
        if before.get(key) != after.get(key)
    }


def _flat(table, prefix=""):
    flat = {}
    for key, value in table.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _under(key, names):
    """The one of `names` that is the key or its table."""
    return next((name for name in names if key == name or key.startswith(name + ".")), None)


def adapt(state, about, config):
    """(State, about) to continue with `config`, and what a person should know of it; ConfigError with every change that is refused."""
    changed = changes(configs.validate(configs.tomllib.loads(about["config"])), config)
    notes = [f"{key} = {new!r} (was {old!r})" for key, (old, new) in changed.items()]
    changed = {key: pair for key, pair in changed.items() if not _moved(key, *pair)}
    refused = [
        f"{key}: {old!r} cannot become {new!r} in a run that continues: {KEPT[_under(key, KEPT)]}; {REMEDY}"
        for key, (old, new) in changed.items()
        if _under(key, KEPT)
    ]
    if refused:
        raise ConfigError(refused)
    if any(_under(key, FORGETTING) for key in changed) and len(state.stepper) > 1:
        state.stepper = {}
        notes.append("the stepper begins without memory of the steps before")
    if any(_under(key, ("sampling",)) for key in changed):
        state.selection = {}
    if "stepper.type" in changed or "stepper.dt" in changed:
        state.dt = config.stepper.dt
    if notes:
        about = about | {
            "config_history": [*about["config_history"], config.toml()],
            "config_changes": [
                *about["config_changes"],
                "; ".join([f"after step {state.step}: {notes[0]}", *notes[1:]]),
            ],
        }
    return state, about, notes


def _moved(key, old, new):
    """Whether only the place of a file differs; `check` compares the content."""
    return (
        key in FILES
        and bool(old)
        and bool(new)
        and (
            key == "problem.file" or ":" in old and old.rpartition(":")[2] == new.rpartition(":")[2]
        )
    )


def check(case, state, about):
    """UsageError unless the state belongs to the case's network, coefficients and data; orders the coefficients as the problem does."""
    if (
        checkpoint.layout(case.network) != about["layout"]
        or len(state.theta_P) != case.energy.num_network
    ):
        raise UsageError(
            f"the checkpoint's parameters ({', '.join(about['layout'])}) are not this network's "
            f"({', '.join(checkpoint.layout(case.network))}); {REMEDY}"
        )
    if sorted(state.coefficients) != sorted(case.problem.coefficients):
        raise UsageError(
            f"the checkpoint has the coefficients {sorted(state.coefficients)}, the problem {sorted(case.problem.coefficients)}; {REMEDY}"
        )
    file = "problem.file"
    if case.data_digest != about["sampling"]["data_sha256"] or case.user_files.get(file) != about[
        "user_files"
    ].get(file):
        raise UsageError(
            f"the data set or its split is not what the run was trained on; restore it, or {REMEDY}"
        )
    state.coefficients = {name: state.coefficients[name] for name in case.problem.coefficients}
