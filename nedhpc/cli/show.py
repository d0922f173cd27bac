"""The commands check, info, plot, seal and problems, which run as one process."""

import inspect
import json
import logging
import sys

import numpy as np

from nedhpc.configs_path import configs_folder
from nedhpc.errors import shortened


def check(args) -> None:
    """Validate a config, try each term once, and predict the cost of a step. Local."""
    from nedhpc.plan import Plan
    from nedhpc.problems.integrals import sampled
    from nedhpc.running.observers import made
    from nedhpc.user_code import digests, remember

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    plan = Plan.read(args.config, args.overrides, args.petsc_options, num_ranks=args.ranks)
    made(plan.config.output.observers)
    remember(plan.config, digests(plan.config))
    points = ", ".join(f"{name} {count}" for name, count in plan.counts.items())
    held_out = sum(len(data.held_out_x) for data in plan.data.values())
    if held_out:
        points += f" ({held_out} rows of the data are held out)"
    local = -(-plan.num_rows // args.ranks)
    needs = ", ".join(f"{name} {mebibytes(size)}" for name, size in plan.memory.items())
    print(f"config        {args.config}: valid")
    print(f"network       {network(plan)}")
    print(f"parameters    {plan.energy.num_parameters}")
    print(f"points        {points}")
    for term in sampled(plan.terms):
        jets = ", ".join(term.layout.names) or "none"
        weight = "" if term.weight == 1 else f", weight {term.weight:g}"
        if term in plan.energy.integrals:
            size = f"{term.num_components} components"
            print(f"integral      {term.name} on {term.on}: {size}, jets {jets}")
            continue
        print(
            f"term          {term.name} on {term.on}: {term.rows_per_point} rows a point, jets "
            f"{jets}{weight}"
        )
    for line in scales(plan):
        print(line)
    for text in plan.contradictions():
        print(f"warning       {text}")
    for text in plan.notes():
        print(f"note          {text}")
    print(f"rows          {plan.num_rows}, at most {local} a rank")
    print(f"method        {plan.method}")
    print(f"memory        {mebibytes(sum(plan.memory.values()))} MiB on rank 0 ({needs})")
    print(f"work          {plan.cost.flops / 1e9:.2f} Gflop a step on rank 0")


def network(plan) -> str:
    """The network in words, with the reason for what the program chooses. Local."""
    from nedhpc.network import USUAL_ACTIVATION

    settings = plan.config.network
    if settings.name is not None:
        why = plan.ansatz.slow
        return settings.name + (f" (its rows are slow: {shortened(why)})" if why else "")
    widths = "-".join(map(str, plan.ansatz.widths))
    why = other = ""
    if plan.chooses_hidden:
        layers = "one layer" if len(settings.hidden) == 1 else "two layers"
        why = f" (chosen: {layers} for {plan.problem.domain.dim} coordinates)"
        other = "; one wide layer if that is enough, wider layers if the energy stays large"
    if settings.activation is not None or plan.config.run.start == "random":
        return f"{widths}{why}, {settings.activation or USUAL_ACTIVATION} units{other}"
    other = f"or sin units if they have less energy after a few steps{other}"
    return f"{widths}{why}, {USUAL_ACTIVATION} units, {other}"


def scales(plan) -> list[str]:
    """Lines with the scales that a run starts with and the sizes that balance the rows. Local."""
    from nedhpc.flows.balance import Balance

    arrays, names = plan.first_scales(), plan.problem.outputs
    plan.ansatz.scaling = plan.scaling(arrays)
    lines = [
        f"scale         {name} = {offset:.6g} + {size:.6g} v, from the conditions and the equation"
        for name, offset, size in zip(names, *plan.ansatz.scaling.sizes, strict=True)
        if arrays
    ]
    if plan.balanced:
        theta = plan.ansatz.initial(plan.config.run.seed)
        theta_P = np.concatenate([theta, list(plan.problem.coefficients.values())])
        balance = Balance(plan.ansatz, plan.terms, theta_P, plan.domain, plan.given)
        for name, size_K in balance.typical.items():
            sizes = ", ".join(f"{size:.3g}" for size in size_K.tolist())
            lines.append(
                f"balance       {name}: each row is divided by its own size, about {sizes}"
            )
    return lines


def mebibytes(size: float) -> str:
    """Bytes as text in MiB."""
    return f"{size / 2**20:.0f}"


def info(args) -> None:
    """Print the facts of a run or a checkpoint."""
    from nedhpc.postprocess.info import info as facts

    found = facts(args.path)
    if args.fresh:
        from nedhpc.postprocess.fresh import fresh_energy

        found |= fresh_energy(args.path, args.fresh)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    from nedhpc.postprocess import info_table, tables

    tables.show(tables.pairs(info_table.rows(found)))


def plot(args) -> None:
    """Draw a figure of convergence, timings, sample and fields, and print its path."""
    from nedhpc.cli.look import given_problem
    from nedhpc.postprocess.plot import KINDS
    from nedhpc.postprocess.plot import plot as draw

    output = args.output or args.paths[0] / "plot.png"
    draw(args.paths, output, args.show or KINDS, given_problem(args))
    print(output)


def seal(args) -> None:
    """Seal files that the user edited, and print what they are."""
    from nedhpc.files.edit import accept

    for path in args.files:
        print(f"{accept(path):10} {path}: sealed")


def problems(args) -> None:
    """Print the catalogue with its options, and a line for each ready config."""
    from nedhpc.problems import CATALOGUE

    for name, cls in CATALOGUE.items():
        print(f"{name:12} {(inspect.getdoc(cls) or '').splitlines()[0]}")
        parameters = inspect.signature(cls).parameters.values()
        options = ", ".join(f"{p.name} = {p.default!r}" for p in parameters)
        print(f"{'':12} options: {options}")
    for path in sorted(configs_folder().glob("*.toml")):
        print(f"{path.stem:24} {path.read_text().splitlines()[0].lstrip('# ')}")
