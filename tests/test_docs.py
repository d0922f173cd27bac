"""The documents: their Python blocks run, and each command that a document shows is valid."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import h5py
import pytest
from processes import ROOT

from nedhpc.cli.main import main, parser
from nedhpc.errors import NotAStateError
from nedhpc.files import checkpoint

sys.path.append(str(ROOT / "scripts"))
check_docs = import_module("check_docs")

README = ROOT / "README.md"
DOCS = ROOT / "docs"
NO_COMMANDS = ("how_it_works", "file_format")
"""Their indented blocks are formulas and layouts."""
DOCUMENTS = (README, *(page for page in sorted(DOCS.glob("*.md")) if page.stem not in NO_COMMANDS))
FILE_FORMAT = DOCS / "file_format.md"
FIXTURES = ROOT / "tests" / "fixtures" / "first_edition"
PLACEHOLDERS = {"CONFIG": "configs/poisson_1d.toml"}

RENAME = "import os; (made,) = os.listdir('runs'); os.rename('runs/' + made, 'runs/mine')"
"""README names the folder of the run runs/mine; the run itself chooses a name with the date."""

CHECKS = """
assert u([[0.5, 0.5]]).shape == (1, 1)
assert abs(u([[0.5, 0.5]]).item() - 0.0736713) < 1e-3, u([[0.5, 0.5]])
assert u.jet("u_xx", [[0.5, 0.5]]).size == 1 and u.gradient([[0.5, 0.5]]).size == 2
assert u.coefficients == {} and u.series["energy"][-1] < u.series["energy"][0]
"""
"""u(1/2, 1/2) of -lap u = 1 with u = 0 on the boundary of the unit square is 0.0736713..."""


def python_blocks(document):
    """The fenced Python blocks without a title of a Markdown file, in order."""
    return re.findall(r"^```python\n(.*?)^```$", document.read_text(), re.M | re.S)


def shell_lines(document):
    """Each command of the indented blocks of a Markdown file as words, without its comment."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)
    lines = [found.group(1) for found in re.finditer(r"^    (\S.*)$", text, re.M)]
    return [words for text in lines if (words := shlex.split(text, comments=True))]


def nedhpc_arguments(words):
    """The arguments of `nedhpc`, without launcher, PETSc options and pipe; None for others."""
    if words[0] == "mpirun":
        words = words[3:]  # mpirun -n RANKS
    if not words or words[0] not in ("nedhpc", "scripts/nedhpc"):
        return None
    words = [PLACEHOLDERS.get(word, word) for word in words[1:]]
    ends = [words.index(word) for word in ("--", "|", ">") if word in words]
    return words[: min(ends, default=None)]


def shown(document):
    """The nedhpc commands of a document that are written out in full: without shell variables."""
    arguments = map(nedhpc_arguments, shell_lines(document))
    return [given for given in arguments if given and not any("$" in word for word in given)]


NEDHPC_COMMANDS = sorted({tuple(given) for document in DOCUMENTS for given in shown(document)})


def python(folder, code):
    """Run code as a file in the folder, as the user does."""
    (folder / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_problem_of_readme_is_solved_and_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    solve, load = python_blocks(README)
    assert len(solve.splitlines()) == 8
    quick = solve.replace("nedhpc.run({", 'nedhpc.run({"run": {"max_steps": 40}, ')
    assert quick != solve
    python(tmp_path, "\n".join([quick, RENAME, load, CHECKS]))


def test_the_table_of_the_document_is_read(tmp_path):
    table, _ = python_blocks(DOCS / "own_data.md")
    check = "assert x.tolist() == [[2.5], [2.6]] and data.y_NM.tolist() == [[0.18], [0.19]]"
    python(tmp_path, f"{table}\n{check}")
    text = (DOCS / "own_data.md").read_text()
    (given,) = re.findall(r"^```toml\n(.*?)^```$", text, re.M | re.S)
    (tmp_path / "case.toml").write_text(given)
    assert main(["check", str(tmp_path / "case.toml")]) == 0


def test_the_problem_of_readme_is_valid_in_a_config(tmp_path, capsys):
    solve, *_ = python_blocks(README)
    (tmp_path / "my_problem.py").write_text(solve.partition("nedhpc.run(")[0])
    (tmp_path / "case.toml").write_text(
        '[problem]\nname = "my_problem.py:MyProblem"\n'
        "[sampling]\ninterior = 900\nboundary = 120\n[weights]\nwall = 10.0\n"
    )
    assert main(["check", str(tmp_path / "case.toml")]) == 0, capsys.readouterr().err


def test_the_coefficient_of_the_document_comes_from_a_table(tmp_path):
    _, plate = python_blocks(DOCS / "own_data.md")
    python(tmp_path, f"{plate}\nfrom nedhpc.plan import Plan\nPlan.of_table({{}}, None, Plate())")


def test_the_march_of_the_document_runs(tmp_path):
    (march,) = python_blocks(DOCS / "time_stepping.md")
    python(tmp_path, march.replace('"max_time"', '"max_steps": 1, "max_time"'))


@pytest.mark.parametrize("given", NEDHPC_COMMANDS, ids=" ".join)
def test_nedhpc_commands_parse(given, monkeypatch, capsys):
    """The parser knows all options; what is run is also a valid config with these overrides."""
    monkeypatch.chdir(ROOT)
    args = parser().parse_args(given)
    if args.command in ("run", "check"):
        overrides = [f"--set={setting}" for setting in args.overrides]
        assert main(["check", str(args.config), *overrides]) == 0, capsys.readouterr().err


def test_the_documents_show_commands():
    """If the layout of a document changes, these tests must still find its commands."""
    assert {"run", "resume", "info", "plot", "check"} <= {given[0] for given in NEDHPC_COMMANDS}


def test_an_edited_file_can_be_sealed_as_the_document_says(tmp_path):
    (line,) = re.findall(r"^    nedhpc (seal .*)$", FILE_FORMAT.read_text(), re.M)
    command, _ = shlex.split(line)
    file = tmp_path / "checkpoint.h5"
    with h5py.File(shutil.copy(next(FIXTURES.glob("ptc/run/checkpoint-*4.h5")), file), "a") as h5:
        h5["state/clock/wall_time"][()] = 12.5
    with pytest.raises(NotAStateError):
        checkpoint.read(file)
    assert main([command, str(file)]) == 0
    assert checkpoint.read(file)[0].wall_time == 12.5


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_files_that_a_document_names_exist(document):
    text = document.read_text()
    links = re.findall(r"\]\(([^):#]+)\)", text)
    missing = [link for link in links if not (document.parent / link).exists()]
    named = re.findall(r"(?<!/)\b(?:scripts|slurm|configs|docs)/[\w/.-]*\w", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_blocks_of_a_document_are_shell(document):
    """`bash -n` parses each indented block."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)
    blocks = re.findall(r"(?:^    .*\n)+", text, re.M)
    for block in blocks:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0 or is_output(block), (block, done.stderr)


def is_output(block):
    """Some blocks show what a program prints instead of what the user types."""
    return block.lstrip().startswith("rank 0 on")


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    """Links, anchors, and each public name of the Python interface."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "troubleshooting" / "index.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", check_docs.followed(), ids=lambda path: path.stem)
def test_a_reader_can_follow_the_page(page):
    """Each command and program of a page succeeds, from top to bottom."""
    script = [sys.executable, "-P", "scripts/check_docs.py", page]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_readme_names_each_room():
    """The table of "How to read the code" and the packages agree."""
    section = README.read_text().partition("## How to read the code")[2]
    rooms = {path.parent.name for path in Path(ROOT / "nedhpc").glob("*/__init__.py")}
    assert {room for room in rooms if f"`{room}/`" not in section} == set()


def test_the_tests_that_the_promises_name_exist():
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)`((?:[:,] `test_\w+`)*)", text)
    assert len(named) > 10
    for file, tests in named:
        code = (ROOT / file).read_text()
        assert all(f"def {test}(" in code for test in re.findall(r"test_\w+", tests)), file
