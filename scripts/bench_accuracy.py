#!/usr/bin/env python
"""Accuracy of neural energy descent beside SGD, Adam and L-BFGS at equal wall-clock: writes docs/benchmarks.md and .png.

Run inside the environment: `scripts/bench_accuracy.py [--only GLOB] [--budget MINUTES]`. Cases run one at a time, seed 0 of everything first, each
as the `nedhpc run` command that the page shows. Results are kept in docs/benchmarks.json by case, machine and a hash of the config with its
overrides, and are not measured again; `--again` does. `--render` writes the page from what is there. Nothing is shown that was not measured.
"""

import argparse
import fnmatch
import hashlib
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from nedhpc import config
from nedhpc.files import provenance
from nedhpc.files.series import read as read_series

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LEVELS = (1e-3, 1e-4, 1e-5, 1e-6)
SECONDS, AIM_SECONDS = 60, 300
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
# The baselines start where training usually does.
OVERRIDES |= {
    name: [f"stepper.type={name}", "flow.metric=euclidean", "run.start=random"]
    for name in ("sgd", "adam", "lbfgs")
}


@dataclass(frozen=True)
class Case:
    """A problem of the comparison: each method runs `config` with its own settings."""

    name: str
    problem: str
    network: str
    config: str
    published: str = "none known"
    """Best published relative L2, its time, who and on what."""
    kind: str = "pde"
    """pde, regression or classification."""
    methods: tuple[str, ...] = tuple(METHODS)


@dataclass(frozen=True)
class Aim:
    """A row of the aim table: NED alone, as good as it gets in 5 minutes."""

    name: str
    case: str
    config: str
    least: float
    aim: float
    within: tuple[float, float] | None = None
    """(error, seconds) that the aim asks for too."""
    stop: float = 1e-30
    """Relative L2 at which the run stops: beyond the aim, where more time would show nothing."""


WITHOUT_METRIC = ("ned", "sgd", "adam", "lbfgs")  # P > N: the dual form is for metric euclidean
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


@dataclass(frozen=True)
class Entry:
    """One run: its name table/case/method/seed, its config and all overrides."""

    name: str
    config: str
    overrides: list

    @property
    def command(self):
        return shlex.join(
            [
                "nedhpc",
                "run",
                self.config,
                *(part for setting in self.overrides for part in ("--set", setting)),
            ]
        )

    @property
    def key(self):
        """Of the config with its overrides: a default that is not written in it does not change it."""
        table = config.read(ROOT / self.config, self.overrides)
        return hashlib.sha256(json.dumps(table, sort_keys=True, default=str).encode()).hexdigest()[
            :16
        ]


def entry(table, name, path, method, settings, seconds, seed, stop=1e-30):
    limits = [
        f"run.seed={seed}",
        f"run.max_wall_time={seconds:g}",
        "run.max_steps=2000000000",
        f"run.target_relative_l2={stop:g}",
    ]
    return Entry(f"{table}/{name}/{method}/{seed}", path, [*settings, *limits])


def compared(case, method, seed, seconds, tuned):
    settings = []
    for key, value in tuned.get(Path(case.config).stem, {}).get(method, {}).items():
        if key.endswith(".schedule_steps"):  # the steps of a trial's seconds
            value = round(value * seconds / tuned["trial_seconds"])
        settings.append(f"{key}={json.dumps(value)}")
    return entry(
        "compare", case.name, case.config, method, OVERRIDES[method] + settings, seconds, seed
    )


def aimed(aim, seed, seconds):
    return entry("aim", aim.name, aim.config, "ned", [], seconds, seed, aim.stop)


def entries(args):
    """All runs: the comparison and the aims at seed 0, then at the other seeds."""
    for seed in range(args.seeds):
        yield from (
            compared(case, method, seed, args.seconds, args.tuned)
            for case in CASES
            for method in case.methods
        )
        yield from (aimed(aim, seed, args.aim_seconds) for aim in AIMS)


def cores():
    return len(os.sched_getaffinity(0))


def machine():
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{models[0] if models else platform.machine()}, {cores()} cores"


def measure(run, revision):
    """The result of one run, of the code at `revision`, as a table, or None where nedhpc refuses the config."""
    env = os.environ | {
        "OMP_NUM_THREADS": str(cores()),
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }
    nedhpc = [sys.executable, "-m", "nedhpc"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        sets = [part for setting in run.overrides for part in ("--set", setting)]
        done = subprocess.run(
            [*nedhpc, "run", run.config, *sets, "--out", out],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
        )
        found = subprocess.run(
            [*nedhpc, "info", out, "--json"], cwd=ROOT, env=env, capture_output=True, text=True
        )
        if done.returncode == 2 or found.returncode:
            print(
                f"  no result (exit code {done.returncode}): {done.stderr.strip()[-600:]}",
                flush=True,
            )
            return None
        facts, columns = json.loads(found.stdout), read_series(out / "series.h5")
    t, errors = columns["wall_time"], columns["relative_l2"]
    if "accuracy" in facts["metrics"]:
        errors = 1 - columns["metrics/accuracy"]
    times = {
        f"{level:.0e}": next((round(float(s), 2) for s, e in zip(t, errors) if e <= level), None)
        for level in LEVELS
    }
    kept = sorted({round(k) for k in spaced(len(t))})
    result = {
        name: facts[name]
        for name in (
            "relative_l2",
            "energy",
            "status",
            "message",
            "step",
            "num_parameters",
            "num_points",
            "method",
            "seconds_per_step",
            "peak_memory_mb",
        )
    }
    return result | {
        "seconds": round(facts["wall_time"], 2),
        "accuracy": facts["metrics"].get("accuracy"),
        "seconds_to": times,
        "curve": [
            [float(f"{t[k]:.4g}"), float(f"{errors[k]:.3g}")]
            for k in kept
            if math.isfinite(errors[k])
        ],
        "command": run.command,
        "git": revision,
        "utc": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
    }


def spaced(count, most=80):
    """At most about `most` indices below count, denser at the start."""
    return (
        [(count - 1) * (k / (most - 1)) ** 2 for k in range(most)] if count > most else range(count)
    )


def save(path, results):
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, path)


def run_all(args, results, path):
    """Measure what is not there yet; returns how many entries gave no result."""
    started, here, missing = time.monotonic(), results.setdefault(machine(), {}), 0
    revision = provenance._git()  # before the results are written, which are in the repository too
    for run in entries(args):
        if not fnmatch.fnmatch(run.name, args.only):
            continue
        if not (ROOT / run.config).is_file():
            print(f"{run.name}: there is no {run.config}", flush=True)
            missing += 1
            continue
        known = here.get(run.name)
        if known and known["key"] == run.key and not args.again:
            continue
        if time.monotonic() - started > 60 * args.budget:
            print("the budget is used up; the rest waits for the next call", flush=True)
            break
        print(f"{run.name}: {run.command}", flush=True)
        found = measure(run, revision)
        if found is None:
            missing += 1
            continue
        here[run.name] = found | {"key": run.key, "torch": version("torch")}
        save(path, results)
        accuracy = "" if found["accuracy"] is None else f", accuracy {found['accuracy']:.4f}"
        print(
            f"  {shown(found['relative_l2'])}{accuracy} in {found['seconds']:.1f} s, {found['step']} steps, {found['status']}",
            flush=True,
        )
    return missing


# The page.


def shown(value, form="{:.1e}"):
    return "-" if value is None else form.format(value)


class Measured:
    """Results of one machine, those whose key is still that of their entry."""

    def __init__(self, args, results):
        self.args, self.results = args, results

    def of(self, make):
        """Results by seed of make(seed)."""
        runs = [make(seed) for seed in range(self.args.seeds)]
        found = [self.results.get(run.name) for run in runs if (ROOT / run.config).is_file()]
        return [r for r, run in zip(found, runs) if r and r["key"] == run.key]

    def compared(self, case, method):
        return (
            self.of(lambda seed: compared(case, method, seed, self.args.seconds, self.args.tuned))
            if method in case.methods
            else []
        )

    def aimed(self, aim):
        return self.of(lambda seed: aimed(aim, seed, self.args.aim_seconds))


def median(found, name):
    values = [r[name] for r in found if r[name] is not None]
    return statistics.median(values) if values else None


def score(found):
    """(median to rank by, smaller is better; text) of the results of a cell."""
    if not found:
        return None, "-"
    name, form = (
        ("accuracy", "{:.4f}") if found[0]["accuracy"] is not None else ("relative_l2", "{:.1e}")
    )
    values = [r[name] for r in found if r[name] is not None]
    if not values:
        return None, "-"
    middle = statistics.median(values)
    spread = (
        f" ({form.format(min(values))} .. {form.format(max(values))})" if len(values) > 1 else ""
    )
    return (-middle if name == "accuracy" else middle), form.format(middle) + spread


def comparison(measured):
    lines = [
        "| problem | network | P | NED's points | "
        + " | ".join(METHODS.values())
        + " | best published |",
        "|---" * (5 + len(METHODS)) + "|",
    ]
    for case in CASES:
        cells = {method: score(measured.compared(case, method)) for method in METHODS}
        best = min((value for value, _ in cells.values() if value is not None), default=None)
        texts = [
            "n/a"
            if method not in case.methods
            else f"**{text}**"
            if value is not None and value == best
            else text
            for method, (value, text) in cells.items()
        ]
        ours = measured.compared(case, "ned")
        facts = [
            shown(ours[0][name] if ours else None, "{:,}")
            for name in ("num_parameters", "num_points")
        ]
        lines.append(
            f"| {case.problem} | {case.network} | {' | '.join(facts)} | {' | '.join(texts)} | {case.published} |"
        )
    return lines


def aim_table(measured):
    lines = [
        "| case | at least | aim | relative L2 | seconds | seconds to 1e-6 | seeds | at least | aim |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for aim in AIMS:
        found = measured.aimed(aim)
        error, seconds = median(found, "relative_l2"), median(found, "seconds")
        to = [r["seconds_to"]["1e-06"] for r in found]
        fast = statistics.median([math.inf if s is None else s for s in to]) if to else None
        wanted = f"{aim.aim:.1e}" + (
            f", {aim.within[0]:.0e} within {aim.within[1]:g} s" if aim.within else ""
        )
        met = (
            error is not None and error <= aim.aim and (aim.within is None or fast <= aim.within[1])
        )
        lines.append(
            f"| {aim.case} | {aim.least:.0e} | {wanted} | {score(found)[1]} | {shown(seconds, '{:.0f}')} | "
            f"{'-' if fast is None or math.isinf(fast) else f'{fast:.1f}'} | {len(found)} | "
            f"{verdict(error is not None, error is not None and error <= aim.least)} | {verdict(error is not None, met)} |"
        )
    return lines


def verdict(known, met):
    return "-" if not known else "met" if met else "**not met**"


def ratios(measured):
    """NED over the best of the baselines on each PDE, and accuracy against Adam on the classification."""
    lines = [
        "| case | best NED | best baseline | ratio | at least 100 | aim 1000 |",
        "|---|---|---|---|---|---|",
    ]
    for case in (case for case in CASES if case.kind == "pde"):
        errors = {
            method: median(measured.compared(case, method), "relative_l2")
            for method in case.methods
        }
        ours = min(((e, m) for m, e in errors.items() if e is not None and m in NED), default=None)
        theirs = min(
            ((e, m) for m, e in errors.items() if e is not None and m not in NED), default=None
        )
        ratio = theirs[0] / ours[0] if ours and theirs else None
        texts = [f"{best[0]:.1e} ({METHODS[best[1]]})" if best else "-" for best in (ours, theirs)]
        lines.append(
            f"| {case.problem}, {case.network} | {' | '.join(texts)} | {shown(ratio, '{:.3g}')} | "
            f"{verdict(ratio is not None, ratio is not None and ratio >= 100)} | {verdict(ratio is not None, ratio is not None and ratio >= 1000)} |"
        )
    return lines


def classification(measured):
    """Accuracy of NED and of Adam, and the seconds each took to Adam's final accuracy."""
    lines = [
        "| case | NED | Adam | s to Adam's: NED | Adam | not below Adam's, in less time |",
        "|---|---|---|---|---|---|",
    ]
    for case in (case for case in CASES if case.kind == "classification"):
        ours, adam = measured.compared(case, "ned"), measured.compared(case, "adam")
        values = median(ours, "accuracy"), median(adam, "accuracy")
        if None in values:
            lines.append(
                f"| {case.problem}, {case.network} | {' | '.join(shown(value, '{:.4f}') for value in values)} | - | - | - |"
            )
            continue
        times = [
            statistics.median([first_time(r, 1 - values[1]) for r in found])
            for found in (ours, adam)
        ]
        met = values[0] >= values[1] and times[0] < times[1]
        lines.append(
            f"| {case.problem}, {case.network} | {values[0]:.4f} | {values[1]:.4f} | "
            f"{' | '.join('-' if math.isinf(t) else f'{t:.1f}' for t in times)} | {verdict(True, met)} |"
        )
    return lines


def first_time(result, level):
    """Seconds until the curve is at `level` or below, to rounding; infinite where it never is."""
    return next((t for t, error in result["curve"] if error <= level + 1e-3 * abs(level)), math.inf)


def details(measured):
    lines = [
        "| problem | method | points | median | range | seeds | seconds | steps | "
        + " | ".join(f"s to {level:.0e}" for level in LEVELS)
        + " |",
        "|---" * (8 + len(LEVELS)) + "|",
    ]
    for case in CASES:
        for method in case.methods:
            found = measured.compared(case, method)
            times = []
            for level in LEVELS:
                reached = [r["seconds_to"][f"{level:.0e}"] for r in found]
                middle = (
                    statistics.median([math.inf if s is None else s for s in reached])
                    if reached
                    else math.inf
                )
                times.append("-" if math.isinf(middle) else f"{middle:.1f}")
            middle, _, spread = score(found)[1].partition(" ")
            lines.append(
                f"| {case.problem}, {case.network} | {METHODS[method]} | {shown(median(found, 'num_points'), '{:,.0f}')} | "
                f"{middle} | {spread.strip('()') or '-'} | {len(found)} | "
                f"{shown(median(found, 'seconds'), '{:.0f}')} | {shown(median(found, 'step'), '{:.0f}')} | {' | '.join(times)} |"
            )
    return lines


def commands(measured):
    runs = [
        found[0]["command"]
        for case in CASES
        for method in case.methods
        if (found := measured.compared(case, method))
    ]
    return runs + [found[0]["command"] for aim in AIMS if (found := measured.aimed(aim))]


def page(measured, where):
    versions = sorted({r["torch"] for r in measured.results.values()}) or [version("torch")]
    revisions = ", ".join(sorted({r["git"] for r in measured.results.values() if r["git"]})) or "-"
    return "\n".join(
        [
            "# Accuracy at equal wall-clock",
            "",
            f"Machine: {where}; torch {', '.join(versions)}, threads: one a core, float64, no GPU. Revisions measured: {revisions}.",
            "",
            "    scripts/bench_accuracy.py            # measure what is missing, then write this page",
            "    scripts/tune_baselines.py            # the baselines' settings, in docs/baselines.json",
            "    scripts/bench_accuracy.py --render   # write this page only",
            "",
            f"Every method has the same problem, network and {measured.args.seconds:g} s, its start included. NED runs the config as it is; the baselines start from",
            "random parameters, with points per step as tuned. Values are relative L2 errors against the exact solution on a fixed evaluation set (test accuracy for",
            "digits): the median of the seeds measured, with their range; the best of a row is bold. NED's points are those of a whole draw (where a config sets",
            "`sampling.grow_draws` the first have fewer). NED is pseudo-transient continuation on the flow, in metric l2 (the paper's), energy, and euclidean (no name",
            "after it, the default). A dash was not measured yet; n/a: more parameters than rows, where the metrics other than euclidean are not formed.",
            "Published figures are the best run of a sweep, at their own time and hardware.",
            "",
            *comparison(measured),
            "",
            "![relative L2 error against wall time, seed 0](benchmarks.png)",
            "",
            f"## What {measured.args.aim_seconds / 60:g} minutes reach",
            "",
            *aim_table(measured),
            "",
            "## Over the best of SGD, Adam and L-BFGS",
            "",
            *ratios(measured),
            "",
            *classification(measured),
            "",
            "## In detail",
            "",
            "Seconds and steps are medians; `s to` is the wall time to an error, where the median run reached it.",
            "",
            *details(measured),
            "",
            "## Commands, seed 0",
            "",
            *(f"    {command}" for command in commands(measured)),
            "",
        ]
    )


def figure(measured, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = 4
    rows = -(-len(CASES) // columns)
    drawing, axes = plt.subplots(
        rows, columns, figsize=(3.9 * columns, 3.1 * rows), layout="constrained", squeeze=False
    )
    colours = dict(zip(METHODS, ("#1b6ca8", "#33a1c9", "#0b3c5d", "#999999", "#e08214", "#b2182b")))
    lines = {}
    for case, axis in zip(CASES, axes.flat):
        for method in case.methods:
            found = [r for r in measured.compared(case, method) if r["curve"]][:1]
            for result in found:
                t, errors = zip(*result["curve"])
                (lines[method],) = axis.loglog(
                    t,
                    errors,
                    color=colours[method],
                    lw=1.8 if method in NED else 1.2,
                    ls="-" if method in NED else "--",
                    label=METHODS[method],
                )
        axis.set_title(f"{case.problem}\n{case.network}", fontsize=9)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
        axis.xaxis.set_minor_formatter("")
        axis.yaxis.set_minor_formatter("")
        axis.set_xlim(0.1, 1.2 * measured.args.seconds)
        if axis.lines and axis.get_ylim()[0] > 0.1:
            axis.set_ylim(bottom=0.1)
        if not axis.lines:
            axis.text(
                0.5,
                0.5,
                "not measured yet",
                ha="center",
                va="center",
                transform=axis.transAxes,
                color="grey",
            )
            axis.set(xticks=[], yticks=[])
    spare = list(axes.flat)[len(CASES) :]
    for axis in spare:
        axis.axis("off")
    if lines:
        ordered = [lines[method] for method in METHODS if method in lines]
        (spare[0] if spare else drawing).legend(
            handles=ordered, loc="center" if spare else "outside lower center", fontsize=10
        )
    drawing.supxlabel("wall time [s]", fontsize=10)
    drawing.supylabel("relative L2 error (digits: share of wrong answers)", fontsize=10)
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        default="*",
        metavar="GLOB",
        help="entries by name, table/case/method/seed: 'compare/poisson_2d/*', 'aim/*', '*/adam/0'",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of an entry of the comparison"
    )
    parser.add_argument("--aim-seconds", type=float, default=AIM_SECONDS)
    parser.add_argument(
        "--budget",
        type=float,
        default=math.inf,
        metavar="MINUTES",
        help="start no new entry after so long",
    )
    parser.add_argument(
        "--again", action="store_true", help="measure entries that are there already"
    )
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--list", action="store_true", help="only print the entries' commands")
    parser.add_argument(
        "--docs",
        type=Path,
        default=DOCS,
        help="folder of benchmarks.{json,md,png} and baselines.json",
    )
    args = parser.parse_args(argv)
    path, baselines = args.docs / "benchmarks.json", args.docs / "baselines.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    args.tuned = json.loads(baselines.read_text()) if baselines.exists() else {}
    if args.list:
        print(
            "\n".join(
                f"{run.name}: {run.command}"
                for run in entries(args)
                if fnmatch.fnmatch(run.name, args.only)
            )
        )
        return 0
    missing = 0 if args.render else run_all(args, results, path)
    where = machine() if results.get(machine()) else next(iter(results), machine())
    measured = Measured(args, results.get(where, {}))
    (args.docs / "benchmarks.md").write_text(page(measured, where))
    figure(measured, args.docs / "benchmarks.png")
    print(args.docs / "benchmarks.md")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
