"""The messages of all errors that nedhpc raises, read from its code.

`page()` is the page "troubleshooting" of the site. The house rule is that a message says what is
wrong, where, the likely cause and the remedy, so that the page needs no text of its own.
"""

import ast
import inspect
import re
from pathlib import Path

from nedhpc import errors

ROOT = Path(__file__).resolve().parent.parent
CLASSES = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, errors.NedError)
}
"""The expected errors by name."""
ABOUT = {
    "domains": "Domains",
    "problems": "Problems and their data",
    "steppers": "Steppers",
    "solvers": "Solvers",
    "flows": "Energies and flows",
    "running": "Runs",
    "files": "Files of a run",
    "parallel": "Ranks, devices and PETSc options",
    "cli": "Commands",
    "postprocess": "Results",
}
"""Titles of the rooms; other modules come under "Config and the rest"."""
OTHERS = "Config and the rest"


COLLECTED = "ConfigError, UsageError or warning"
PARTS = {"ValueError": COLLECTED, "TypeError": COLLECTED, "Stop": "end of a run"}
"""Kinds of the messages of other classes, which become parts of expected errors."""
MIN_WORDS = 4
"""Shorter texts that a function collects are names, not messages."""


def raised(tree):
    """(kind, node) of each place of a module that makes a message.

    Errors are made where they are raised. Mistakes of a config or a problem are collected first,
    and so are warnings: they are appended to a list or yielded.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in (*CLASSES, *PARTS):
                yield PARTS.get(node.func.id, node.func.id), node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "append":
                yield COLLECTED, node
        elif isinstance(node, ast.Yield | ast.AugAssign | ast.Return):
            yield COLLECTED, node


def texts(node):
    """The texts in an expression: of an f-string, of a sum, of a list of messages."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return ["".join(map(part, node.values))]
    return [text for child in ast.iter_child_nodes(node) for text in texts(child)]


def part(node):
    """A part of an f-string. What differs from case to case is shown in angle brackets."""
    if isinstance(node, ast.Constant):
        return node.value
    name = re.sub(r"!r$", "", ast.unparse(node.value))
    words = re.findall(r"[A-Za-z_]\w*", name)
    return f"<{words[-1]}>" if words else "<...>"


def messages():
    """{title: [(kind, message, file, line)]} of all messages in the code."""
    found, seen = {}, set()
    for path in sorted((ROOT / "nedhpc").rglob("*.py")):
        title = ABOUT.get(path.relative_to(ROOT / "nedhpc").parts[0], OTHERS)
        for kind, node in raised(ast.parse(path.read_text())):
            parts = texts(node)
            text = " ".join(" ".join(parts).split())
            longest = max((len(part.split()) for part in parts), default=0)
            is_message = longest >= (1 if kind in CLASSES else MIN_WORDS)
            if is_message and (path, text) not in seen:
                seen.add((path, text))
                entry = (kind, text, path.relative_to(ROOT), node.lineno)
                found.setdefault(title, []).append(entry)
    return found


def page():
    """The page as Markdown."""
    lines = [
        "# Troubleshooting",
        "",
        "First run `nedhpc doctor`: it says what is wrong with the machine and the environment.",
        "`nedhpc check CONFIG.toml` tries a problem before a run. The lists below hold all",
        "messages of errors and warnings; `<...>` stands for what differs from case to case.",
        "Search for a few words of the message that you see: it ends with the remedy.",
        "",
        "| error | exit code | meaning |",
        "|---|---|---|",
    ]
    for name, cls in CLASSES.items():
        meaning = (inspect.getdoc(cls) or "").splitlines()[0]
        lines.append(f"| {name} | {cls.exit_code} | {meaning} |")
    for title, entries in sorted(messages().items(), key=lambda item: item[0] == OTHERS):
        lines += ["", f"## {title}", ""]
        for kind, text, path, number in entries:
            shown = text.replace("`", "'")
            lines.append(f"- `{shown}`  \n  {kind}, {path}:{number}")
    return "\n".join(lines) + "\n"
