"""The command completion: what a shell needs to complete nedhpc's commands, options and files."""

import argparse

from nedhpc.errors import UsageError

SHELLS = ("bash", "zsh", "tcsh")


def completion(args) -> None:
    """Print the shell's completion script."""
    try:
        import shtab
    except ImportError:
        raise UsageError(
            "nedhpc completion needs shtab: pip install 'nedhpc[completion]'"
        ) from None
    from nedhpc.cli.main import parser

    top = parser()
    _complete_files(top, shtab.FILE)
    print(shtab.complete(top, args.shell))


def _complete_files(parser: argparse.ArgumentParser, files: object) -> None:
    """Let every argument that is a path complete file names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                _complete_files(sub, files)
        elif getattr(action.type, "__name__", "") == "absolute_path":
            action.complete = files  # pyright: ignore
