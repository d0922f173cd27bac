#!/usr/bin/env python
"""Execute the documents: `scripts/check_docs.py [PAGE.md ...]`, inside the environment.

Each page is followed from top to bottom in an empty folder, as a reader would do it:

| block | what is done |
|---|---|
| ```sh | run by bash; it must succeed |
| ```python | run as a program, which must succeed |
| ```python or toml with title="NAME" | written into the file NAME |
| ```text | nothing: it shows an output |

Without arguments it follows the pages of the tutorial and every page in FOLLOWED. Indented blocks
of other pages, e.g. of sbatch, are tried by tests/test_docs.py as far as that is possible.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FOLLOWED = ("observers",)
"""Pages beside the tutorial's."""
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
SECONDS = 300


def followed():
    """The pages to follow."""
    return [*sorted((DOCS / "tutorial").glob("*.md")), *(DOCS / f"{name}.md" for name in FOLLOWED)]


def blocks(page):
    """(kind, title or "", text) of each fenced block."""
    return BLOCK.findall(page.read_text())


def follow(page, folder):
    """Follow a page in a folder.

    Raises:
        AssertionError: a block failed; its text and what it printed.
    """
    programs = folder / ".programs"
    programs.mkdir()
    program = programs / "nedhpc"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m nedhpc "$@"\n')
    program.chmod(0o755)
    (folder / "configs").symlink_to(ROOT / "configs")
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if os.getuid() == 0:
        environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    for kind, title, text in blocks(page):
        if title:
            (folder / title).write_text(text)
            continue
        words = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
        if kind not in words:
            continue
        done = subprocess.run(
            [*words[kind], text],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{page}:\n{text}\n{done.stdout}\n{done.stderr}"


def main():
    failed = 0
    for page in [Path(word) for word in sys.argv[1:]] or followed():
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                follow(page, Path(folder))
                error = ""
            except (AssertionError, subprocess.TimeoutExpired) as caught:
                error, failed = str(caught), 1
        print(f"{page.stem}: {error or 'ok'} after {time.monotonic() - started:.0f} s", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
