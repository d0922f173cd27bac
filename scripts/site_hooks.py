"""Hooks of mkdocs: the pages that are made from other files, so that they are never out of date.

| page | from |
|---|---|
| index, contributing, changelog | README.md, CONTRIBUTING.md, CHANGELOG.md |
| python_api | the names of nedhpc.__all__ and their docstrings |
| commands | the help of the command line |
| troubleshooting | the messages of all errors in the code (scripts/messages.py) |
"""

import argparse
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent

COPIED = {"index": "README", "contributing": "CONTRIBUTING", "changelog": "CHANGELOG"}


def on_files(files, config):
    """Add the pages that are made."""
    for name, text in pages().items():
        files.append(File.generated(config, f"{name}.md", content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Name the files outside docs/, because the site does not hold them."""
    markdown = re.sub(r"\]\(\.\./README\.md", "](index.md", markdown)
    return re.sub(r"\[([^\]]+)\]\(\.\./(?!\w+\.md)[^)]+\)", r"\1", markdown)


def pages():
    """{name: Markdown} of the pages that are made."""
    # mkdocs restores sys.path after it has loaded the hooks.
    sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "scripts")) if path not in sys.path]
    from messages import page as messages

    made = {name: moved((ROOT / f"{file}.md").read_text()) for name, file in COPIED.items()}
    return made | {
        "python_api": python_api(),
        "commands": commands(),
        "troubleshooting": messages(),
    }


def moved(text):
    """A document of the root as a page: its links start in docs/."""
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\]\((README|CONTRIBUTING|CHANGELOG)\.md", moved_name, text)


def moved_name(found):
    """The link to the page that a document of the root becomes."""
    names = {file: name for name, file in COPIED.items()}
    return f"]({names[found[1]]}.md"


def python_api():
    """The page of all public names, functions first."""
    import nedhpc

    names = sorted(nedhpc.__all__, key=lambda name: (name[0].isupper(), name))
    entries = [f"::: {nedhpc._WHERE[name]}.{name}" for name in names]
    text = "`import nedhpc` imports neither torch nor MPI, and changes nothing in the process."
    return "\n\n".join(["# Python", text, *entries]) + "\n"


def commands():
    """The page of all commands with their help."""
    from nedhpc.cli.main import parser

    top = parser()
    found = [top, *next(iter(top._subparsers._group_actions)).choices.values()]
    blocks = []
    for sub in found:
        sub.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=96)
        blocks.append(f"## {sub.prog}\n\n```text\n{sub.format_help()}```")
    return "\n\n".join(["# Commands", *blocks]) + "\n"
