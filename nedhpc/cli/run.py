"""The commands `nedhpc run` and `nedhpc resume`. Both are collective on all ranks."""

import logging

log = logging.getLogger("nedhpc")


def run(args, comm) -> bool:
    """Run a config, or continue what is in its run folder. True if it was interrupted."""
    from nedhpc import api
    from nedhpc.plan import Plan

    def make():
        return Plan.read(args.config, args.overrides, args.petsc_options, num_ranks=comm.size)

    args.signals.install()
    name = args.config.stem
    named = [setting.partition("=")[0].strip() for setting in args.overrides]
    outcome = api.start(comm, make, args.out, name, args.resume, signals=args.signals, named=named)
    report(comm, outcome.run_dir)
    return outcome.is_interrupted


def resume(args, comm) -> bool:
    """Continue a run from its newest valid checkpoint. True if it was interrupted."""
    from nedhpc import api

    args.signals.install()
    outcome = api.resume(
        comm, args.run_dir, args.overrides, args.petsc_options, signals=args.signals
    )
    report(comm, outcome.run_dir)
    return outcome.is_interrupted


def report(comm, run_dir) -> None:
    """Print the result of a run as one line on stdout. Collective on comm."""
    from nedhpc.parallel.comm import on_rank_0
    from nedhpc.postprocess.info import info

    found = on_rank_0(comm, info, run_dir)
    if comm.rank:
        return
    error = "  error unknown"
    if found["error_is"] == "measured":
        error = "  relative L2 {relative_l2:.3e} (measured)".format_map(found)
    elif found["error_is"] != "unknown":
        error = "  error {error_estimate:.1e} ({error_is})".format_map(found)
        estimates = found["error_estimates"]
        for name, value in estimates.items() if len(estimates) > 1 else []:
            error += f"  error_{name} {value:.1e}"
    for name, value in found["metrics"].items():
        error += f"  {name} {value:.4g}" if isinstance(value, float) else ""
    for name, value in found["coefficients"].items():
        width = found["coefficient_errors"].get(name)
        error += f"  {name} {value:.6g}" + ("" if width is None else f" +- {width:.1e}")
    energy = "" if found["energy"] is None else f"  energy {found['energy']:.3e}"
    print(
        f"{found['status']}  step {found['step']}{energy}{error}  {found['wall_time']:.1f} s  "
        f"{run_dir}",
        flush=True,
    )
    if found["message"]:
        log.info("%s", found["message"])
