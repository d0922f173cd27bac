"""The command init: a config and a problem to begin with, copied from configs/starters."""

import keyword
from pathlib import Path

from nedhpc.configs_path import configs_folder
from nedhpc.errors import UsageError

KINDS = {
    "steady": "a steady equation on a shape",
    "space-time": "an equation in space and time at once",
    "march": "an equation that is marched in time",
    "inverse": "an unknown coefficient, found from measured values",
    "data": "a function fitted to the columns of a file",
}
"""{kind: what it is}. Each has files in configs/starters, which run where they are, too."""


def init(args) -> None:
    """Write NAME.toml, and what it names: NAME.py, NAME.csv. Existing files are not replaced."""
    made = write(args.name, args.kind)
    for path in made:
        print(path)
    print(f"next: nedhpc check {made[-1]}; nedhpc run {made[-1]}")


def write(target: Path, kind: str) -> list[Path]:
    """Write the files of a starter under another name. Local.

    Args:
        target: path without a suffix; its last part becomes the name of the class.
        kind: a key of KINDS.

    Returns:
        The files, the config last.

    Raises:
        UsageError: a file exists or cannot be written, or the name makes no class.
    """
    stem, name = kind.replace("-", "_"), target.name
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} cannot name a Python class; use letters, digits and _, e.g. my_problem"
        )
    texts = {}
    for path in sorted((configs_folder() / "starters").glob(f"{stem}.*")):
        text = path.read_text().replace(f"class {_camel(stem)}(", f"class {_camel(name)}(")
        text = text.replace(f"{stem}.py:{_camel(stem)}", f"{name}.py:{_camel(name)}")
        texts[target.with_name(name + path.suffix)] = text.replace(f'"{stem}.csv"', f'"{name}.csv"')
    for path in texts:
        if path.exists():
            raise UsageError(f"{path} exists and is not replaced; choose another name")
    try:
        for path, text in texts.items():
            path.write_text(text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
    return list(texts)


def _camel(name: str) -> str:
    """my_problem becomes MyProblem."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_")) or name
