#!/usr/bin/env python
"""Compare Neural Energy Descent (NED) with SGD, Adam and L-BFGS at equal wall time.

Run inside the environment: `scripts/bench_accuracy.py [--only GLOB] [--budget MINUTES]`. It writes
docs/benchmarks.md and docs/benchmarks.png. The runs are made one at a time, first all of seed 0,
each with the `nedhpc run` command that the page shows. docs/benchmarks.json keeps the results by
machine, name of the run, and a hash of the config with its overrides. A result that is already
there is not measured again; `--again` measures it again. `--render` only writes the page. The page
shows only what was measured.
"""

import argparse
import fnmatch
import hashlib
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench_cases import AIM_SECONDS, AIMS, CASES, LEVELS, OVERRIDES, SECONDS
from bench_page import figure, page, shown

from nedhpc import config
from nedhpc.files import provenance
from nedhpc.files.series import read as read_series

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Entry:
    """One run: its name table/case/method/seed, its config, and all overrides of the config."""

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
        """A hash of the config with its overrides. Defaults that neither sets do not change it."""
        table = config.read(ROOT / self.config, self.overrides)
        text = json.dumps(table, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def entry(table, name, path, method, settings, seconds, seed, stop=1e-30):
    limits = [
        f"run.seed={seed}",
        f"run.max_wall_time={seconds:g}",
        "run.max_steps=2000000000",
        f"run.target_relative_l2={stop:g}",
    ]
    return Entry(f"{table}/{name}/{method}/{seed}", path, [*settings, *limits])


def compared(case, method, seed, seconds, tuned):
    """The run of a cell of the comparison, with the tuned settings of its method."""
    settings = []
    for key, value in tuned.get(Path(case.config).stem, {}).get(method, {}).items():
        if key.endswith(".schedule_steps"):  # tuned for the wall time of a trial
            value = round(value * seconds / tuned["trial_seconds"])
        settings.append(f"{key}={json.dumps(value)}")
    return entry(
        "compare", case.name, case.config, method, OVERRIDES[method] + settings, seconds, seed
    )


def aimed(aim, seed, seconds):
    """The run of a row of the aim table."""
    return entry("aim", aim.name, aim.config, "ned", [], seconds, seed, aim.stop)


def entries(args):
    """All runs: first the comparison and the aims of seed 0, then those of the other seeds."""
    for seed in range(args.seeds):
        yield from (
            compared(case, method, seed, args.seconds, args.tuned)
            for case in CASES
            for method in case.methods
        )
        yield from (aimed(aim, seed, args.aim_seconds) for aim in AIMS)


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def machine():
    """The name under which docs/benchmarks.json keeps the results of this machine."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{models[0] if models else platform.machine()}, {cores()} cores"


KEPT = (
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
"""Facts of `nedhpc info` that a result keeps."""


def measure(run, revision):
    """Do the run and return its result as a table; None if nedhpc rejects the config.

    `revision` is the revision of the code, which the result names.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        sets = [part for setting in run.overrides for part in ("--set", setting)]
        done = nedhpc("run", run.config, *sets, "--out", out)
        found = nedhpc("info", out, "--json")
        if done.returncode == 2 or found.returncode:
            message = done.stderr.strip()[-600:]
            print(f"  no result (exit code {done.returncode}): {message}", flush=True)
            return None
        facts, columns = json.loads(found.stdout), read_series(out / "series.h5")
    times, errors = columns["wall_time"], columns["relative_l2"]
    if "accuracy" in facts["metrics"]:
        errors = 1 - columns["metrics/accuracy"]
    return {name: facts[name] for name in KEPT} | {
        "seconds": round(facts["wall_time"], 2),
        "accuracy": facts["metrics"].get("accuracy"),
        "seconds_to": {f"{level:.0e}": first_time(times, errors, level) for level in LEVELS},
        "curve": curve(times, errors),
        "command": run.command,
        "git": revision,
        "utc": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
    }


def nedhpc(*args):
    """The finished process of `nedhpc ARGS` of this checkout, which chooses its threads itself."""
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    env.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, "-P", "-m", "nedhpc", *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def first_time(times, errors, level):
    """Seconds until the error is at most `level`; None if it never is."""
    reached = (round(float(t), 2) for t, e in zip(times, errors, strict=True) if e <= level)
    return next(reached, None)


def curve(times, errors):
    """Some pairs [seconds, error], enough for a figure, without errors that are not finite."""
    return [
        [float(f"{times[k]:.4g}"), float(f"{errors[k]:.3g}")]
        for k in sorted({round(k) for k in spaced(len(times))})
        if math.isfinite(errors[k])
    ]


def spaced(count, most=80):
    """At most `most` positions from 0 to count - 1, denser at the start."""
    return (
        [(count - 1) * (k / (most - 1)) ** 2 for k in range(most)] if count > most else range(count)
    )


def save(path, results):
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, path)


def run_all(args, results, path):
    """Measure the runs that have no result yet. Returns how many runs gave no result."""
    started, here, missing = time.monotonic(), results.setdefault(machine(), {}), 0
    # Read the revision before the results are written, because they are in the repository too.
    revision = provenance.revision()
    for run in entries(args):
        if not fnmatch.fnmatch(run.name, args.only):
            continue
        if not (ROOT / run.config).is_file():
            print(f"{run.name}: the config {run.config} is missing", flush=True)
            missing += 1
            continue
        known = here.get(run.name)
        if known and known["key"] == run.key and not args.again:
            continue
        if time.monotonic() - started > 60 * args.budget:
            print(
                "the budget is used up: call the script again to measure the other runs", flush=True
            )
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
            f"  {shown(found['relative_l2'])}{accuracy} in {found['seconds']:.1f} s, "
            f"{found['step']} steps, {found['status']}",
            flush=True,
        )
    return missing


class Measured:
    """The results of one machine, as the cells of the page.

    A result whose key is not the key of its run belongs to other settings and is left out.
    """

    def __init__(self, args, results):
        self.args, self.results = args, results
        self.cases, self.aims = CASES, AIMS

    def of(self, make):
        """The results of the runs make(seed), in the order of the seeds."""
        runs = [make(seed) for seed in range(self.args.seeds)]
        runs = [run for run in runs if (ROOT / run.config).is_file()]
        found = [self.results.get(run.name) for run in runs]
        return [r for r, run in zip(found, runs, strict=True) if r and r["key"] == run.key]

    def compared(self, case, method):
        """The results of a cell of the comparison."""
        if method not in case.methods:
            return []
        seconds, tuned = self.args.seconds, self.args.tuned
        return self.of(lambda seed: compared(case, method, seed, seconds, tuned))

    def aimed(self, aim):
        """The results of a row of the aim table."""
        return self.of(lambda seed: aimed(aim, seed, self.args.aim_seconds))


def arguments(argv):
    """The parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def option(name, text, **settings):
        parser.add_argument(name, help=text, **settings)

    option(
        "--only",
        "measure only the runs whose name, table/case/method/seed, matches: "
        "'compare/poisson_2d/*', 'aim/*', '*/adam/0'",
        default="*",
        metavar="GLOB",
    )
    option("--seeds", "number of seeds (default: %(default)s)", type=int, default=3)
    option("--seconds", "wall time of a run of the comparison", type=float, default=SECONDS)
    option("--aim-seconds", "wall time of a run for an aim", type=float, default=AIM_SECONDS)
    option(
        "--budget",
        "start no new run after this time",
        type=float,
        default=math.inf,
        metavar="MINUTES",
    )
    option("--again", "also measure the runs that already have a result", action="store_true")
    option("--render", "measure nothing, only write the page", action="store_true")
    option("--list", "only print the commands", action="store_true")
    option(
        "--docs", "folder of benchmarks.{json,md,png} and baselines.json", type=Path, default=DOCS
    )
    return parser.parse_args(argv)


def main(argv=None):
    """Returns the exit code: 1 if a run gave no result."""
    args = arguments(argv)
    path, baselines = args.docs / "benchmarks.json", args.docs / "baselines.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    args.tuned = json.loads(baselines.read_text()) if baselines.exists() else {}
    if args.list:
        for run in entries(args):
            if fnmatch.fnmatch(run.name, args.only):
                print(f"{run.name}: {run.command}")
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
