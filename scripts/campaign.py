#!/usr/bin/env python3
"""Fault campaign: random faults in random small runs; each run must continue as if undisturbed.

    scripts/campaign.py --count 1000 --seed 1 --jobs 2 --out campaign.jsonl

Each fault is a function of the seed and its number. The result of each is a line of the file, and a
campaign that was stopped goes on after the faults that are in it. With --markdown, it prints the
table of docs/reliability.md from the file.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import campaign_library as library

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> int:
    """Returns 0 if all faults survived, 1 if not, 2 if the campaign could not be made."""
    args = parser().parse_args()
    if args.worker is not None:
        return work(args)
    print(f"seed {args.seed}, {args.count} faults", file=sys.stderr)
    if not args.markdown:
        with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
            built = library.build(Path(folder))
            if built is None:
                print("gcc is missing: the campaign is skipped", file=sys.stderr)
                return 0
            workers = [launch(args, job, Path(folder), built) for job in range(args.jobs)]
            if any([worker.wait() for worker in workers]):
                return 2
    results = read(args.out, args.seed, args.count)
    print(table(results, args.markdown))
    for result in results if not args.markdown else []:
        if result["outcome"] != "survived":
            print("{number} {kind} {outcome} {case} {detail}: {reason}".format_map(result))
    return int(any(result["outcome"] != "survived" for result in results))


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--count", type=int, default=1000)
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--jobs", type=int, default=1)
    found.add_argument("--kinds", nargs="*", default=[], help="only these kinds")
    found.add_argument("--out", type=Path, default=Path("campaign.jsonl"))
    found.add_argument("--keep", type=Path, help="folder to which failed runs are moved")
    found.add_argument("--markdown", action="store_true")
    found.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    found.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return found


def launch(args, job: int, folder: Path, built: Path) -> subprocess.Popen:
    """Start a process that makes each jobs-th fault."""
    environment = os.environ | {"LD_PRELOAD": str(built), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, *sys.argv[1:]]
    words += ["--worker", str(job), "--folder", str(folder / str(job))]
    return subprocess.Popen(words, env=environment)


def work(args) -> int:
    """Make the faults of one process, and append their results to the file."""
    import campaign_faults as faults
    import campaign_runs as runs

    (args.folder / "first").mkdir(parents=True)
    runs.prepare(args.folder / "first")
    done = {result["number"] for result in read(args.out, args.seed, args.count)}
    kinds = {k: w for k, w in faults.KINDS.items() if not args.kinds or k.__name__ in args.kinds}
    for number in range(args.worker, args.count, args.jobs):
        if number in done:
            continue
        if os.getppid() == 1:  # the campaign was killed
            return 1
        dice = random.Random(f"{args.seed}/{number}")
        (kind,) = dice.choices(list(kinds), list(kinds.values()))
        folder = args.folder / f"fault{number}"
        left = faults.make(kind, folder, args.folder / "cache", dice)
        result = {
            "seed": args.seed,
            "number": number,
            "kind": kind.__name__,
            "case": left.case,
            "detail": left.detail,
            "outcome": left.outcome,
            "reason": left.reason[:500],
            "seconds": round(left.seconds, 2),
        }
        with open(args.out, "a") as file:
            file.write(json.dumps(result) + "\n")
        if args.keep is not None and left.outcome != "survived":
            shutil.copytree(folder, args.keep / f"fault{number}", dirs_exist_ok=True)
        shutil.rmtree(folder)
    return 0


def read(path: Path, seed: int, count: int) -> list[dict]:
    """The results of a campaign in a file, by number."""
    lines = path.read_text().splitlines() if path.exists() else []
    results = [json.loads(line) for line in lines if line.endswith("}")]
    found = {r["number"]: r for r in results if r["seed"] == seed and r["number"] < count}
    return [found[number] for number in sorted(found)]


def table(results: list[dict], is_markdown: bool = False) -> str:
    """Counts of outcomes by kind."""
    from campaign_verdict import OUTCOMES

    rows = [("kind", "faults", *OUTCOMES, "seconds")]
    kinds = sorted({result["kind"] for result in results})
    for kind in [*kinds, "all"]:
        mine = [result for result in results if kind in ("all", result["kind"])]
        counts = [sum(result["outcome"] == name for result in mine) for name in OUTCOMES]
        seconds = sum(result["seconds"] for result in mine) / max(1, len(mine))
        rows.append((kind.replace("_", " "), len(mine), *counts, f"{seconds:.1f}"))
    if is_markdown:
        rows.insert(1, ("---",) * len(rows[0]))
        return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
    return "\n".join(f"{row[0]:20}" + "".join(f"{x!s:>10}" for x in row[1:]) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
