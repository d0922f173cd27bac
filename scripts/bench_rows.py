#!/usr/bin/env python
"""Parameter rows of the Poisson residual: one reverse sweep through the jets against torch.func's vmap(jacrev(hessian)).

Run inside the environment: `scripts/bench_rows.py [--threads N]`. Both are timed in turn in this process; the ratio of medians counts.
"""

import argparse
import statistics
import time

import torch

from nedhpc.ansatz import jets
from nedhpc.ansatz.mlp import MLP

CASES = (("P = 257", 2, [64], 3000), ("P = 10065", 5, [64, 64, 48, 48], 500))


def torch_func_rows(mlp, theta, x):
    """d(-lap u)/d theta by sample, the straightforward way."""
    layers = [
        (w.offset, w.end, w.shape, b.offset, b.end)
        for w, b in zip(mlp.layout[::2], mlp.layout[1::2])
    ]

    def u(theta, x):
        for k, (w0, w1, shape, b0, b1) in enumerate(layers):
            x = theta[w0:w1].view(shape) @ x + theta[b0:b1]
            x = torch.tanh(x) if k < len(layers) - 1 else x
        return x[0]

    def residual(theta, x):
        return -torch.func.hessian(u, argnums=1)(theta, x).diagonal().sum()

    return torch.func.vmap(torch.func.jacrev(residual), in_dims=(None, 0))(theta, x)


def our_rows(mlp, theta, x, layout):
    lin = mlp.linearize(theta, x, layout)
    seed = torch.zeros_like(lin.j_NCM)
    seed[:, -1] = -1
    return lin.rows(seed, torch.empty(len(x), mlp.num_parameters))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_default_dtype(torch.float64)
    print(
        "| case | points | torch.func [ms] | nedhpc [ms] | ratio | largest difference |\n|---|---|---|---|---|---|"
    )
    for name, dim, hidden, num_points in CASES:
        mlp = MLP(dim, hidden, 1)
        theta, x = torch.as_tensor(mlp.initial(0)), torch.rand(num_points, dim)
        layout = jets.parse(("lap_u",), ("u",), tuple(f"x{i}" for i in range(dim)))
        times, results = {"func": [], "ours": []}, {}
        for repeat in range(args.repeats + 1):
            for key, rows in (
                ("func", lambda: torch_func_rows(mlp, theta, x)),
                ("ours", lambda: our_rows(mlp, theta, x, layout)),
            ):
                started = time.perf_counter()
                results[key] = rows()
                if repeat:  # the first is a warm-up
                    times[key].append(1e3 * (time.perf_counter() - started))
        difference = float(
            (results["func"] - results["ours"]).abs().max() / results["func"].abs().max()
        )
        func, ours = (statistics.median(times[key]) for key in ("func", "ours"))
        print(
            f"| {name} | {num_points} | {func:.1f} | {ours:.1f} | {func / ours:.1f} | {difference:.1e} |"
        )


if __name__ == "__main__":
    main()
