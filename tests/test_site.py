"""The pages that are made from the code: no message, name or command is missing on them."""

import re
from importlib import import_module

import pytest
from conftest import make_table
from processes import ROOT

import nedhpc
from nedhpc import config
from nedhpc.cli.main import main, parser
from nedhpc.errors import NedError
from nedhpc.plan import Plan


@pytest.fixture
def messages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return import_module("messages")


def has(page, text):
    """True if the page has an entry of which this message is a case."""
    flat = " ".join(text.replace("`", "'").split())
    entries = re.findall(r"^- `(.*)`  $", page, re.M)
    patterns = [re.sub(r"<[\w.]+>", ".+", re.escape(entry)) for entry in entries]
    return any(len(pattern) > 20 and re.search(pattern, flat) for pattern in patterns)


@pytest.mark.parametrize(
    "tables",
    [
        {"problem": {"name": "poisson", "dim": 1, "dimm": 2}},
        {"problem": {"name": "missing.py:P"}},
        {"problem": {"name": "regression", "file": "missing.csv"}},
        {"network": {"hidden": [8], "arguments": {"a": 1}}},
        {"sampling": {"interior": 40, "rule": "residual"}},
        {"sampling": {"inlet": 40}},
        {"flow": {"metric": "l3"}},
        {"stepper": {"type": "rk", "petsc_options": "-ts_monitor_python x"}},
        {"run": {"initial": "/no/such/checkpoint.h5"}},
    ],
    ids=str,
)
def test_the_message_of_a_mistake_is_on_the_page(tables, messages):
    with pytest.raises(NedError) as caught:
        Plan(config.validate(make_table(**tables)))
        pytest.skip("only a run finds this mistake")
    lines = str(caught.value).splitlines()
    assert has(messages.page(), lines[-1].strip()), lines


def test_every_error_that_the_code_raises_is_on_the_page(messages):
    """The text that follows a `raise` in its line, up to the first value in it."""
    page = messages.page()
    assert all(f"| {name} |" in page for name in messages.CLASSES)
    pattern = rf'raise (?:{"|".join(messages.CLASSES)})\(\s*f?"([^"{{]+)'
    found = [
        text
        for path in sorted((ROOT / "nedhpc").rglob("*.py"))
        for text in re.findall(pattern, path.read_text())
    ]
    assert len(found) > 50
    flat = [" ".join(text.replace("\\n", " ").replace("`", "'").split()) for text in found]
    assert [text for text in flat if text not in page] == []


def test_made_pages_hold_every_public_name_and_command(monkeypatch):
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    pages = import_module("site_hooks").pages()
    for name in nedhpc.__all__:
        assert f"::: {nedhpc._WHERE[name]}.{name}\n" in pages["python_api"]
    for name in next(iter(parser()._subparsers._group_actions)).choices:
        assert f"## nedhpc {name}\n" in pages["commands"]
    assert "](docs/" not in pages["index"] and "](tutorial/1_start.md)" in pages["index"]


def test_a_page_names_files_outside_the_site_without_a_link(monkeypatch):
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    hook = import_module("site_hooks").on_page_markdown
    given = "[base](../nedhpc/domains/base.py), [home](../README.md), [page](../limits.md)"
    shown = hook(given, None, None, None)
    assert shown == "base, [home](index.md), [page](../limits.md)"


def test_the_navigation_names_every_page():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    docs = ROOT / "docs"
    missing = [str(path.relative_to(docs)) for path in docs.rglob("*.md")]
    assert [name for name in missing if f"- {name}\n" not in nav] == []


def test_help_of_the_new_commands_is_shown(capsys):
    for name in ("init", "doctor", "completion", "tune"):
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0 and f"nedhpc {name}" in capsys.readouterr().out
