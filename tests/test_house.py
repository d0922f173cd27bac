"""House rules: imports go downward without a cycle; files, functions and lines are short."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "nedhpc"

LAYERS = (
    ("errors", "config", "config_text", "names", "configs_path"),
    ("parallel",),
    ("files",),
    ("domains",),
    ("ansatz",),
    ("problems", "user_code", "user_calls"),
    ("sampling",),
    ("rows",),
    ("solvers",),
    ("flows",),
    ("steppers",),
    ("plan", "network", "march"),
    ("running",),
    ("postprocess",),
    ("api", "cli"),
)
"""Rooms, lowest first. A room imports itself, its neighbours in the same layer, and those below."""
OUTSIDE = {"nedhpc", "nedhpc.__main__"}
"""The package itself and its entry point, which name modules of every layer."""
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_COLUMNS = 450, 40, 100
LONG_FUNCTIONS: dict[str, str] = {
    "nedhpc/cli/main.py:parser": "a list of subcommands and their options, nothing else",
    "scripts/bench_page.py:page": "the text of a page in its order",
}
"""{"file.py:function": why it is longer than others}."""


def python_files(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in python_files("nedhpc")}


def imports(name, path):
    """(module, line, whether at import time) of each import of nedhpc in a file."""
    tree = ast.parse(path.read_text())
    late = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or isinstance(outer, ast.If)
        and ast.unparse(outer.test) == "TYPE_CHECKING"
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: an import is absolute"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [full if full in MODULES else node.module for full in inner]
        else:
            continue
        for imported in found:
            if imported in MODULES and imported != name:
                yield imported, node.lineno, id(node) not in late


def room(name):
    return name.split(".")[1]


def test_each_room_has_a_layer():
    assert {room(name) for name in MODULES if name not in OUTSIDE} <= set(LEVEL)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in OUTSIDE])
def test_imports_go_downward(name):
    """Imports inside functions count too."""
    upward = [
        f"{MODULES[name]}:{line_number}: {room(name)} imports {imported}"
        for imported, line_number, _ in imports(name, MODULES[name])
        if imported in OUTSIDE or LEVEL[room(imported)] > LEVEL[room(name)]
    ]
    assert not upward, "\n".join(upward)


def test_no_import_cycle():
    """Imports at import time, between modules; `import nedhpc` imports none of them."""
    graph = {
        name: {imported for imported, _, early in imports(name, path) if early}
        for name, path in MODULES.items()
    }
    # Remove modules that import none of the others until there are no such modules. Modules that
    # are left form a cycle, or import one.
    while free := {name for name, needs in graph.items() if not needs & set(graph)}:
        graph = {name: needs for name, needs in graph.items() if name not in free}
    assert not graph


def test_files_are_short():
    counts = {path: len(path.read_text().splitlines()) for path in python_files("nedhpc", "tests")}
    assert {str(path): n for path, n in counts.items() if n > MAX_FILE_LINES} == {}


def function_lengths():
    for path in python_files("nedhpc", "scripts", "tests"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                name = f"{path.relative_to(ROOT)}:{node.name}"
                # A docstring may be as long as its Args and Raises need.
                is_described = ast.get_docstring(node) is not None
                first = node.body[0].end_lineno if is_described else node.lineno - 1
                yield name, node.end_lineno - first


def test_functions_are_short():
    found = {name for name, length in function_lengths() if length > MAX_FUNCTION_LINES}
    assert found == set(LONG_FUNCTIONS)


def test_lines_are_short():
    files = [*python_files("nedhpc", "scripts", "tests"), *(ROOT / "scripts").iterdir()]
    texts = [path for path in files if path.is_file() and path.suffix in (".py", "")]
    assert [
        f"{path}:{number}"
        for path in dict.fromkeys(texts)
        for number, text in enumerate(path.read_text().splitlines(), 1)
        if len(text) > MAX_COLUMNS
    ] == []
