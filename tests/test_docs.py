"""What README and docs say is so."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SMALL
from pages import DOCS, ROOT, Block, Reader, blocks, finished_run, furnish

from alseg.plugins import GIVEN, Registry, load_plugins

sys.path.insert(0, str(DOCS))

README = ROOT / "README.md"
MADE = {DOCS / name for name in ("settings.md", "recipes.md")} | set((DOCS / "reference").glob("*.md"))
WRITTEN = sorted(set(DOCS.rglob("*.md")) - MADE)
TOLD = [page for page in WRITTEN if any(block.language in ("python", "console") for block in blocks(page))]


def called(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="session")
def first_party() -> Registry:
    return load_plugins(third_party=False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    return finished_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def reader(cli, tmp_path, monkeypatch, finished) -> Iterator[Reader]:
    """Somebody in a folder with what pages speak of."""
    furnish(tmp_path, finished)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setattr(sys, "path", [*sys.path])  # to which pages' packages are added
    yield Reader(cli, tmp_path)
    for name, module in list(sys.modules.items()):  # or another page that makes a package of this name finds it there
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


LONG = ("docs/guides/plugins.md", "docs/zoo.md")  # pages with examples of every kind of piece
FOLLOWED = [pytest.param(page, marks=pytest.mark.slow if called(page) in LONG else ()) for page in TOLD]


@pytest.mark.parametrize("page", FOLLOWED, ids=[called(page) for page in TOLD])
def test_a_page_may_be_followed_from_top_to_bottom(reader, page):
    reader.read(page)


@pytest.mark.slow
def test_a_tutorials_comparisons_are_carried_out(reader):
    """With one seed; elsewhere they are understood, and every run of theirs is resolved."""
    reader.real = True
    reader.read(DOCS / "tutorials" / "write-an-acquirer.md")


def commands(page: Path = README) -> list[str]:
    return [command for block in blocks(page) if block.language == "console" for command in block.commands()]


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("alseg")])
def test_the_readmes_commands_are_understood(reader, command):
    """Each is carried out with its own flags, on a tiny dataset and network."""
    for run in re.findall(r"runs/[a-z-]+\d", command):  # of a command before it
        shutil.copytree("runs/NAME", run)
    reader.give(command)


def test_the_readmes_plugin_runs(cli, camvid, tmp_path):
    (block,) = (block.text for block in blocks(README) if "hookimpl" in block.text)
    file = tmp_path / "rivals.py"
    file.write_text(block)
    words = ["--plugin", file, "run", "--dataset", "camvid", "--data", camvid, *SMALL, "--acquirer", "rivals"]
    words += ["-o", "acquirer.classes=2", "--first-pixels", 2, "--pixels-per-round", 2, "--rounds", 2]
    outcome = cli(*words, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err


def test_blocks_that_are_not_run_say_why():
    """They are few, and each is known here."""
    left: dict[str, list[Block]] = {called(page): [each for each in blocks(page) if each.not_run] for page in WRITTEN}
    assert {page: [each.not_run for each in found] for page, found in left.items() if found} == NOT_RUN


NOT_RUN: dict[str, list[str]] = {}


def test_pages_made_from_code_are_what_the_code_says(first_party):
    from generate import PAGES

    assert {DOCS / name for name in PAGES} == MADE
    for name, make in PAGES.items():
        assert (DOCS / name).read_text() == make(first_party), f"{name}: run python docs/generate.py"


def test_every_piece_is_documented(first_party):
    page = (DOCS / "reference" / "pieces.md").read_text()
    for piece in first_party.pieces:
        assert re.search(rf"`{re.escape(piece.name)}[`:]|^### {re.escape(piece.name)}$", page, re.MULTILINE), piece.name
        assert piece.says() or piece.kind == "recipe", f"{piece.described()} has no docstring"


def test_every_strategy_is_explained(first_party):
    """What it computes, and after whom."""
    page = (DOCS / "strategies.md").read_text()
    for kind in ("acquirer", "selector", "term"):
        for piece in first_party.of(kind):
            assert f"`{piece.name}`" in page or f"`{piece.name}:" in page, (
                f"{piece.described()} is not in strategies.md"
            )


def test_every_hook_is_documented_with_an_example():
    from reference_pages.interfaces import hooks_of

    reference, examples = ((DOCS / name).read_text() for name in ("reference/hooks.md", "guides/plugins.md"))
    names = [hook.__name__ for hook in hooks_of()]
    assert {f"register_{kind}s" for kind in GIVEN} <= set(names)
    for name in names:
        assert f"## {name}\n" in reference, name
        assert f"\ndef {name}(" in examples, f"{name} has no example"


def test_every_command_is_documented(first_party):
    import typer
    from reference_pages.commands import commands_of

    from alseg.cli.app import build_app

    page = (DOCS / "reference" / "commands.md").read_text()
    for words, command in commands_of(typer.main.get_command(build_app(first_party))):
        assert re.search(rf"^#+ {' '.join(words)}$", page, re.MULTILINE), words
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert any(f"`{name}" in page for name in parameter.opts), parameter.opts


def test_every_name_that_alseg_exports_is_documented():
    import alseg

    page = "".join((DOCS / "reference" / name).read_text() for name in ("python.md", "protocols.md"))
    for name in alseg.__all__:
        assert re.search(rf"^#+ {name}$|^\| `{name}` \|", page, re.MULTILINE), name


def test_the_targets_that_the_readme_names_exist():
    targets = {
        line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if re.match(r"[a-z-]+:", line)
    }
    assert {shlex.split(command)[1] for command in commands() if command.startswith("make ")} <= targets


@pytest.mark.parametrize("page", [README, *sorted(DOCS.rglob("*.md"))], ids=called)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
