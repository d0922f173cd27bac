"""The command line."""

from nedhpc.cli.main import main

__all__ = ["main"]
