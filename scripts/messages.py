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


OTHER = "part of an error, or a warning"
"""Kind of a text that is collected first, or joined to another one, before it is shown."""
SILENT = ("info", "debug", "print", "command", "add_argument", "add_parser", "ArgumentParser")
"""Calls whose texts are no messages of errors."""
NAMES = ("nedhpc/cli/main.py", "nedhpc/files/descriptions.py")
"""Modules whose texts are help and names."""
MIN_WORDS = 4
"""Shorter texts outside the making of an error are names, not messages."""


def raised(node):
    """(kind, text, line) of each text in a syntax tree that may be shown as an error."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in SILENT:
            return
        if name in CLASSES:  # the message of one error, which may have several parts
            found = " ".join(text for argument in node.args for text in texts(argument))
            if found:
                yield name, found, node.lineno
            return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.Constant | ast.JoinedStr):
        for text in texts(node):
            if len(text.split()) >= MIN_WORDS and " | " not in text:  # that is a type
                yield OTHER, text, node.lineno
        return
    for child in ast.iter_child_nodes(node):
        yield from raised(child)


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
    found = {}
    for path in sorted((ROOT / "nedhpc").rglob("*.py")):
        name, seen = path.relative_to(ROOT), set()
        title = ABOUT.get(name.parts[1], OTHERS)
        tree = ast.parse("" if str(name) in NAMES else path.read_text())
        for kind, text, line in raised(tree):
            flat = " ".join(text.split())
            if flat and flat not in seen:
                seen.add(flat)
                found.setdefault(title, []).append((kind, flat, name, line))
    return found


def page():
    """The page as Markdown."""
    lines = [
        "# Troubleshooting",
        "",
        "First run `nedhpc doctor`: it says what is wrong with the machine and the environment.",
        "`nedhpc check CONFIG.toml` tries a problem before a run. The lists below hold messages of",
        "errors and warnings; `<...>` stands for what differs. Search for some words of the one",
        "that you see: it ends with the remedy.",
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
