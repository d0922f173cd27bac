"""Words of the command line that stand for lists. Local."""

import argparse


def grid(text: str) -> tuple[int, ...]:
    """Parse numbers of points such as 256 or 256x256."""
    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a grid such as 256 or 256x256")
    return tuple(map(int, parts))


def names(text: str) -> tuple[str, ...]:
    """Parse names that commas separate, such as u,u_x."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
