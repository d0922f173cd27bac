"""The typed config: TOML in, all its errors at once, TOML out. Imports neither torch nor MPI."""

import datetime
import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from nedhpc.errors import ConfigError, UsageError

DURATION = re.compile(r"(?:(\d+)-)?(\d+):([0-5]?\d):([0-5]?\d(?:\.\d*)?)$")


def seconds(value):
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
    """[problem]: a catalogue name or "file.py:Class"; the other keys are options of that problem's constructor."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str


class Network(Section):
    name: str | None = None
    """"file.py:Class" of a torch module, instead of the multilayer perceptron."""
    hidden: list[Count] = [64]
    activation: Literal["tanh", "sin", "softplus", "gelu"] = "tanh"
    init: Literal["glorot", "uniform"] = "glorot"
    """Normal weights and zero biases, or weights and biases uniform in +- 1 / sqrt(fan in); times init_scale."""
    init_scale: Positive = 1.0


class ResidualTable(Section):
    """Rule `residual`: a point of the pool is chosen in proportion to |r|^power / mean |r|^power + floor."""

    power: Positive = 1.0
    floor: Positive = 1.0
    pool: Annotated[int, Field(ge=2)] = 10
    """Points to choose from, for each point chosen."""


class Sampling(Section):
    interior: Count | None = None
    boundary: Count | None = None
    initial: Count | None = None
    data: Count | None = None
    """Rows of a draw; all of the data set if not given."""
    rule: Literal["uniform", "sobol", "grid", "residual"] = "sobol"
    """`residual` chooses the interior's points where the residual is large."""
    resample_every: Annotated[int, Field(ge=0)] = 0
    """Steps between draws; 0: never."""
    grow_draws: Annotated[int, Field(ge=0)] = 0
    """Draws over which a draw's points grow linearly from a quarter of their number to all; 0: all from the first."""
    residual: ResidualTable = ResidualTable()

    @model_validator(mode="after")
    def _grid_is_fixed(self):
        if self.rule == "grid" and self.resample_every and self.data is None:
            raise ValueError(
                "resample_every > 0 does nothing with rule = 'grid', whose points are fixed; use 'uniform' or 'sobol'"
            )
        if self.rule == "residual" and not self.resample_every:
            raise ValueError(
                "rule = 'residual' chooses anew at each draw and needs resample_every > 0, e.g. 20"
            )
        if self.grow_draws and not self.resample_every:
            raise ValueError(
                "grow_draws > 0 grows the sample from draw to draw and needs resample_every > 0, e.g. 1"
            )
        if self.grow_draws and self.rule == "grid":
            raise ValueError(
                "grow_draws > 0 takes numbers of points that make no grid; use rule 'uniform' or 'sobol'"
            )
        return self


class FlowTable(Section):
    metric: Literal["l2", "h1", "energy", "euclidean"] = "euclidean"
    metric_eps: Positive = 1e-6
    """Tikhonov parameter of the metric, M = B^T B + eps I; metrics other than euclidean."""


class PtcTable(Section):
    factor: Annotated[float, Field(gt=1)] = 4.0
    """Ratio of neighbouring trial time steps."""
    max_trials: Count = 6
    """Most powers of `factor` that dt may change by in one step."""
    corrections: Annotated[int, Field(ge=0)] = 6
    """Most simplified Newton corrections of a trial step, each for one more residual; 0: none."""
    max_dt: Positive = 1e24
    """Longest time step: 1 / max_dt is the least damping. Fresh points each step, fewer than parameters, want one short of rounding."""
    slack: Annotated[float, Field(ge=1)] = 2.0
    """The longest step is taken whose energy is below `slack` times the least energy of the trials."""


class SpringTable(Section):
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    damping: Positive = 1.0
    """Tikhonov parameter lambda; with search the first one."""
    search: bool = True
    """Search lambda for the least energy on the step's sample; else it stays."""
    max_norm: Positive = 100.0
    """Longest direction in the metric; a longer one is clipped for the step. The step is dt times it."""


class Schedule(Section):
    """Learning rate of a first-order stepper over its steps."""

    schedule: Literal["constant", "exponential", "cosine", "one_cycle"] = "constant"
    schedule_steps: Count = 2000
    """Steps that the schedule takes; the learning rate keeps its last value after them."""
    schedule_end: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Last learning rate, in units of lr."""


class SgdTable(Schedule):
    lr: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_has_momentum(self):
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov = true needs momentum > 0")
        return self


class AdamTable(Schedule):
    lr: Positive = 1e-3
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )


class LbfgsTable(Schedule):
    lr: Positive = 1.0
    history: Count = 50
    """Pairs of steps and gradient differences that are kept."""
    iterations: Count = 20
    """L-BFGS iterations of a step, all on the step's sample."""
    line_search: Literal["strong_wolfe", "none"] = "strong_wolfe"


class Stepper(Section):
    type: Literal[
        "ptc",
        "spring",
        "sgd",
        "adam",
        "lbfgs",
        "euler",
        "rk",
        "ssp",
        "beuler",
        "theta",
        "cn",
        "bdf",
        "arkimex",
        "rosw",
        "pseudo",
    ] = "ptc"
    dt: Positive = 1.0
    """First (or fixed) time step; for ptc the first pseudo-time step; sgd, adam and lbfgs have their lr. A PETSc type's step that leads to
    no finite energy is taken again with a quarter of it, from the last state whose energy is known."""
    petsc_options: str = ""
    """PETSc options of the time stepper, as on a command line."""
    ptc: PtcTable = PtcTable()
    spring: SpringTable = SpringTable()
    sgd: SgdTable = SgdTable()
    adam: AdamTable = AdamTable()
    lbfgs: LbfgsTable = LbfgsTable()


class KrylovTable(Section):
    rank: Count = 100
    """Columns of the preconditioner's low-rank approximation."""
    rtol: Annotated[float, Field(gt=0, lt=1)] = 1e-8
    """The iteration ends where the residual, or LSQR's |A^T r| beside |A| |r|, has fallen by this factor."""
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
    problem: ProblemTable
    network: Network = Network()
    sampling: Sampling = Sampling()
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


def read(path, overrides=(), petsc_options=()):
    """The config table of a TOML file with `--set` overrides applied; paths in it become relative to the file's folder."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read the config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    for section, key in (
        ("problem", "name"),
        ("network", "name"),
        ("problem", "file"),
        ("run", "initial"),
    ):
        resolve(table, section, key, path.parent)
    table = override(table, overrides)
    if petsc_options:
        stepper = table.setdefault("stepper", {})
        if isinstance(stepper, dict):
            stepper["petsc_options"] = " ".join(
                [str(stepper.get("petsc_options", "")), *petsc_options]
            ).strip()
    return table


def resolve(table, section, key, folder):
    """Make a file named in the config absolute."""
    value = table.get(section, {}).get(key) if isinstance(table.get(section), dict) else None
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
        if keys in (
            ["problem", "name"],
            ["network", "name"],
            ["problem", "file"],
            ["run", "initial"],
        ):
            resolve(table, *keys, Path.cwd())
    return table


def validate(table, source=None):
    """The Config of a table; ConfigError with every mistake, its key path, what is allowed and the nearest right name."""
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        raise ConfigError([_explain(item, table) for item in error.errors()], source) from None


def _explain(item, table):
    path = ".".join(str(key) for key in item["loc"])
    value = item["input"]
    if item["type"] == "extra_forbidden":
        model = Config
        for key in item["loc"][:-1]:
            model = model.model_fields[key].annotation
        names = list(model.model_fields)
        close = difflib.get_close_matches(str(item["loc"][-1]), names, 1)
        return (
            f"{path}: unknown key"
            + (f"; did you mean {close[0]!r}?" if close else "")
            + f"; allowed: {', '.join(names)}"
        )
    if item["type"] == "missing":
        return f"{path}: missing"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if item["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        close = difflib.get_close_matches(str(value), allowed, 1)
        return (
            f"{path} = {value!r}: unknown value"
            + (f"; did you mean {close[0]!r}?" if close else "")
            + f"; allowed: {', '.join(allowed)}"
        )
    if isinstance(value, dict):
        return f"{path}: {message}"
    return f"{path} = {value!r}: {'must be ' if item['msg'].startswith('Input should be ') else ''}{message}"


def load(path, overrides=(), petsc_options=()):
    """Read and validate a config file."""
    return validate(read(path, overrides, petsc_options), path)
