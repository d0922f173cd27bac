"""The command line: the only reader of argv, and the only place with process-wide settings."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nedhpc.cli.completion import SHELLS, completion
from nedhpc.cli.doctor import doctor
from nedhpc.cli.init import KINDS, init
from nedhpc.cli.look import compare, evaluate, export, watch
from nedhpc.cli.ranks import has_ranks, on_all_ranks
from nedhpc.cli.run import resume, run
from nedhpc.cli.show import check, info, plot, problems, seal
from nedhpc.cli.streams import lost_output, secure
from nedhpc.cli.tune import tune
from nedhpc.cli.words import grid, names
from nedhpc.errors import NedError
from nedhpc.files.folder import absolute


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit code (see README, "Exit codes").

    Args:
        argv: the words after `nedhpc`; default those of the process.
    """
    secure()
    words = list(sys.argv[1:] if argv is None else argv)
    petsc_options: list[str] = []
    if "--" in words:
        petsc_options = words[words.index("--") + 1 :]
        words = words[: words.index("--")]
    args = parser().parse_args(words)
    args.petsc_options = petsc_options
    if args.command in ("run", "resume"):
        return on_all_ranks(args)
    if args.command == "evaluate" and has_ranks():
        return on_all_ranks(args, is_run=False)
    try:
        args.function(args)
    except NedError as error:
        print(f"nedhpc: {error}", file=sys.stderr)
        return error.exit_code
    lost = lost_output()
    if lost is not None:
        print(f"nedhpc: cannot write the output: {lost.strerror}", file=sys.stderr)
    return 0 if lost is None else 1


def absolute_path(text: str) -> Path:
    """Parse a path."""
    try:
        return absolute(text)
    except NedError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def at_least_one(text: str) -> int:
    """Parse a number that is at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a number; needed is 1 or more")
    return number


class Version(argparse.Action):
    """--version prints the versions of nedhpc and of the libraries that it computes with."""

    def __init__(self, option_strings, dest):
        super().__init__(option_strings, dest, nargs=0, help="print versions and exit")

    def __call__(self, parser, namespace, values, option_string=None):
        from nedhpc.cli.versions import versions

        for name, text in versions().items():
            print(f"{name} {text}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands and their options."""
    top = argparse.ArgumentParser(
        prog="nedhpc",
        description="Train neural networks by evolving their parameters along the descent flow of "
        "an energy. PETSc options follow after --.",
    )
    top.add_argument("--version", action=Version)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, function: Callable, text: str, settings: bool = False, problem: bool = False
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        if settings:
            sub.add_argument(
                "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides"
            )
        if problem:
            text = "the problem's class, if its file was edited or never run here"
            sub.add_argument("--problem", metavar="FILE.py:CLASS", help=text)
        return sub

    sub = command("run", run, "run a config to the end (also under mpirun)", settings=True)
    sub.add_argument("config", type=absolute_path, metavar="CONFIG.toml")
    sub.add_argument(
        "--out", type=absolute_path, metavar="RUN_DIR", help="default: runs/<config>-<UTC>"
    )
    sub.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="never",
        help="auto: continue what is in RUN_DIR, if anything",
    )
    text = "continue a run from its newest valid checkpoint, on any number of ranks"
    sub = command("resume", resume, text, settings=True)
    sub.add_argument("run_dir", type=absolute_path, metavar="RUN_DIR")
    text = "validate a config, try its terms and predict its cost; needs no GPU and no MPI"
    sub = command("check", check, text, settings=True)
    sub.add_argument("config", type=absolute_path, metavar="CONFIG.toml")
    sub.add_argument("--ranks", type=at_least_one, default=1, metavar="N")
    sub = command("info", info, "what a run or checkpoint is")
    sub.add_argument("path", type=absolute_path, metavar="RUN_DIR|FILE.h5")
    text = "also measure the energy on N fresh points of each part"
    sub.add_argument("--fresh", type=at_least_one, metavar="N", help=text)
    sub.add_argument("--json", action="store_true")
    sub = command("plot", plot, "figure of convergence, sample, fields and errors", problem=True)
    sub.add_argument("paths", type=absolute_path, nargs="+", metavar="RUN_DIR")
    sub.add_argument(
        "-o", "--output", type=absolute_path, metavar="FILE", help="default: RUN_DIR/plot.png"
    )
    text = "some of convergence,timings,sample,fields; default: all"
    sub.add_argument("--show", type=names, default=(), metavar="PANELS", help=text)
    sub = command("compare", compare, "table of runs: error, time to an error, cost")
    sub.add_argument("paths", type=absolute_path, nargs="+", metavar="RUN_DIR")
    sub.add_argument("--json", action="store_true")
    text = "limits, as --json writes them: exit code 1 if a run exceeds one"
    sub.add_argument("--against", type=absolute_path, metavar="FILE.json", help=text)
    text = "factor by which a limit may be exceeded; default: 1.1"
    sub.add_argument("--slack", type=float, default=1.1, metavar="F", help=text)
    text = "the curve and the last figures of a running job, in the terminal"
    sub = command("watch", watch, text)
    sub.add_argument("run_dir", type=absolute_path, metavar="RUN_DIR")
    text = "seconds between two looks; default: 5"
    sub.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help=text)
    text = "write the solution and its derivatives at points (also under mpirun)"
    sub = command("evaluate", evaluate, text, problem=True)
    sub.add_argument("path", type=absolute_path, metavar="RUN_DIR|FILE.h5")
    places = sub.add_mutually_exclusive_group(required=True)
    text = "table or array of points: .csv .txt .parquet .npy .npz .h5"
    places.add_argument("--points", type=absolute_path, metavar="FILE", help=text)
    text = "even grid over the bounds of the domain, e.g. 256x256"
    places.add_argument("--grid", type=grid, metavar="NxN", help=text)
    text = "outputs and derivatives, e.g. u,u_x,lap_u; default: all outputs"
    sub.add_argument("--jets", type=names, default=(), metavar="NAMES", help=text)
    text = "for a march: one of output.times; default: its last state"
    sub.add_argument("--time", type=float, metavar="T", help=text)
    text = ".h5, .npz or .csv"
    sub.add_argument("-o", "--output", type=absolute_path, required=True, metavar="FILE", help=text)
    text = "write a VTKHDF file, which ParaView opens"
    sub = command("export", export, text, problem=True)
    sub.add_argument("path", type=absolute_path, metavar="RUN_DIR|FILE.h5")
    text = "points along each space coordinate of a box, or along the longest side of a shape"
    sub.add_argument("--grid", type=grid, metavar="N|NxN", help=text)
    text = "derivatives beside the outputs, e.g. grad_u,lap_u"
    sub.add_argument("--jets", type=names, default=(), metavar="NAMES", help=text)
    text = "number of times of a problem in space-time; a march has its output.times"
    sub.add_argument("--times", type=at_least_one, default=11, metavar="N", help=text)
    text = "NAME.vtkhdf"
    sub.add_argument("-o", "--output", type=absolute_path, required=True, metavar="FILE", help=text)
    text = "accept a checkpoint or series that was edited on purpose: write its SHA-256 again"
    sub = command("seal", seal, text)
    sub.add_argument("files", type=absolute_path, nargs="+", metavar="FILE.h5")
    command("doctor", doctor, "check MPI, PETSc, torch, GPU, HDF5, threads, SLURM and disk")
    text = 'print completions for a shell: eval "$(nedhpc completion bash)"'
    command("completion", completion, text).add_argument("shell", choices=SHELLS)
    sub = command("tune", tune, "search the settings with the least error", settings=True)
    sub.add_argument("config", type=absolute_path, metavar="CONFIG.toml")
    text = "section.key=low..high or section.key=value,value"
    sub.add_argument("--over", action="append", required=True, metavar="KEY=RANGE", help=text)
    text = "number of trials in all; default: each combination once"
    sub.add_argument("--trials", type=at_least_one, metavar="N", help=text)
    sub.add_argument("--out", type=absolute_path, metavar="DIR", help="default: runs/CONFIG-tune")
    text = "column of series.h5; default: relative_l2, or held_out_energy without a reference"
    sub.add_argument("--measure", metavar="NAME", help=text)
    sub.add_argument("--maximise", action="store_true", help="a large value is good")
    text = 'words before the command of a trial, e.g. "mpirun -n 4"'
    sub.add_argument("--launch", default="", metavar="WORDS", help=text)
    sub.add_argument("--seed", type=int, default=0, help="seed of the proposals")
    text = "write a commented config and problem to begin with: NAME.toml, NAME.py, NAME.csv"
    sub = command("init", init, text)
    sub.add_argument("name", type=absolute_path, metavar="NAME")
    kinds = "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
    sub.add_argument("--kind", choices=list(KINDS), default="steady", help=kinds)
    command("problems", problems, "the catalogue: problems and their options, ready configs")
    return top
