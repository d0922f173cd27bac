"""The curve and the last figures of a run in the terminal, while it goes on. Local."""

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nedhpc.errors import NotAStateError, UsageError
from nedhpc.files import series
from nedhpc.postprocess.info import info
from nedhpc.postprocess.tables import duration, number

CURVES = (
    ("energy", "energy", ".", (213, 94, 0)),
    ("held_out_energy", "energy on held-out points", "o", (140, 140, 140)),
    ("relative_l2", "relative L2 error", "*", (0, 114, 178)),
)
"""Column, name, mark where there are no colours, and a colour (of Okabe and Ito's palette)."""
HEIGHT, WIDTH = 20, 80
"""Lines of the curve, and characters of a line that is not a terminal's."""
LEGEND_GAP = 9
"""Characters between the legend and the right edge."""
LEAST_DECADES = 1
"""The axis shows at least as many powers of ten."""


def watch(path: str | Path, every: float) -> None:
    """Show a run again and again until it ends; if stdout is no terminal, show it once. Local.

    Args:
        path: run folder. On a terminal it need not be there yet.
        every: seconds between two looks.

    Raises:
        UsageError: plotext is missing.
        NotAStateError: stdout is no terminal, and there is no usable checkpoint.
    """
    path = Path(path)
    if not sys.stdout.isatty():
        print(frame(path, WIDTH)[0])
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        while True:
            try:
                text, is_running = frame(path, live.console.width, has_colours=True)
            except NotAStateError as error:
                why = str(error).splitlines()[0] if path.exists() else "there is no such folder"
                text, is_running = f"waiting for the first checkpoint: {why}", True
            live.update(Text.from_ansi(text), refresh=True)
            if not is_running:
                return
            time.sleep(every)


def frame(path: Path, width: int, has_colours: bool = False) -> tuple[str, bool]:
    """What `watch` shows at one time, and whether the run goes on.

    Args:
        path: run folder.
        width: characters of a line.
        has_colours: True if the text may contain the terminal's codes of colours.

    Raises:
        NotAStateError: there is no usable checkpoint.
        UsageError: plotext is missing.
    """
    facts = info(path)
    columns = series.read_if_intact(path / "series.h5")
    lines = [_curve(columns, width, has_colours), *_figures(facts, columns)]
    return "\n".join(lines), facts["status"] == "running"


def _figures(facts: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> list[str]:
    """Lines with the last figures, those of the series if they are newer than the checkpoint."""
    last = {name: float(values[-1]) for name, values in columns.items() if len(values)}
    if last.get("step", -1) < facts["step"]:
        last = {name: facts[name] for name in ("step", "time", "wall_time", "energy")}
        last |= {name: facts[name] for name in ("held_out_energy", "relative_l2")}
    known = {n: None if v is None or math.isnan(v) else v for n, v in last.items()}
    metrics = {n: v for n, v in known.items() if n.startswith(("metrics/", "coefficients/"))}
    lines = [
        f"{facts['problem']}, {facts['method']}: {facts['status']}",
        f"step {int(last['step'])}, time {number(known['time'])}, {duration(known['wall_time'])}, "
        f"{duration(facts['seconds_per_step'])} a step",
        f"relative L2 error {number(known['relative_l2'])}, energy {number(known['energy'])}, on "
        f"held-out points {number(known.get('held_out_energy'))}",
        ", ".join(f"{name.partition('/')[2]} {number(v, 6)}" for name, v in metrics.items()),
        str(facts["message"]),
        *(f"warning: {text}" for text in facts["warnings"]),
    ]
    return [line for line in lines if line]


def _curve(columns: Mapping[str, np.ndarray], width: int, has_colours: bool) -> str:
    """Energies and error against wall time, on a logarithmic axis, as text."""
    try:
        import plotext
    except ImportError:
        raise UsageError("nedhpc watch needs plotext: pip install 'nedhpc[plot]'") from None
    figure = plotext.figure
    figure.clear()
    figure.theme("simple" if has_colours else "colorless")
    figure.plot_size(width, HEIGHT)
    low, high = math.inf, -math.inf
    for name, title, mark, colour in CURVES:
        values = columns.get(name, np.empty(0))
        shown = np.isfinite(values) & (values > 0)
        if not shown.any():
            continue
        logs = np.log10(values[shown])
        low, high = min(low, logs.min()), max(high, logs.max())
        curve = figure.signal(
            columns["wall_time"][shown].tolist(),
            logs.tolist(),
            marker=plotext.marker("braille", colour) if has_colours else mark,
        )
        curve.lines()
        curve.label(title)
        figure.draw(curve)
    if high < low:
        return "no positive energy or error to show yet"
    decades = range(math.floor(low), math.ceil(max(high, low + LEAST_DECADES)) + 1)
    shown = decades[:: max(1, len(decades) // 6)]
    figure.ruler("y").lim(decades[0], decades[-1])
    figure.ruler("y").ticks(list(shown), [f"1e{k}" for k in shown])
    figure.label("wall time [s]", "x")
    figure.legend(x=figure.size()[0] - LEGEND_GAP, ha="right")
    return figure.build().string(colorless=not has_colours)
