"""The command tune: settings of a config that give the least error, found by optuna.

The folder of a search holds `trials.log`, optuna's journal, and a run folder for each trial. Every
process that is given the same command takes part in the same search, now or later: so a search is
resumed by its own command, and a job array shares its trials. If all settings are lists, each
combination is tried once; otherwise optuna's tree-structured Parzen estimator proposes the next
trial (Bergstra et al., NeurIPS 2011).
"""

import datetime
import json
import logging
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nedhpc import config as configs
from nedhpc import config_text
from nedhpc.errors import NedError, UsageError

log = logging.getLogger("nedhpc")

LAST_SHARE = 0.2
"""The value of a trial is the median over this last share of its wall time.

At a constant learning rate the error of a single step is random.
"""
LOG_RATIO = 10.0
"""A range whose ends differ by this factor is searched in the logarithm."""
START_SECONDS = 60.0
"""A trial that nobody works on after this time has lost its process."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high, both included; integers if both are."""

    low: float
    high: float

    def suggest(self, trial, key: str) -> str:
        """A value as TOML. Local."""
        is_log = self.low > 0 and self.high >= LOG_RATIO * self.low
        if isinstance(self.low, int) and isinstance(self.high, int):
            return str(trial.suggest_int(key, self.low, self.high, log=is_log))
        return repr(trial.suggest_float(key, self.low, self.high, log=is_log))


@dataclass(frozen=True, slots=True)
class Choice:
    """Some values, each as TOML."""

    texts: tuple[str, ...]

    def suggest(self, trial, key: str) -> str:
        """A value as TOML. Local."""
        return trial.suggest_categorical(key, self.texts)


@dataclass(slots=True)
class Search:
    """A search for the best settings of a config.

    Args:
        config: TOML file.
        over: what to search, by config key.
        out: folder of the search.
        overrides: "section.key=value" settings of all trials.
        measure: column of series.h5; None: relative_l2, or held_out_energy without a reference.
        is_largest: True if a large value is good.
        launch: words before the command of a trial, e.g. ("mpirun", "-n", "4").
        seed: seed of the proposals.
    """

    config: Path
    over: Mapping[str, Range | Choice]
    out: Path
    overrides: Sequence[str] = ()
    measure: str | None = None
    is_largest: bool = False
    launch: Sequence[str] = ()
    seed: int = 0
    study: Any = field(init=False)

    def __post_init__(self):
        optuna = _optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        configs.validate(configs.read(self.config, self.overrides), self.config)
        self.out.mkdir(parents=True, exist_ok=True)
        self.study = optuna.create_study(
            study_name="nedhpc",
            storage=JournalStorage(JournalFileBackend(str(self.out / "trials.log"))),
            direction="maximize" if self.is_largest else "minimize",
            load_if_exists=True,
        )
        self.study.sampler = self._sampler()
        asked = self.study.user_attrs.get("over")
        mine = {key: str(what) for key, what in self.over.items()}
        if asked not in (None, mine):
            raise UsageError(f"{self.out} holds another search, over {asked}; use another --out")
        self.study.set_user_attr("over", mine)

    @property
    def num_combinations(self) -> float:
        """Number of different trials; infinity if a setting has a range."""
        is_grid = all(isinstance(what, Choice) for what in self.over.values())
        counts = [len(what.texts) for what in self.over.values() if isinstance(what, Choice)]
        return math.prod(counts) if is_grid else math.inf

    def run(self, num_trials: int | None = None) -> list:
        """Make trials until there are so many in all, and return them, the best first.

        Args:
            num_trials: number of trials of the whole search; None: all combinations.

        Raises:
            UsageError: a trial's config is not valid, or there is no end.
            NedError: a trial was stopped by a signal.
        """
        limit = min(self.num_combinations, math.inf if num_trials is None else num_trials)
        if math.isinf(limit):
            raise UsageError("a search over a range needs a number of trials: --trials 20")
        self._forget_lost()
        while len(self.finished()) < limit:
            self.study.optimize(self._value, n_trials=1)
        return self.finished()

    def finished(self) -> list:
        """The finished trials, the best first."""
        state = _optuna().trial.TrialState.COMPLETE
        found = self.study.get_trials(states=(state,), deepcopy=False)
        sign = -1 if self.is_largest else 1
        return sorted(found, key=lambda trial: sign * trial.value)

    def _sampler(self):
        samplers = _optuna().samplers
        task = int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))
        words = [self.seed, len(self.study.get_trials(deepcopy=False)), task]
        seed = int(np.random.SeedSequence(words).generate_state(1)[0])
        if math.isfinite(self.num_combinations):
            texts = {k: what.texts for k, what in self.over.items() if isinstance(what, Choice)}
            return samplers.GridSampler(texts, seed=seed)
        return samplers.TPESampler(seed=seed, constant_liar=True)

    def _forget_lost(self) -> None:
        """Mark trials whose process was killed, so that their settings may be tried again."""
        from nedhpc.files.lock import is_held

        states = _optuna().trial.TrialState
        for trial in self.study.get_trials(states=(states.RUNNING,)):
            age = (datetime.datetime.now() - trial.datetime_start).total_seconds()
            if age > START_SECONDS and not is_held(self._folder(trial.number)):
                self.study.tell(trial.number, state=states.FAIL)

    def _folder(self, number: int) -> Path:
        return self.out / f"trial-{number:04d}"

    def _value(self, trial) -> float:
        """Run a trial and measure it; the worst value if the run failed."""
        texts = {key: what.suggest(trial, key) for key, what in self.over.items()}
        settings = [f"--set={key}={text}" for key, text in texts.items()]
        given = [f"--set={setting}" for setting in self.overrides]
        out = self._folder(trial.number)
        words = [*self.launch, sys.executable, "-P", "-m", "nedhpc", "run", str(self.config)]
        done = subprocess.run(
            [*words, "--out", str(out), *given, *settings], capture_output=True, text=True
        )
        if done.returncode == 2:
            raise UsageError(f"trial {trial.number} ({texts}): {done.stderr.strip()}")
        if done.returncode in (75, -2, -15):
            raise NedError(f"trial {trial.number} was stopped; the same command continues")
        worst = -math.inf if self.is_largest else math.inf
        value, step = worst, 0
        if done.returncode == 0:
            value, step = measured(out, self.measure)
        trial.set_user_attr("settings", {key: _plain(text) for key, text in texts.items()})
        trial.set_user_attr("step", step)
        log.info("trial %d: %s: %.3e after %d steps", trial.number, texts, value, step)
        return value if math.isfinite(value) else worst


def measured(run_dir: Path, measure: str | None) -> tuple[float, int]:
    """(median of a column over the last share of the wall time, last step) of a run. Local.

    Raises:
        UsageError: there is no such column.
    """
    from nedhpc.files.series import read

    columns = read(run_dir / "series.h5")
    if measure is None:
        known = np.isfinite(columns["relative_l2"]).any()
        measure = "relative_l2" if known else "held_out_energy"
    if measure not in columns:
        raise UsageError(f"--measure {measure}: series.h5 has {', '.join(sorted(columns))}")
    wall = columns["wall_time"]
    late = wall >= wall[0] + (1 - LAST_SHARE) * (wall[-1] - wall[0])
    return float(np.median(columns[measure][late])), int(columns["step"][-1])


def parse(setting: str) -> tuple[str, Range | Choice]:
    """The key and the range or choice of "section.key=1e-4..1e-1" or "section.key=a,b". Local.

    Raises:
        UsageError: it has another form.
    """
    key, equals, text = setting.partition("=")
    if not equals or "." not in key or not text:
        raise UsageError(
            f"--over {setting}: needs section.key=low..high or section.key=value,value"
        )
    low, dots, high = text.partition("..")
    if dots:
        ends = [_plain(low), _plain(high)]
        if not all(type(end) in (int, float) for end in ends) or not ends[0] < ends[1]:
            raise UsageError(f"--over {setting}: low..high needs two numbers, low < high")
        return key, Range(*ends)
    try:
        values = config_text.parse(f"x = [{text}]")["x"]
    except ValueError:
        values = text.split(",")
    return key, Choice(tuple(json.dumps(value) for value in values))


def _plain(text: str) -> Any:
    """The value of a text that is TOML, else the text."""
    try:
        return config_text.parse(f"x = {text}")["x"]
    except ValueError:
        return text


def _optuna():
    try:
        import optuna
    except ImportError:
        raise UsageError(
            "nedhpc tune needs optuna: pip install 'nedhpc[tune]' or `scripts/setup tune`"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def tune(args) -> None:
    """Search, print the trials, and write the config with the best settings to OUT/best.toml."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    search = Search(
        args.config,
        dict(parse(setting) for setting in args.over),
        args.out or Path("runs", f"{args.config.stem}-tune").absolute(),
        args.overrides,
        args.measure,
        args.maximise,
        shlex.split(args.launch),
        args.seed,
    )
    trials = search.run(args.trials)
    for trial in trials:
        found = "  ".join(f"{key}={v}" for key, v in trial.user_attrs["settings"].items())
        print(f"{trial.value:.3e}  step {trial.user_attrs['step']}  {found}")
    if not math.isfinite(trials[0].value):
        raise NedError(f"every trial failed: see `nedhpc info {search.out}/trial-0000`")
    best = [f"{key}={json.dumps(v)}" for key, v in trials[0].user_attrs["settings"].items()]
    table = configs.read(args.config, [*args.overrides, *best])
    try:
        (search.out / "best.toml").write_text(config_text.write(table))
    except OSError as error:
        raise UsageError(f"cannot write {search.out}/best.toml: {error.strerror}") from None
    print(f"{search.out}/best.toml")
