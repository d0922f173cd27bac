#!/usr/bin/env python
"""Compare the time of rows, of a step and of start-up with torch.func and another checkout.

Run inside the environment: `scripts/bench_rows.py [--against CHECKOUT] [--threads N]`.

The rows are those of the residual -lap u. They are compared with vmap(jacrev(hessian)) of
torch.func, and with the rows of the same network as a torch module of a user. If another checkout
is given, its rows, its ptc step and the start of its command line are also measured. The
measurements alternate between the two revisions, so that a busy machine slows both. The tables show
medians. Each revision has one worker process, whose PYTHONPATH chooses the revision.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CASES = {
    "P = 257, N = 3000": (2, [64], 3000),
    "P = 10065, N = 500": (5, [64, 64, 48, 48], 500),
    "2-30-30-1, N = 1020": (2, [30, 30], 1020),
}
STEPS = {
    "poisson_2d": ("configs/poisson_2d.toml", []),
    "poisson_5d, N = 1200": (
        "configs/poisson_5d.toml",
        ["sampling.interior=1000", "sampling.boundary=200"],
    ),
}


def step_seconds(checkout, environment, config, num_steps, settings=()):
    """The seconds of a step of a run, as the run itself measures them, start-up not counted.

    Args:
        checkout: the revision that runs; it must be on the PYTHONPATH of `environment`.
        environment: of the run's process.
        config: path in the checkout.
        num_steps: steps of the run.
        settings: "section.key=value" overrides.
    """
    from nedhpc.files import series  # not in the worker of a first edition

    settings = [*settings, f"run.max_steps={num_steps}", f"output.every_steps={num_steps}"]
    overrides = [word for setting in settings for word in ("--set", setting)]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        command = [
            sys.executable,
            "-P",
            "-m",
            "nedhpc",
            "run",
            config,
            *overrides,
            "--out",
            run_dir,
        ]
        done = subprocess.run(
            command, env=environment, cwd=checkout, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stderr)
        wall_time = series.read(run_dir / "series.h5")["wall_time"]
    return (wall_time[-1] - wall_time[0]) / num_steps


class Rows:
    """Rows of one case, computed by the revision that is on the path."""

    def __init__(self, dim, hidden, num_points):
        import torch

        try:
            from nedhpc.ansatz import jets
            from nedhpc.ansatz.mlp import MLP
        except ImportError:  # the first edition
            from nedhpc.networks import MLP

            from nedhpc import jets
        torch.set_default_dtype(torch.float64)
        self.mlp = MLP(dim, hidden, 1)
        self.theta_P = torch.as_tensor(self.mlp.initial(0))
        self.x_ND = torch.rand(num_points, dim, generator=torch.Generator().manual_seed(0))
        self.layout = jets.parse(("lap_u",), ("u",), tuple(f"x{i}" for i in range(dim)))

    def ours(self):
        """The rows, by the linearisation of the network."""
        import torch

        linearise = getattr(self.mlp, "linearise", None) or self.mlp.linearize
        lin = linearise(self.theta_P, self.x_ND, self.layout)
        seed = torch.zeros_like(lin.j_NCM)
        seed[:, -1] = -1
        return lin.rows(seed, torch.empty(len(self.x_ND), self.mlp.num_parameters))

    def own(self):
        """The rows of the same network as a torch module of a user."""
        import torch

        from nedhpc.ansatz.traced import TracedNetwork

        if not hasattr(self, "traced"):
            layers = []
            for weight in self.mlp.layout[::2]:
                layers += [torch.nn.Linear(*weight.shape[::-1]), torch.nn.Tanh()]
            module = torch.nn.Sequential(*layers[:-1])
            self.traced = TracedNetwork(module, 1, self.x_ND.shape[1])
        lin = self.traced.linearise(self.theta_P, self.x_ND, self.layout)
        seed = torch.zeros_like(lin.j_NCM)
        seed[:, -1] = -1
        return lin.rows(seed, torch.empty(len(self.x_ND), self.mlp.num_parameters))

    def func(self):
        """The rows, by torch.func in the straightforward way."""
        import torch

        layers = [
            (w.offset, w.end, w.shape, b.offset, b.end)
            for w, b in zip(self.mlp.layout[::2], self.mlp.layout[1::2], strict=True)
        ]

        def u(theta, x):
            for k, (w0, w1, shape, b0, b1) in enumerate(layers):
                x = theta[w0:w1].view(shape) @ x + theta[b0:b1]
                x = torch.tanh(x) if k < len(layers) - 1 else x
            return x[0]

        def residual(theta, x):
            return -torch.func.hessian(u, argnums=1)(theta, x).diagonal().sum()

        jacobian = torch.func.jacrev(residual)
        return torch.func.vmap(jacobian, in_dims=(None, 0))(self.theta_P, self.x_ND)


def work(threads):
    """For each line [case, method] on stdin, print its seconds (or the difference) to stdout."""
    import torch

    torch.set_num_threads(threads)
    cases = {name: Rows(*case) for name, case in CASES.items()}
    for line in sys.stdin:
        name, method = json.loads(line)
        if method == "difference":
            ours, func = cases[name].ours(), cases[name].func()
            answer = float((ours - func).abs().max() / func.abs().max())
        else:
            started = time.perf_counter()
            getattr(cases[name], method)()
            answer = time.perf_counter() - started
        print(answer, flush=True)


class Revision:
    """A checkout: its worker process and its command line."""

    def __init__(self, path, threads):
        self.path, self.threads = Path(path).resolve(), threads
        self.environment = os.environ | {
            "PYTHONPATH": str(self.path),
            "OMP_NUM_THREADS": str(threads),
        }
        self.worker = subprocess.Popen(
            [sys.executable, __file__, "--worker", "--threads", str(threads)],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, case, method):
        print(json.dumps([case, method]), file=self.worker.stdin, flush=True)
        return float(self.worker.stdout.readline())

    def command(self, *arguments):
        """Seconds of a nedhpc command."""
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-P", "-m", "nedhpc", *arguments],
            env=self.environment,
            cwd=self.path,
            check=True,
            capture_output=True,
            text=True,
        )
        return time.perf_counter() - started

    def step(self, case, num_steps):
        config, settings = STEPS[case]
        settings = [*settings, f"device.threads={self.threads}"]
        return step_seconds(self.path, self.environment, config, num_steps, settings)

    def check(self):
        return self.command("check", "configs/poisson_2d.toml")

    def start(self):
        """Seconds of a whole run that takes no step."""
        with tempfile.TemporaryDirectory() as folder:
            settings = ["--set", "run.max_steps=0", "--out", str(Path(folder) / "run")]
            return self.command("run", "configs/poisson_2d.toml", *settings)


def measure(revisions, args):
    """{measurement: [median seconds of each revision]}. The revisions are measured in turn."""
    wanted = {f"rows, {case}": (lambda r, c=case: r.ask(c, "ours"), args.repeats) for case in CASES}
    wanted |= {
        f"ptc step, {case}": (lambda r, c=case: r.step(c, args.steps), args.runs) for case in STEPS
    }
    wanted["nedhpc check"] = (Revision.check, args.runs)
    wanted["nedhpc run, no step"] = (Revision.start, args.runs)
    found = {}
    for name, (timed, repeats) in wanted.items():
        times = [[timed(revision) for revision in revisions] for _ in range(repeats + 1)]
        found[name] = [statistics.median(column) for column in zip(*times[1:], strict=True)]
    return found


def table(header, rows):
    """Print a Markdown table."""
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(row) + " |")


def compare_with_torch_func(revision, repeats):
    rows = []
    for case in CASES:
        times = [
            [revision.ask(case, method) for method in ("func", "ours", "own")]
            for _ in range(repeats)
        ]
        medians = (1e3 * statistics.median(column) for column in zip(*times[1:], strict=True))
        func, ours, own = medians
        difference = revision.ask(case, "difference")
        rows.append([case, f"{func:.1f}", f"{ours:.1f}", f"{func / ours:.1f}"])
        rows[-1] += [f"{own:.1f}", f"{own / ours:.2f}", f"{difference:.0e}"]
    header = ["rows", "torch.func [ms]", "nedhpc [ms]", "ratio"]
    table([*header, "own network [ms]", "over nedhpc", "largest difference"], rows)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", help="another checkout to compare with")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=51, help="of the rows")
    parser.add_argument("--runs", type=int, default=3, help="of the command line")
    parser.add_argument("--steps", type=int, default=10, help="of a run")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.threads)
        return
    paths = [ROOT, *([args.against] if args.against else [])]
    revisions = [Revision(path, args.threads) for path in paths]
    compare_with_torch_func(revisions[0], min(args.repeats, 8))
    print()
    found = measure(revisions, args)
    header = ["median", "this checkout [ms]"]
    if args.against:
        header += [f"{args.against} [ms]", "ratio"]
    rows = []
    for name, seconds in found.items():
        ratio = [f"{seconds[0] / seconds[1]:.2f}"] if args.against else []
        rows.append([name, *(f"{1e3 * t:.1f}" for t in seconds), *ratio])
    table(header, rows)


if __name__ == "__main__":
    main()
