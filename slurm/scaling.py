"""Parts of scaling.sbatch: `points CONFIG KIND RANKS` prints --set options; `table FOLDER` prints and writes the table of its runs."""

import sys
import tomllib
from pathlib import Path

PHASES = ("sample", "rows", "solve", "energy")


def points(config, kind, ranks):
    """The sample's size at that many ranks, as options. A weak study draws Sobol points: a grid exists for few counts."""
    if kind not in ("strong", "weak"):
        sys.exit(f"'{kind}': a scaling study is strong or weak")
    if kind == "strong":
        return ""
    sampling = tomllib.loads(Path(config).read_text()).get("sampling", {})
    counts = [
        f"--set sampling.{on}={sampling[on] * int(ranks)}"
        for on in ("interior", "boundary", "initial", "data")
        if on in sampling
    ]
    if not counts:
        sys.exit(
            f"{config} states no numbers of points in [sampling], which a weak study multiplies"
        )
    return " ".join(
        [*counts, *(["--set sampling.rule=sobol"] if sampling.get("rule") == "grid" else [])]
    )


def timings(run_dir):
    """(ranks, points, [seconds a step, seconds of each phase a step]): means over the steps, without the first."""
    from nedhpc.files.series import read
    from nedhpc.postprocess.info import info

    facts, series = info(run_dir), read(run_dir / "series.h5")
    wall, output = series["wall_time"], series["seconds/output"]
    # An entry's clock is read before its output is written.
    steps = wall[2:] - wall[1:-1] - output[1:-1]
    return (
        facts["num_ranks"],
        facts["num_points"],
        [steps.mean(), *(series[f"seconds/{phase}"][2:].mean() for phase in PHASES)],
    )


def table(folder):
    """Speed-up and efficiency against one rank; a weak study's speed-up counts the work that was done."""
    lines = [
        "# kind   ranks     points     s/step   speed-up  efficiency"
        + "".join(f"{phase:>10}" for phase in PHASES)
    ]
    for kind in ("strong", "weak"):
        runs = sorted(
            (timings(path) for path in Path(folder).glob(f"{kind}-*")), key=lambda run: run[0]
        )
        for ranks, num_points, (seconds, *phases) in runs:
            speedup = runs[0][2][0] / seconds * (num_points / runs[0][1])
            lines.append(
                f"{kind:8} {ranks:5d} {num_points:10d} {seconds:10.4g} {speedup:10.2f} {speedup / ranks:11.2f}"
                + "".join(f"{phase:10.3g}" for phase in phases)
            )
    text = "\n".join(lines) + "\n"
    (Path(folder) / "scaling.txt").write_text(text)
    return text


if __name__ == "__main__":
    print({"points": points, "table": table}[sys.argv[1]](*sys.argv[2:]))
