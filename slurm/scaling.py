"""The two parts of scaling.sbatch that need Python.

`points CONFIG KIND RANKS` prints the --set options that give a run its number of points.
`table FOLDER` prints the table of the runs in FOLDER and writes it to FOLDER/scaling.txt.
"""

import sys
import tomllib
from pathlib import Path

PHASES = ("sample", "rows", "solve", "energy")


def points(config, kind, ranks):
    """The options that set the number of points for this number of ranks.

    A weak study uses Sobol points instead of a grid, because most numbers of points make no grid.
    """
    if kind not in ("strong", "weak"):
        sys.exit(f"'{kind}': a scaling study must be strong or weak")
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
            f"{config} sets no number of points in [sampling]: a weak study multiplies these "
            "numbers by the number of ranks, so set them"
        )
    return " ".join(
        [*counts, *(["--set sampling.rule=sobol"] if sampling.get("rule") == "grid" else [])]
    )


def timings(run_dir):
    """(ranks, points, [seconds per step, seconds per step of each phase]) of a run.

    The seconds are means over all steps but the first, which also warms up the libraries.
    """
    from nedhpc.files.series import read
    from nedhpc.postprocess.info import info

    facts, series = info(run_dir), read(run_dir / "series.h5")
    wall, output = series["wall_time"], series["seconds/output"]
    # wall_time of an entry is read before the output of that entry is written, so the difference of
    # two entries contains the output of the first: subtract it.
    steps = wall[2:] - wall[1:-1] - output[1:-1]
    return (
        facts["num_ranks"],
        facts["num_points"],
        [steps.mean(), *(series[f"seconds/{phase}"][2:].mean() for phase in PHASES)],
    )


def table(folder):
    """The table of speed-up and efficiency, relative to the run on one rank.

    The speed-up of a weak study is the ratio of points per second, because the work grows too.
    """
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
                f"{kind:8} {ranks:5d} {num_points:10d} {seconds:10.4g} {speedup:10.2f} "
                f"{speedup / ranks:11.2f}" + "".join(f"{phase:10.3g}" for phase in phases)
            )
    text = "\n".join(lines) + "\n"
    (Path(folder) / "scaling.txt").write_text(text)
    return text


if __name__ == "__main__":
    print({"points": points, "table": table}[sys.argv[1]](*sys.argv[2:]))
