#!/usr/bin/env python
"""How often a run with default settings is right, and how often it is wrong without a word.

Run inside the environment: `scripts/bench_trust.py [--count 200] [--seconds 60] [--jobs 2]`. It
solves random problems whose solutions are known to this script but not to the solver. The config of
each has only [problem] and run.max_wall_time. If a revision has no default numbers of points, the
config also has `hidden = [64]`, 1000 interior points, and 200 points on each other part.

There are 20 kinds of problems in equal numbers; problem `index` has the kind number index mod 20:

    constant       -a lap u + b . grad u + c u, a of 1e-6 .. 1e6, 1 to 3 coordinates
    varying        -div(a(x) grad u) + c u, a of 1e-6 .. 1e6
    sizes          -a lap u on boxes of 1e-6 .. 1e6, whose edges differ by up to 100
    offset         -a lap u, the mean of u is 10 to 1000 times its variation
    front          elliptic or parabolic, with a tanh layer of width 0.01 to 0.05 of the domain
    reaction       -a lap u with u + u^3 or exp(-u)
    flux           -a lap u with given values, flux or exchange (Robin) on each wall
    system         2 or 3 elliptic equations, sizes of the outputs up to 1e4 apart
    heat           c u_t = k lap u + f, all sizes of 1e-6 .. 1e6
    heat_flux      the same with given values, flux or exchange on each wall
    square         u_t = a lap u - c u^2 + f
    burgers        u_t + u (u_x + u_y) = nu lap u + f
    convection     u_t + b . grad u = f with values at the inflow
    wave           u_tt = c^2 lap u + f
    reacting       2 or 3 parabolic equations with the reaction u v
    population     ODEs with fixed points: Lotka-Volterra, logistic, SIR
    kinetics       ODEs: van der Pol, Michaelis-Menten, two rates of decay
    contradictory  conditions that no function satisfies
    missing        conditions that more than one function satisfies
    noisy          data with noise of 1e-4 .. 3e-2 of their variation

The error of an answer is the largest, over the outputs, of |u - u*| / |u* - mean u*|: L2 norms and
the mean over 5000 random points of the domain. An answer is wrong if its error exceeds 1e-2, or if
the problem has no right answer. `told` says what counts as a warning.

Each result is one JSON file in the cache; its name has the revision, the seed, the index and the
seconds. A result that is there is not measured again, unless the files of the problems changed.
A checkout with changes that are not committed gets the revision's name with "-dirty": use --label.
"""

import argparse
import functools
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trust_problems import KINDS, UNANSWERABLE, Trust, kind_of

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(__file__).resolve().parent
PROBLEM_FILES = ("trust_problems.py", "trust_cases.py", "trust_others.py", "trust_fields.py")
LEVELS = (1e-3, 1e-4, 1e-5)
"""An answer counts as solved at each level that its error does not exceed."""
WRONG = 1e-2
"""An answer with a larger error is wrong."""
NUM_POINTS = 5000
KILLED = -9
"""Exit code of a run that did not end within twice its time."""
LEAST_TIMEOUT = 20
"""Seconds that each run has at least before it is killed: its time does not include the start."""
COMPLAINTS = ("contradict", "not unique", "undetermined", "underdetermined", "overdetermined")
COMPLAINTS += ("inconsistent", "no condition", "missing condition", "not converged", "not reliable")
"""Parts of a message that tell the user that the answer may be wrong."""


def told(info, code):
    """True if the run tells the user that its answer may be wrong.

    That is: the exit code is not 0, the status is stalled or failed, there are warnings, the
    message complains, or the error that the run itself estimates exceeds WRONG. The status
    wall_time does not count.

    Args:
        info: the facts of `nedhpc info --json`; None if there are none.
        code: exit code of `nedhpc run`.
    """
    if code != 0 or info is None:
        return True
    message, estimate = (info.get("message") or "").lower(), info.get("error_estimate")
    return bool(
        info.get("status") in ("stalled", "failed")
        or info.get("warnings")
        or any(words in message for words in COMPLAINTS)
        or (estimate is not None and not estimate <= WRONG)
    )


def is_wrong(result):
    """True if the answer of a run is wrong, or if there was no right answer."""
    if result["kind"] in UNANSWERABLE:
        return True
    return result["error"] is None or not result["error"] <= WRONG


def solved(result, level):
    """True if the run gave an answer whose error does not exceed the level."""
    return result["error"] is not None and result["error"] <= level


# One run.


def config_text(index, seed, seconds, numbers):
    """The config of a problem as TOML; with `numbers`, also the network and numbers of points."""
    lines = [
        "[problem]",
        f'name = "{SCRIPTS / "trust_problems.py"}:Trust"',
        f"index = {index}",
        f"seed = {seed}",
    ]
    if numbers:
        parts = dict.fromkeys(term.on for term in Trust(index=index, seed=seed).terms)
        lines += ["[network]", "hidden = [64]", "[sampling]"]
        lines += [
            f"{part} = {1000 if part == 'interior' else 200}" for part in parts if part != "data"
        ]
    return "\n".join([*lines, "[run]", f"max_wall_time = {float(seconds)}", ""])


class Revision:
    """A checkout whose command line solves the problems, on one thread."""

    def __init__(self, path, label=None):
        self.path = Path(path).resolve()
        self.label = label or self._described()
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        paths = {"PYTHONPATH": f"{self.path}{os.pathsep}{SCRIPTS}"}
        self.environment = os.environ | one_thread | paths

    def _described(self):
        words = ["git", "-C", str(self.path), "describe", "--always", "--dirty", "--exclude=*"]
        return subprocess.run(words, capture_output=True, text=True).stdout.strip() or "unknown"

    def python(self, *words, folder, timeout):
        """(exit code, stdout, stderr) of Python with these words; code KILLED after the timeout.

        The output goes to files, so that a process that is left over cannot block a pipe.
        """
        command = [sys.executable, *map(str, words)]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            options = {"cwd": folder, "env": self.environment, "stdout": out, "stderr": err}
            try:
                code = subprocess.run(command, timeout=timeout, **options).returncode
            except subprocess.TimeoutExpired:
                code = KILLED
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read())
        return code, *texts

    @functools.cached_property
    def needs_numbers(self):
        """True if a config without [sampling] is not valid in this revision."""
        index = list(KINDS).index("heat")
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "case.toml"
            config.write_text(config_text(index, 0, 60, numbers=False))
            words = ("-P", "-m", "nedhpc", "check", config)
            code, _, _ = self.python(*words, folder=folder, timeout=120)
        return code != 0

    def solve(self, index, seed, seconds):
        """The result of one run as a table."""
        with tempfile.TemporaryDirectory() as folder:
            config, out = Path(folder) / "case.toml", Path(folder) / "run"
            config.write_text(config_text(index, seed, seconds, self.needs_numbers))
            run = ("-P", "-m", "nedhpc", "run", config, "--out", out)
            timeout = max(2 * seconds, LEAST_TIMEOUT)
            code, _, stderr = self.python(*run, folder=folder, timeout=timeout)
            facts = self.json_of("-P", "-m", "nedhpc", "info", out, "--json", folder=folder)
            # A run that was killed has not given its answer to the user.
            words = (Path(__file__).resolve(), "--measure", out)
            error = None if code else self.json_of(*words, folder=folder)
        keys = ("status", "message", "step", "energy", "wall_time", "warnings")
        keys += ("trust", "error_estimate", "num_parameters", "num_points", "method")
        return {
            "kind": kind_of(index),
            "index": index,
            "seed": seed,
            "seconds": seconds,
            "revision": self.label,
            "problems": problems_digest(),
            "numbers": self.needs_numbers,
            "code": code,
            "told": told(facts, code),
            "error": error if error is not None and math.isfinite(error) else None,
            "info": facts and {key: facts.get(key) for key in keys},
            "stderr": stderr[-1000:],
        }

    def json_of(self, *words, folder):
        """The JSON that Python prints with these words, or None if it fails."""
        code, stdout, _ = self.python(*words, folder=folder, timeout=300)
        return json.loads(stdout) if code == 0 else None


def problems_digest():
    """A hash of the files that define the problems."""
    texts = b"".join((SCRIPTS / name).read_bytes() for name in PROBLEM_FILES)
    return hashlib.sha256(texts).hexdigest()[:12]


def measure(run_dir):
    """The error of a run's answer; None if the problem has no right answer.

    It is called in a process of the revision that made the run.
    """
    import numpy as np
    import torch

    import nedhpc

    torch.set_default_dtype(torch.float64)
    u = nedhpc.load(run_dir)
    low, high = u.problem.domain.low, u.problem.domain.high
    x_ND = low + np.random.default_rng(0).random((NUM_POINTS, len(low))) * (high - low)
    return error_of(np.asarray(u(x_ND), float), u.problem.answer(x_ND))


def error_of(u_NM, answer_NM):
    """max over the outputs of |u - u*| / |u* - mean u*|; None without an answer u*."""
    if answer_NM is None:
        return None
    difference_M = ((u_NM - answer_NM) ** 2).sum(0)
    variation_M = ((answer_NM - answer_NM.mean(0)) ** 2).sum(0)
    return float((difference_M / variation_M).max() ** 0.5)


# All runs.


def solve_all(revision, args):
    """The results of all problems that are wanted, from the cache if they are there."""
    indices = [k for k in range(args.count) if args.only in (None, kind_of(k))]
    # The first numbers of each kind come first, so that an interrupted benchmark is balanced.
    with ThreadPoolExecutor(args.jobs) as pool:
        return list(pool.map(lambda index: cached(revision, index, args), indices))


def cached(revision, index, args):
    """The result of a problem from the cache; it is measured and written if it is not there."""
    file = args.cache / f"{revision.label}-{args.seed}-{index:03}-{args.seconds:g}s.json"
    if file.exists():
        result = json.loads(file.read_text())
        if result["problems"] == problems_digest():
            return result
    result = revision.solve(index, args.seed, args.seconds)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(temporary, file)
    status = (result["info"] or {}).get("status")
    error = "no error" if result["error"] is None else f"error {result['error']:.1e}"
    words = "told" if result["told"] else "WRONG WITHOUT A WORD" if is_wrong(result) else "not told"
    code = f"exit code {result['code']}"
    print(f"{index:3} {result['kind']}: {error}, {status}, {code}, {words}", file=sys.stderr)
    return result


# Tables.


def counts(results):
    """The numbers of a row of the table, from the results of its runs."""
    answerable = [r for r in results if r["kind"] not in UNANSWERABLE]
    errors = [math.inf if r["error"] is None else r["error"] for r in answerable]
    return {
        "runs": len(results),
        "answerable": len(answerable),
        "solved": [sum(solved(r, level) for r in answerable) for level in LEVELS],
        "median": statistics.median(errors) if errors else None,
        "told": sum(r["told"] for r in results),
        "told_but_solved": sum(r["told"] and solved(r, LEVELS[0]) for r in answerable),
        "wrong": sum(is_wrong(r) for r in results),
        "silent": sum(is_wrong(r) and not r["told"] for r in results),
        "killed": sum(r["code"] == KILLED for r in results),
    }


def row(name, results):
    """The cells of a row: shares of the answerable runs, or of all runs, in percent."""
    found = counts(results)

    def share(number, most):
        return f"{100 * number / most:.0f} %" if most else "-"

    runs, answerable = found["runs"], found["answerable"]
    return [
        name,
        str(runs),
        *(share(number, answerable) for number in found["solved"]),
        "-" if found["median"] in (None, math.inf) else f"{found['median']:.1e}",
        share(found["told"], runs),
        share(found["told_but_solved"], answerable),
        share(found["wrong"], runs),
        share(found["silent"], runs),
        str(found["killed"]),
    ]


def table(results):
    """The lines of a Markdown table: one row for each kind, and the totals."""
    header = ["kind", "runs", *(f"error <= {level:.0e}" for level in LEVELS), "median error"]
    header += [
        "warned",
        "warned, error <= 1e-03",
        "wrong or none",
        "wrong without a word",
        "killed",
    ]
    kinds = {kind: [r for r in results if r["kind"] == kind] for kind in KINDS}
    answerable = [r for r in results if r["kind"] not in UNANSWERABLE]
    rows = [row(kind, found) for kind, found in kinds.items() if found]
    rows += [row("all with an answer", answerable), row("all", results)]
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def arguments(argv):
    """The parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--count", type=int, default=200, help="number of problems")
    add("--seed", type=int, default=0, help="seed of the problems")
    add("--seconds", type=float, default=60.0, help="run.max_wall_time; killed at twice this time")
    add("--jobs", type=int, default=2, help="number of runs at the same time")
    add("--cache", type=Path, default=ROOT / "runs" / "trust", help="folder of the results")
    add("--only", choices=list(KINDS), metavar="KIND", help="only the problems of this kind")
    add("--checkout", type=Path, default=ROOT, help="another revision, e.g. the first edition")
    add("--label", help="name of the revision in the cache (default: git describe)")
    add("--append", type=Path, metavar="FILE", help="also append the table to this file")
    add("--measure", type=Path, metavar="RUN_DIR", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    args.cache.mkdir(parents=True, exist_ok=True)
    revision = Revision(args.checkout, args.label)
    results = solve_all(revision, args)
    numbers = any(result["numbers"] for result in results)
    numbers = ", configs with [network] and [sampling]" if numbers else ""
    title = (
        f"Revision {revision.label}, {args.seconds:g} s on one thread, seed {args.seed}{numbers}"
    )
    text = "\n".join([f"{title}:", "", *table(results), ""])
    print(text)
    if args.append:
        with args.append.open("a") as file:
            file.write(f"{text}\n")


if __name__ == "__main__":
    main()
