"""The typed config: TOML in, all its errors at once, TOML out. Imports neither torch nor MPI."""

import datetime
import re
import shlex
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from nedhpc.errors import ConfigError, UsageError
from nedhpc.names import unknown

DURATION = re.compile(r"(?:(\d+)-)?(\d+):([0-5]?\d):([0-5]?\d(?:\.\d*)?)$")


def seconds(value: Any) -> Any:
    """Seconds of a duration: a number, "[D-]HH:MM:SS", or a TOML local time."""
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
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


class ProblemTable(Section):
    """[problem]: a catalogue name or "file.py:Class"; the other keys are options of that problem's
    constructor.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str


class Fourier(Section):
    """[network.fourier]: fixed features cos(B x), sin(B x) with normal B (Tancik et al. 2020)."""

    num_features: Count = 64
    """Rows of B; the network gets twice as many inputs."""
    scale: Positive = 1.0
    """Standard deviation of the entries of B."""


class Periodic(Section):
    """[network.periodic]: the embedding of the periodic coordinates of the domain."""

    harmonics: Count = 2
    """Waves of each periodic coordinate: cos and sin of 2 pi k x / L, k = 1 .. harmonics."""


class Network(Section):
    name: str | None = None
    """"file.py:Class" of a torch module, instead of the multilayer perceptron."""
    arguments: dict[str, Any] = {}
    """Arguments of that class's constructor."""
    hidden: list[Count] = [64]
    """Widths of the hidden layers."""
    activation: Literal["tanh", "sin", "softplus", "gelu"] = "tanh"
    init: Literal["glorot", "uniform"] = "glorot"
    """glorot: normal weights and zero biases; uniform: both uniform in +- 1 / sqrt(fan in)."""
    init_scale: Positive = 1.0
    """Factor of the initial parameters."""
    embedding: Literal["none", "fourier"] = "none"
    """What the network gets instead of x. Periodic coordinates have an embedding of their own."""
    fourier: Fourier = Fourier()
    periodic: Periodic = Periodic()

    @model_validator(mode="after")
    def _arguments_need_a_class(self):
        if self.arguments and self.name is None:
            raise ValueError("arguments are those of a class of the user's own, which name gives")
        return self


class ResidualTable(Section):
    """Rule `residual`: a point of the pool is chosen in proportion to |r|^power / mean |r|^power +
    floor.
    """

    power: Positive = 1.0
    floor: Positive = 1.0
    pool: Annotated[int, Field(ge=2)] = 10
    """Candidates for each point that is chosen."""


class Sampling(Section):
    """[sampling]: the other keys are numbers of points by name of a part of the domain."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, Count] = Field(init=False)  # pyright: ignore
    interior: Count | None = None
    boundary: Count | None = None
    initial: Count | None = None
    data: Count | None = None
    """Rows of a draw; the whole data set if not given."""
    rule: Literal["uniform", "sobol", "grid", "residual"] = "sobol"
    """`residual` chooses the interior's points where the residual is large."""
    resample_every: Annotated[int, Field(ge=0)] = 0
    """Steps between draws; 0: the sample never changes."""
    grow_draws: Annotated[int, Field(ge=0)] = 0
    """Draws in which the number of points grows linearly from a quarter to all; 0: all at once."""
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


class FlowTable(Section):
    metric: str = "euclidean"
    """Name of a metric of the parameters:

    euclidean, l2, h1, energy, or a class of the user's own.
    """
    metric_eps: Positive = 1e-6
    """Tikhonov parameter eps of the metric, M = B^T B + eps I.

    The metric euclidean does not use it.
    """


class Stepper(Section):
    """[stepper]: the other keys are tables of settings by stepper name, [stepper.ptc];
    `steppers.settings` validates them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str = "ptc"
    """A step rule of nedhpc (ptc, spring, sgd, adam, lbfgs) or a type of PETSc's TS (rk, bdf, ...).
    """
    dt: Positive = 1.0
    """First time step, or the fixed one. ptc: the first pseudo-time step. sgd, adam and lbfgs use
    their own lr instead. If a step of a PETSc type gives a non-finite energy, the run restarts from
    the last good state with dt / 4."""
    petsc_options: str = ""
    """PETSc options of the time stepper, as on a command line."""


class KrylovTable(Section):
    rank: Count = 100
    """Columns of the preconditioner's low-rank approximation."""
    rtol: Annotated[float, Field(gt=0, lt=1)] = 1e-8
    """The iteration ends where the residual, or LSQR's |A^T r| beside |A| |r|, has fallen by this
    factor.
    """
    max_iterations: Count = 200


class Solver(Section):
    type: Literal["auto", "tsqr", "gram", "dual", "krylov"] = "auto"
    rtol: Annotated[float, Field(gt=0, lt=1)] = 1e-15
    """Singular values below rtol times the largest are cut off."""
    chunk: Count = 8192
    """Points whose jets and rows are in flight at once on a rank."""
    krylov: KrylovTable = KrylovTable()


class Run(Section):
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    max_steps: Annotated[int, Field(ge=0, lt=2**31)] = 2000
    max_time: Positive | None = None
    """End of the flow's time t."""
    max_wall_time: Duration | None = None
    target_relative_l2: Positive = 1e-30
    start: Literal["random", "last_layer"] = "random"
    initial: str | None = None
    """A checkpoint to take the initial parameters from."""


class Checkpoint(Section):
    every_steps: Count | None = None
    every_seconds: Duration = 60.0
    keep: Annotated[int, Field(ge=2)] = 3


class Output(Section):
    every_steps: Count = 10
    """Steps between entries of series.h5 and measurements of relative_l2."""


class Device(Section):
    type: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float64", "float32"] = "float64"
    threads: Annotated[int, Field(ge=0)] = 0
    """torch threads of a rank; 0: OMP_NUM_THREADS, or its share of the cores."""


class Config(Section):
    """All settings of a run."""

    problem: ProblemTable
    network: Network = Network()
    sampling: Sampling = Sampling()
    weights: dict[str, Positive] = {}
    """[weights]: factors of terms, by name of a term or of a part; they multiply the terms' own."""
    flow: FlowTable = FlowTable()
    stepper: Stepper = Stepper()
    solver: Solver = Solver()
    run: Run = Run()
    checkpoint: Checkpoint = Checkpoint()
    output: Output = Output()
    device: Device = Device()

    def toml(self):
        """The resolved config as TOML; keys that are unset are left out."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


FILE_KEYS = (("problem", "name"), ("network", "name"), ("problem", "file"), ("run", "initial"))
"""Keys that may name a file, which is relative to the config's folder."""


def read(path, overrides=(), petsc_options=()):
    """The config table of a TOML file with `--set` overrides applied;

    paths in it become relative to the file's folder.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read the config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    for section, key in FILE_KEYS:
        resolve(table, section, key, path.parent)
    return with_petsc_options(override(table, overrides), petsc_options)


def with_petsc_options(table, petsc_options):
    """The table with more options in stepper.petsc_options, given as words of a command line."""
    stepper = table.setdefault("stepper", {}) if petsc_options else None
    if isinstance(stepper, dict):
        before = str(stepper.get("petsc_options", ""))
        stepper["petsc_options"] = f"{before} {shlex.join(petsc_options)}".strip()
    return table


def resolve(table, section, key, folder):
    """Make a file named in the config absolute."""
    value = table.get(section, {}).get(key) if isinstance(table.get(section), dict) else None
    if isinstance(value, str) and "\0" in value:
        raise UsageError(f"{section}.{key} = {value!r}: a file name has no null character")
    if isinstance(value, str) and value and (":" in value or key in ("file", "initial")):
        file, colon, rest = value.rpartition(":") if key == "name" else (value, "", "")
        table[section][key] = str((folder / file).resolve()) + colon + rest


def override(table, overrides):
    """Apply "section.key=value" settings; a value is TOML where it parses, else a string."""
    for setting in overrides:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or len(keys) < 2 or not all(keys):
            raise UsageError(f"--set {setting}: needs the form section.key=value")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        target = table
        for key in keys[:-1]:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise UsageError(f"--set {setting}: {key} is no table")
        target[keys[-1]] = value
        if tuple(keys) in FILE_KEYS:
            resolve(table, keys[0], keys[1], Path.cwd())
    return table


def validate(table, source=None):
    """The Config of a table;

    ConfigError with every mistake, its key path, what is allowed and the nearest right name.
    """
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        raise ConfigError([explain(item) for item in error.errors()], source) from None


def explain(item: Any, model: type[BaseModel] | None = None, prefix: tuple[str, ...] = ()) -> str:
    """One line for one of pydantic's errors: the key's path, what is wrong, what is allowed.

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
    """Read and validate a config file."""
    return validate(read(path, overrides, petsc_options), path)
