"""torch's default dtype inside a block of code."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def float64_default() -> Iterator[None]:
    """Make float64 torch's default dtype inside the block, and restore the old one after it.

    The user's code may make tensors without a dtype, e.g. `torch.zeros(3)`. With torch's own
    default they would be float32, so that errors below 1e-7 could not be reached. Local.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
