"""torch's default dtype for the time of a block."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def float64_default() -> Iterator[None]:
    """Make float64 torch's default dtype inside the block, and restore the old one after it.

    The user's code makes tensors without naming a dtype, e.g. `torch.zeros(3)`; with torch's own
    default they would be float32 and spoil an error below 1e-7. Local.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
