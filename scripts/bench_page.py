"""Write the page docs/benchmarks.md and its figure from results that are already measured.

`measured` is the Measured of bench_accuracy.py: `measured.compared(case, method)` and
`measured.aimed(aim)` are the results of a cell, one for each seed that was measured. The tables of
the random problems come from docs/trust_table.md.
"""

import math
import statistics
from importlib.metadata import version
from pathlib import Path

from bench_cases import LEVELS, METHODS, NED

TRUST_TABLE = Path(__file__).resolve().parent.parent / "docs" / "trust_table.md"
"""What bench_trust.py printed, for each revision that was measured."""


def page(measured, where):
    """The whole page; `where` is the name of the machine."""
    torch = sorted({r["torch"] for r in measured.results.values()}) or [version("torch")]
    revisions = ", ".join(sorted({r["git"] for r in measured.results.values() if r["git"]})) or "-"
    return "\n".join(
        [
            "# Accuracy at equal wall time",
            "",
            f"Machine: {where}; torch {', '.join(torch)}; float64; no GPU. Revisions measured:",
            f"{revisions}.",
            "Those of the first edition (0.1) used a thread for each core; later ones choose the",
            "number of threads by a measurement.",
            "",
            "    scripts/bench_accuracy.py            # measure what is missing, write this page",
            "    scripts/tune_baselines.py            # tune the baselines (docs/baselines.json)",
            "    scripts/bench_accuracy.py --render   # only write this page",
            "",
            *introduction(measured.args.seconds),
            "",
            *comparison(measured),
            "",
            "![relative L2 error against wall time, seed 0](benchmarks.png)",
            "",
            f"## What {measured.args.aim_seconds / 60:g} minutes reach",
            "",
            *aim_table(measured),
            "",
            "## Compared with the best of SGD, Adam and L-BFGS",
            "",
            *ratios(measured),
            "",
            *classification(measured),
            "",
            "## Random problems with default settings",
            "",
            *trust(TRUST_TABLE),
            "",
            "## In detail",
            "",
            "Seconds and steps are medians. `s to` is the wall time after which the median run has",
            "reached that error.",
            "",
            *details(measured),
            "",
            "## Commands, seed 0",
            "",
            *(f"    {command}" for command in commands(measured)),
            "",
        ]
    )


def introduction(seconds):
    """How to read the tables."""
    return [
        f"Every method solves the same problem with the same network in {seconds:g} s, including",
        "the time to start. NED (Neural Energy Descent) runs the config as it is. The baselines",
        "SGD, Adam and L-BFGS start from random parameters, and their points per step are tuned.",
        "",
        "The values are relative L2 errors against the exact solution on a fixed evaluation set;",
        "for digits they are test accuracies. A cell shows the median of the seeds measured and,",
        "in parentheses, their range. The best value of a row is bold. The column of NED's points",
        "shows the points of a full draw; if a config sets `sampling.grow_draws`, the first draws",
        "have fewer points.",
        "",
        "NED is pseudo-transient continuation on the flow. `NED, l2` uses the metric of the paper,",
        "`NED, energy` the metric energy, and `NED` the default metric, euclidean. A dash means",
        "that the cell was not measured yet. `n/a` means that the network has more parameters than",
        "the problem has rows; only the metric euclidean can then be used. The published figures",
        "are the best run of a sweep, with their own time and hardware.",
    ]


def trust(table):
    """How the random problems are measured, and the table if the file `table` exists."""
    known = table.read_text().strip() if table.exists() else "Not measured yet."
    return [
        "`scripts/bench_trust.py` asks how far a user can trust a run with default settings. It",
        "solves 200 random problems, ten of each of 20 kinds. Their solutions are known to the",
        "script but not to the solver. The config of each has only `[problem]` and",
        "`run.max_wall_time`; if a revision has no default numbers of points, it also has",
        "`hidden = [64]`, 1000 interior points, and 200 points on each other part. A run has one",
        "thread, and it is killed after twice its time.",
        "",
        "    scripts/bench_trust.py --append docs/trust_table.md  # this checkout, 60 s a problem",
        "    scripts/bench_trust.py --checkout FOLDER             # another revision",
        "    scripts/bench_trust.py --only heat --seconds 20      # one kind, less time",
        "",
        "Results are kept in `runs/trust` (`--cache`), so that an interrupted benchmark continues.",
        "A result belongs to a git revision, or to the name that `--label` gives, a seed and a",
        "time. `--help` lists the kinds. This page shows the tables in docs/trust_table.md.",
        "",
        "- The error is the largest, over the outputs, of |u - u*| / |u* - mean u*|, in L2 norms",
        "  over 5000 random points. An answer that is only the mean of u* has the error 1.",
        "- `warned`: the exit code is not 0, the status is `stalled` or `failed`, `nedhpc info`",
        "  reports warnings, or the run itself estimates an error above 1e-2. A run that only ends",
        "  at its wall time does not warn.",
        "- `wrong or none`: the error exceeds 1e-2, the run gives no answer, or the problem has no",
        "  right answer: the conditions of the kind `contradictory` have no solution, those of the",
        "  kind `missing` have several.",
        "- `wrong without a word`: wrong, and not warned.",
        "- The shares of errors count only problems with a right answer. For data with noise, no",
        "  method reaches each level: noise of 3e-2 leaves an error of about 3e-3.",
        "",
        *known.splitlines(),
    ]


# Cells.


def shown(value, form="{:.1e}"):
    """The value in this format, or a dash if there is none."""
    return "-" if value is None else form.format(value)


def row(*cells):
    return f"| {' | '.join(cells)} |"


def header(*names):
    return [row(*names), "|---" * len(names) + "|"]


def median(found, name):
    values = [r[name] for r in found if r[name] is not None]
    return statistics.median(values) if values else None


def median_time(times):
    """The median of these times; None (never) counts as infinity. None if the median is never."""
    middle = statistics.median([math.inf if s is None else s for s in times]) if times else math.inf
    return None if math.isinf(middle) else middle


def score(found):
    """(median for the ranking, the smaller the better; text) of the results of a cell."""
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


def verdict(known, met):
    return "-" if not known else "met" if met else "**not met**"


# Tables.


def comparison(measured):
    lines = header(
        "problem", "network", "P", "NED's points", *METHODS.values(), "best published error"
    )
    for case in measured.cases:
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
        lines.append(row(case.problem, case.network, *facts, *texts, case.published))
    return lines


def aim_table(measured):
    lines = header(
        "case",
        "required",
        "aim",
        "relative L2",
        "seconds",
        "seconds to 1e-6",
        "seeds",
        "verdict: required",
        "verdict: aim",
    )
    for aim in measured.aims:
        found = measured.aimed(aim)
        error, seconds = median(found, "relative_l2"), median(found, "seconds")
        fast = median_time([r["seconds_to"]["1e-06"] for r in found])
        wanted = f"{aim.aim:.1e}"
        if aim.within:
            wanted += f", {aim.within[0]:.0e} within {aim.within[1]:g} s"
        known = error is not None
        in_time = aim.within is None or (fast is not None and fast <= aim.within[1])
        lines.append(
            row(
                aim.case,
                f"{aim.least:.0e}",
                wanted,
                score(found)[1],
                shown(seconds, "{:.0f}"),
                shown(fast, "{:.1f}"),
                str(len(found)),
                verdict(known, known and error <= aim.least),
                verdict(known, known and error <= aim.aim and in_time),
            )
        )
    return lines


def ratios(measured):
    """For each PDE, the error of the best baseline over the error of the best NED."""
    lines = header(
        "case", "best NED", "best baseline", "ratio of errors", "100 (required)", "1000 (aim)"
    )
    for case in (case for case in measured.cases if case.kind == "pde"):
        errors = {
            method: median(measured.compared(case, method), "relative_l2")
            for method in case.methods
        }
        known = [(error, method) for method, error in errors.items() if error is not None]
        ours = min((best for best in known if best[1] in NED), default=None)
        theirs = min((best for best in known if best[1] not in NED), default=None)
        ratio = theirs[0] / ours[0] if ours and theirs else None
        lines.append(
            row(
                f"{case.problem}, {case.network}",
                *(f"{b[0]:.1e} ({METHODS[b[1]]})" if b else "-" for b in (ours, theirs)),
                shown(ratio, "{:.3g}"),
                *(verdict(ratio is not None, ratio and ratio >= least) for least in (100, 1000)),
            )
        )
    return lines


def classification(measured):
    """The accuracy of NED and of Adam, and the seconds until each reached Adam's final accuracy."""
    lines = header(
        "case",
        "NED",
        "Adam",
        "NED: s to Adam's accuracy",
        "Adam: s to it",
        "at least as accurate in less time",
    )
    for case in (case for case in measured.cases if case.kind == "classification"):
        name = f"{case.problem}, {case.network}"
        ours, adam = measured.compared(case, "ned"), measured.compared(case, "adam")
        values = median(ours, "accuracy"), median(adam, "accuracy")
        texts = [shown(value, "{:.4f}") for value in values]
        if None in values:
            lines.append(row(name, *texts, "-", "-", "-"))
            continue
        times = [
            median_time([seconds_until(r, 1 - values[1]) for r in found]) for found in (ours, adam)
        ]
        faster = times[0] is not None and (times[1] is None or times[0] < times[1])
        met = verdict(True, values[0] >= values[1] and faster)
        lines.append(row(name, *texts, *(shown(t, "{:.1f}") for t in times), met))
    return lines


def seconds_until(result, level):
    """Seconds until the error is at most `level`, up to rounding; None if it never is."""
    return next((t for t, error in result["curve"] if error <= level + 1e-3 * abs(level)), None)


def details(measured):
    lines = header(
        "problem",
        "method",
        "points",
        "median",
        "range",
        "seeds",
        "seconds",
        "steps",
        *(f"s to {level:.0e}" for level in LEVELS),
    )
    for case in measured.cases:
        for method in case.methods:
            found = measured.compared(case, method)
            times = [
                median_time([r["seconds_to"][f"{level:.0e}"] for r in found]) for level in LEVELS
            ]
            middle, _, spread = score(found)[1].partition(" ")
            lines.append(
                row(
                    f"{case.problem}, {case.network}",
                    METHODS[method],
                    shown(median(found, "num_points"), "{:,.0f}"),
                    middle,
                    spread.strip("()") or "-",
                    str(len(found)),
                    shown(median(found, "seconds"), "{:.0f}"),
                    shown(median(found, "step"), "{:.0f}"),
                    *(shown(t, "{:.1f}") for t in times),
                )
            )
    return lines


def commands(measured):
    """The command of the first seed of each cell that was measured."""
    runs = [
        found[0]["command"]
        for case in measured.cases
        for method in case.methods
        if (found := measured.compared(case, method))
    ]
    return runs + [found[0]["command"] for aim in measured.aims if (found := measured.aimed(aim))]


# The figure.

COLOURS = {
    "ned_l2": "#1b6ca8",
    "ned_energy": "#33a1c9",
    "ned": "#0b3c5d",
    "sgd": "#999999",
    "adam": "#e08214",
    "lbfgs": "#b2182b",
}
COLUMNS = 4


def figure(measured, path):
    """Write the curves of error against wall time, one panel for each case, to an image file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    num_rows = -(-len(measured.cases) // COLUMNS)
    drawing, axes = plt.subplots(
        num_rows,
        COLUMNS,
        figsize=(3.9 * COLUMNS, 3.1 * num_rows),
        layout="constrained",
        squeeze=False,
    )
    curves = {}
    for case, axis in zip(measured.cases, axes.flat, strict=False):
        curves |= panel(measured, case, axis)
    spare = list(axes.flat)[len(measured.cases) :]
    for axis in spare:
        axis.axis("off")
    if curves:
        (spare[0] if spare else drawing).legend(
            handles=[curves[method] for method in METHODS if method in curves],
            loc="center" if spare else "outside lower center",
            fontsize=10,
        )
    drawing.supxlabel("wall time [s]", fontsize=10)
    drawing.supylabel("relative L2 error (digits: share of wrong answers)", fontsize=10)
    drawing.savefig(path, dpi=110)
    plt.close(drawing)


def panel(measured, case, axis):
    """Draw one case; returns {method: its curve}, for the legend."""
    curves = {}
    for method in case.methods:
        found = [r for r in measured.compared(case, method) if r["curve"]]
        if not found:
            continue
        times, errors = zip(*found[0]["curve"], strict=True)
        (curves[method],) = axis.loglog(
            times,
            errors,
            color=COLOURS[method],
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
        at_centre = {"ha": "center", "va": "center", "transform": axis.transAxes}
        axis.text(0.5, 0.5, "not measured yet", color="grey", **at_centre)
        axis.set(xticks=[], yticks=[])
    return curves
