"""The typed config. It is read from TOML, reports all its errors at once, and is written as TOML.

Local: this module imports neither torch nor MPI.
"""

import datetime
import os
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from nedhpc import config_text
from nedhpc.errors import ConfigError, UsageError
from nedhpc.names import unknown

DURATION = re.compile(r"(?:(\d+)-)?(\d+):([0-5]?\d):([0-5]?\d(?:\.\d*)?)$")


def seconds(value: Any) -> Any:
    """Convert a duration to seconds. Local.

    Args:
        value: seconds, "[D-]HH:MM:SS", or a TOML local time.

    Returns:
        Seconds. A value of another type is returned as it is, so that pydantic refuses it.

    Raises:
        ValueError: a string does not have this form.
    """
    if isinstance(value, datetime.time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond * 1e-6
    if isinstance(value, str):
        match = DURATION.match(value)
        if not match:
            raise ValueError('a duration is seconds, "[D-]HH:MM:SS", or a TOML local time')
        days, hours, minutes, secs = match.groups()
        return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(secs)
    return value


Duration = Annotated[float, BeforeValidator(seconds), Field(gt=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base class of all tables of the config. They are immutable and refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


class ProblemTable(Section):
    """[problem]. All keys but `name` are arguments of the problem's constructor."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    """A name of the catalogue, or "file.py:Class"."""


class Fourier(Section):
    """[network.fourier]: fixed features cos(B x), sin(B x) with random B (Tancik et al. 2020)."""

    num_features: Count = 64
    """Number of rows of B; the network gets twice as many inputs."""
    scale: Positive = 1.0
    """Standard deviation of the normally distributed entries of B, in units of 1 / x."""


class Periodic(Section):
    """[network.periodic]: the embedding of the periodic coordinates of the domain."""

    harmonics: Count = 2
    """Each periodic coordinate becomes cos and sin of 2 pi k x / L for k = 1 .. harmonics."""


class Network(Section):
    """[network]: the ansatz u(x; theta)."""

    name: str | None = None
    """"file.py:Class" of a torch module, instead of the multilayer perceptron."""
    arguments: dict[str, Any] = {}
    """Arguments of that class's constructor."""
    hidden: list[Count] | None = None
    """Widths of the hidden layers; if none are given, they are chosen, as `nedhpc check` says."""
    activation: Literal["tanh", "sin", "softplus", "gelu"] | None = None
    """If none is given, tanh, or sin if that fits much better at the start."""
    init: Literal["glorot", "uniform"] = "glorot"
    """glorot: normal weights, zero biases. uniform: both uniform in +- 1 / sqrt(fan_in)."""
    init_scale: Positive = 1.0
    """The initial parameters are multiplied by it."""
    scaling: Literal["auto", "none"] = "auto"
    """auto: coordinates (not those of a network of the user's own) and outputs are of size one."""
    embedding: Literal["none", "fourier"] = "none"
    """Map of x before the first layer. If a coordinate is periodic, `periodic` is used instead."""
    fourier: Fourier = Fourier()
    periodic: Periodic = Periodic()

    @model_validator(mode="after")
    def _arguments_need_a_class(self):
        if self.arguments and self.name is None:
            raise ValueError("arguments go to the class that name gives, and there is no name")
        return self


class ResidualTable(Section):
    """[sampling.residual]: candidates have the weights |r|^power / mean |r|^power + floor."""

    power: Positive = 1.0
    """A larger power concentrates the points more where the residual is large."""
    floor: Positive = 1.0
    """A larger floor spreads the points more evenly."""
    pool: Annotated[int, Field(ge=2)] = 10
    """Number of candidates for each point that is chosen."""


class Sampling(Section):
    """[sampling]. Any other key names a part of the domain; its value is a number of points."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, Count] = Field(init=False)  # pyright: ignore
    interior: Count | None = None
    boundary: Count | None = None
    initial: Count | None = None
    data: Count | None = None
    """Number of the data set's rows in a draw; all that are not held out if not given."""
    rule: Literal["uniform", "sobol", "grid", "residual"] = "sobol"
    """`residual` prefers points of the interior at which the residual is large."""
    resample_every: Annotated[int, Field(ge=0)] = 0
    """Number of steps between draws; 0: the sample never changes."""
    adapt: Literal["auto", "none"] = "auto"
    """auto: a sample that is overfitted grows, or moves to where the residual is large."""
    grow_draws: Annotated[int, Field(ge=0)] = 0
    """Number of draws in which the sample grows from a quarter to all points; 0: no growth."""
    residual: ResidualTable = ResidualTable()

    @model_validator(mode="after")
    def _rule_fits_the_draws(self):
        if self.rule == "grid" and self.resample_every and self.data is None:
            raise ValueError(
                "resample_every > 0 does nothing with rule = 'grid', whose points are fixed; use "
                "'uniform' or 'sobol'"
            )
        if self.rule == "residual" and not self.resample_every:
            raise ValueError(
                "rule = 'residual' chooses its points again in each draw, so it needs "
                "resample_every > 0, e.g. 20"
            )
        if self.grow_draws and not self.resample_every:
            raise ValueError(
                "grow_draws > 0 makes the sample grow from draw to draw, so it needs "
                "resample_every > 0, e.g. 1"
            )
        if self.grow_draws and self.rule == "grid":
            raise ValueError(
                "grow_draws > 0 gives numbers of points that make no grid; use rule 'uniform' or "
                "'sobol'"
            )
        return self


class Weights(Section):
    """[weights]. Any other key names a term or a part; its value multiplies the terms' weights."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, Positive] = Field(init=False)  # pyright: ignore
    balance: Literal["auto", "none"] = "auto"
    """auto: each residual component is divided by its own sensitivity to u (flows/balance.py).

    none: the energy is minimised as the terms are written. Other kinds of terms are never balanced.
    """

    @property
    def factors(self) -> dict[str, float]:
        """The factors by name of a term or part."""
        return dict(self.model_extra or {})


class FlowTable(Section):
    """[flow]: the descent flow M theta_dot = -g of the energy."""

    metric: str = "euclidean"
    """Name of the metric M: euclidean, l2, h1, energy, or a class of the user's own."""
    parameters: Literal["all", "last_layer"] = "all"  # moved by a march, if they suffice
    metric_eps: Positive = 1e-6
    """Tikhonov parameter eps of M = B^T B + eps I. The metric euclidean does not use it."""


class Stepper(Section):
    """[stepper]. Any other key is the table of one stepper's settings, e.g. [stepper.ptc].

    `steppers.settings` validates these tables.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str = "ptc"
    """A step rule (ptc, spring, sgd, adam, lbfgs) or a type of PETSc's TS (rk, bdf, ...)."""
    dt: Positive = 1.0
    """First time step, which some steppers keep. sgd, adam and lbfgs use their lr instead.

    If a step of a PETSc type gives a non-finite energy, or if its nonlinear solve fails, the run
    restarts from the last good state with dt / 4.
    """
    petsc_options: str = ""
    """PETSc options of the time stepper, as on a command line."""


class KrylovTable(Section):
    """[solver.krylov]: preconditioner and iteration of the solver krylov."""

    rank: Count = 100
    """Rank of the preconditioner's low-rank approximation."""
    rtol: Annotated[float, Field(gt=0, lt=1)] = 1e-8
    """The iteration ends if |r| has fallen by it; LSQR also if |A^T r| <= rtol |A| |r|."""
    max_iterations: Count = 200
    """If these do not suffice, the last iterate is used and the run shows a note."""


class Solver(Section):
    """[solver]: the solver of the flow's least-squares systems."""

    type: Literal["auto", "tsqr", "gram", "dual", "krylov"] = "auto"
    rtol: Annotated[float, Field(gt=0, lt=1)] = 1e-15
    """Singular values below rtol times the largest are cut off."""
    chunk: Count = 8192
    """Largest number of points whose jets and rows a rank holds at once."""
    krylov: KrylovTable = KrylovTable()


class Run(Section):
    """[run]: how a run starts and when it ends."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the initial parameters and of the points."""
    max_steps: Annotated[int, Field(ge=0, lt=2**31)] = 2000
    max_time: Positive | None = None
    """Time t of the flow at which the run ends; no limit if not given."""
    max_wall_time: Duration | None = None
    """Seconds since the start or the resume after which the run ends; no limit if not given."""
    target_relative_l2: Positive = 1e-30
    """The run ends as converged if the relative L2 error is at most this."""
    start: Literal["auto", "random", "last_layer"] = "auto"
    """last_layer: random parameters, except that the last layer is fitted before step 0.

    auto: last_layer if the network and the terms allow it, else random.
    """
    starts: Annotated[int, Field(ge=0)] = 0
    """Random starts, of which the best is taken; 0: one, and others if the energy stays large."""
    windows: Annotated[int, Field(ge=0)] = 0
    """Number of time windows that are solved one after the other; 0: chosen by the program."""
    estimate_error: bool = False
    """Solve the problem again with a network of another size; the difference estimates the error.

    If max_wall_time is given, the first solution has half of it (running/second.py).
    """
    max_start_error: Positive = 1e-6  # of a march: relative L2 error of the fit to u0
    initial: str | None = None
    """Path of a checkpoint whose parameters the run starts from, instead of `start`."""


class Checkpoint(Section):
    """[checkpoint]: when checkpoints are written, and how many are kept."""

    every_steps: Count | None = None
    """Number of steps between checkpoints; by wall time only if not given."""
    every_seconds: Duration = 60.0
    """Wall time between checkpoints."""
    keep: Annotated[int, Field(ge=2)] = 3
    """Number of newest checkpoints that are kept. Older ones are deleted."""


class Output(Section):
    """[output]: how often the run is measured."""

    every_steps: Count = 10
    """Number of steps between entries of series.h5; relative_l2 is measured for each entry."""
    observers: list[str] = []
    """Names of observers: csv, json_lines, tensorboard, or of classes in the problem's file."""
    times: list[Positive] = []  # that the steps of a march meet, and whose states march.h5 holds


class Device(Section):
    """[device]: where and with which precision a rank computes."""

    type: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float64", "float32"] = "float64"
    threads: Annotated[int, Field(ge=0)] = 0
    """torch threads of a rank; 0: OMP_NUM_THREADS if set, else one or, if faster, all its cores."""


class Config(Section):
    """All settings of a run."""

    problem: ProblemTable
    network: Network = Network()
    sampling: Sampling = Sampling()
    weights: Weights = Weights()
    flow: FlowTable = FlowTable()
    stepper: Stepper = Stepper()
    solver: Solver = Solver()
    run: Run = Run()
    checkpoint: Checkpoint = Checkpoint()
    output: Output = Output()
    device: Device = Device()

    def toml(self):
        """The resolved config as TOML text, without the keys that are not set. Local."""
        return config_text.write(self.model_dump(exclude_none=True))


FILE_KEYS = (("problem", "name"), ("network", "name"), ("problem", "file"), ("run", "initial"))
"""Keys that may name a file. A relative path starts from the config's folder."""


def read(path, overrides=(), petsc_options=()):
    """Read the table of a TOML file and apply overrides. Local.

    Args:
        path: the file. Relative paths in it start from its folder and become absolute.
        overrides: "section.key=value" settings, as `--set` gives them.
        petsc_options: words that are appended to stepper.petsc_options.

    Returns:
        The table, which is not validated yet.

    Raises:
        UsageError: the file cannot be read, it is not TOML, or an override is malformed.
    """
    path = Path(path)
    table = config_text.read(path)
    for section, key in FILE_KEYS:
        resolve(table, section, key, path.parent)
    return with_petsc_options(override(table, overrides), petsc_options)


def with_petsc_options(table, petsc_options):
    """The table, in which words of a command line are appended to stepper.petsc_options. Local."""
    stepper = table.setdefault("stepper", {}) if petsc_options else None
    if isinstance(stepper, dict):
        before = str(stepper.get("petsc_options", ""))
        stepper["petsc_options"] = f"{before} {shlex.join(petsc_options)}".strip()
    return table


def resolve(table, section, key, folder):
    """Make the path absolute if table[section][key] names a file. Local.

    Args:
        table: the config table, which is changed in place.
        section: name of the section.
        key: key in that section.
        folder: folder from which a relative path starts.

    Raises:
        UsageError: the name contains a null character.
    """
    value = table.get(section, {}).get(key) if isinstance(table.get(section), dict) else None
    if isinstance(value, str) and "\0" in value:
        raise UsageError(f"{section}.{key} = {value!r}: a file name has no null character")
    if isinstance(value, str) and value and (":" in value or key in ("file", "initial")):
        file, colon, rest = value.rpartition(":") if key == "name" else (value, "", "")
        table[section][key] = os.path.realpath(folder / file) + colon + rest


def override(table, overrides):
    """Apply overrides to a config table. Local.

    Args:
        table: the config table, which is changed in place.
        overrides: "section.key=value" settings. A value that is not TOML is used as a string.

    Returns:
        The table.

    Raises:
        UsageError: a setting has another form, or its section is not a table.
    """
    for setting in overrides:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or len(keys) < 2 or not all(keys):
            raise UsageError(f"--set {setting}: needs the form section.key=value")
        try:
            value = config_text.parse(f"value = {text}")["value"]
        except ValueError:
            value = text
        target = table
        for key in keys[:-1]:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise UsageError(f"--set {setting}: {key} is not a table")
        target[keys[-1]] = value
        if tuple(keys) in FILE_KEYS:
            resolve(table, keys[0], keys[1], Path.cwd())
    return table


def validate(table, source=None):
    """The Config of a table. Local.

    Args:
        table: the config table, e.g. from `read`.
        source: the config's file, for the message.

    Raises:
        ConfigError: every mistake with its key, what is allowed and the nearest right name.
    """
    try:
        config = Config.model_validate(table)
    except ValidationError as error:
        raise ConfigError([explain(item) for item in error.errors()], source) from None
    if problems := list(config_text.undecodable(table)):
        raise ConfigError(problems, source)
    return config


def explain(item: Any, model: type[BaseModel] | None = None, prefix: tuple[str, ...] = ()) -> str:
    """Describe one of pydantic's errors: the key's path, what is wrong, what is allowed. Local.

    Args:
        item: an entry of ValidationError.errors().
        model: the model that was validated; Config by default.
        prefix: the keys that lead to that model's table.
    """
    path = ".".join(str(key) for key in (*prefix, *item["loc"]))
    value = item["input"]
    if item["type"] == "extra_forbidden":
        table: Any = model or Config
        for key in item["loc"][:-1]:
            table = table.model_fields[key].annotation
        return unknown(path, "key", item["loc"][-1], table.model_fields)
    if item["type"] == "missing":
        return f"{path}: missing"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if item["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        return unknown(f"{path} = {value!r}", "value", value, allowed)
    if isinstance(value, dict):
        return f"{path}: {message}"
    must = "must be " if item["msg"].startswith("Input should be ") else ""
    return f"{path} = {value!r}: {must}{message}"


def load(path, overrides=(), petsc_options=()):
    """The Config of a file, by `read` and `validate`. Local."""
    return validate(read(path, overrides, petsc_options), path)
