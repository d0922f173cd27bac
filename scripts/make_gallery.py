#!/usr/bin/env python
"""Run ready configs, and write docs/problems.md with equations, pictures, errors and times.

Run inside the environment: `scripts/make_gallery.py [--only NAME ...] [--seconds 300] [--page]`.

Each config runs as a user runs it, for --seconds at most. Its figures go to docs/problems.json and
the picture that `nedhpc plot` draws of the fields and their errors to docs/problems/NAME.png,
reduced to 64 colours. With --only, all other entries stay; with --page, nothing runs and only the
page is written anew.
"""

import argparse
import io
import json
import platform
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import torch

from nedhpc.problems import build

ROOT = Path(__file__).resolve().parent.parent
FIGURES, PAGE = ROOT / "docs" / "problems.json", ROOT / "docs" / "problems.md"
NEDHPC = [sys.executable, "-P", "-m", "nedhpc"]
WIDTH, COLOURS = 640, 64
"""Width of a picture in pixels, and the number of its colours."""
HEAD = """# Ready problems

Each file in `configs/` is a problem that runs as it is; `nedhpc problems` lists their classes. The
errors are relative L2 errors against the solution or reference that the problem names. This page
and its pictures are made by `scripts/make_gallery.py`; it does not show every config yet. The times
were taken beside other processes. [accuracy.md](accuracy.md) has more figures, with three seeds.
"""


def measure(name, seconds, pictures):
    """The figures of a config's run; its picture is written."""
    config = ROOT / "configs" / f"{name}.toml"
    with tempfile.TemporaryDirectory() as folder:
        out, image = Path(folder) / name, Path(folder) / "plot.png"
        limit = ["--set", f"run.max_wall_time={seconds}"]
        commands = (
            ["run", config, "--out", out, *limit],
            ["plot", out, "-o", image, "--show", "fields"],
        )
        for command in commands:
            subprocess.run([*NEDHPC, *command], check=True, capture_output=True)
        done = subprocess.run(
            [*NEDHPC, "info", out, "--json"], check=True, capture_output=True, text=True
        )
        (pictures / f"{name}.png").write_bytes(small(image))
    facts = json.loads(done.stdout)
    return {
        "relative_l2": facts["relative_l2"],
        "seconds": round(facts["wall_time"], 1),
        "coefficients": facts["metrics"].get("coefficients", {}),
        "limit": seconds,
        "machine": platform.machine(),
    }


def small(image):
    """The bytes of a PNG file, narrower and with few colours."""
    from PIL import Image  # it comes with matplotlib

    with Image.open(image) as picture:
        height = round(picture.height * WIDTH / picture.width)
        reduced = picture.convert("RGB").resize((WIDTH, height)).quantize(COLOURS)
    file = io.BytesIO()
    reduced.save(file, "png", optimize=True)
    return file.getvalue()


def entry(name, figures):
    """The section of a config."""
    path = ROOT / "configs" / f"{name}.toml"
    problem = type(build(tomllib.loads(path.read_text())["problem"]))
    found = figures[name]
    text = [f"## {name}", "", *(line.strip() for line in problem.__doc__.strip().splitlines())]
    text += ["", f"    nedhpc run configs/{name}.toml", ""]
    error = found["relative_l2"]
    size = "There is no reference" if error is None else f"Relative L2 error {error:.1e}"
    parts = [f"{size}, after {found['seconds']:.0f} s."]
    parts += [f"{key} = {value:.10g}." for key, value in found["coefficients"].items()]
    return "\n".join([*text, " ".join(parts), "", f"![{name}](problems/{name}.png)", ""])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = sorted(path.stem for path in (ROOT / "configs").glob("*.toml"))
    parser.add_argument("--only", nargs="+", choices=every, metavar="NAME", help="these configs")
    parser.add_argument("--seconds", type=float, default=300.0, help="most seconds of a run")
    parser.add_argument("--page", action="store_true", help="run nothing, write the page")
    args = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    pictures = ROOT / "docs" / "problems"
    pictures.mkdir(exist_ok=True)
    for name in [] if args.page else args.only or every:
        figures[name] = measure(name, args.seconds, pictures)
        print(name, figures[name], flush=True)
        FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    sections = [entry(name, figures) for name in every if name in figures]
    PAGE.write_text("\n".join([HEAD, *sections]))


if __name__ == "__main__":
    main()
