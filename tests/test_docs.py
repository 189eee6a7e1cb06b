"""What README and docs say is so."""

from __future__ import annotations

import pickle
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from PIL import Image
from test_folder_dataset import write_pair

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", ["settings.md", "recipes.md"])
def test_pages_made_from_code_are_what_the_code_says(registry, page):
    sys.path.insert(0, str(ROOT / "docs"))
    from generate import PAGES

    assert (ROOT / "docs" / page).read_text() == PAGES[page](registry), "run python docs/generate.py"


def test_the_readmes_plugin_runs(cli, camvid, tmp_path):
    (block,) = (code for code in re.findall(r"```python\n(.+?)```", README, re.DOTALL) if "hookimpl" in code)
    file = tmp_path / "rivals.py"
    file.write_text(block)
    words = ["--plugin", file, "run", "--dataset", "camvid", "--data", camvid, *SMALL, "--acquirer", "rivals"]
    words += ["-o", "acquirer.classes=2", "--first-pixels", 2, "--pixels-per-round", 2, "--rounds", 2]
    outcome = cli(*words, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err


def commands(page: str = README) -> list[str]:
    blocks = re.findall(r"```console\n(.+?)```", page, re.DOTALL)
    return [line[2:].split("#")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def labels_of(folder: Path) -> Path:
    (folder / "labels.csv").write_text("image,y,x,class\nb.png,1,2,road\nc,3,4,sky\n")
    return folder / "labels.csv"


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("alseg run")])
def test_the_readmes_commands_are_understood(cli, camvid, tmp_path, command):
    """Each is run to the end with its own flags, on a tiny dataset and network."""
    for name in ("a.jpg", "b.png", "c.webp"):
        write_pair(tmp_path / "photos", tmp_path / "photos" / "masks", name)
    words = shlex.split(command.replace("CAMVID", str(camvid)).replace("PHOTOS", str(tmp_path / "photos")))[1:]
    if "LABELS" in words:
        words[words.index("LABELS")] = str(labels_of(tmp_path))
    tiny = list(SMALL)
    if "FILE" in words:
        words[words.index("FILE")] = "none"
    if "--dataset" not in words:
        tiny += ["-o", "dataset.train_images=4", "-o", "dataset.val_images=2"]
    for flag in ("--encoder", "--weights", "--size"):  # a flag of its own counts
        if flag in words and flag in tiny:
            at = tiny.index(flag)
            del tiny[at : at + 2]
    person = "human" in words  # who does not come
    outcome = cli(*words, *tiny, "--rounds", 2, "--out", tmp_path / "run", *(["--no-wait"] if person else []))
    assert outcome.code == (3 if person else 0), outcome.err


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("alseg datasets")])
def test_the_readmes_looks_at_datasets_work(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path / "photos", tmp_path / "photos" / "masks", "a.jpg")
    outcome = cli(*shlex.split(command.replace("PHOTOS", "photos"))[1:])
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("page", ["README.md", "docs/labels.md"])
def test_the_imports_that_pages_show_work(cli, camvid, tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path / "photos", tmp_path / "photos" / "masks", "a.jpg")
    mask = np.full((32, 40), 255, np.uint8)
    mask[3:9, 2:30] = 1
    Path("scribbles").mkdir()
    Image.fromarray(mask).save("scribbles/a.png")
    Path("labels.json").write_text("image,y,x,class\na.jpg,1,2,road\n")
    Path("3_query").mkdir()
    mask = np.zeros((64, 64), bool)
    mask[5, 6] = True
    Path("3_query/queries.pkl").write_bytes(pickle.dumps({"/data/train00.png": mask}))
    for command in commands((ROOT / page).read_text()):
        if command.startswith("alseg import"):
            words = shlex.split(command.replace("PHOTOS", "photos").replace("CAMVID", str(camvid)))[1:]
            Path("labels.csv").unlink(missing_ok=True)
            assert cli(*words).code == 0, command


def test_the_targets_that_the_readme_names_exist():
    targets = {
        line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if re.match(r"[a-z-]+:", line)
    }
    assert {command.split()[1] for command in commands() if command.startswith("make ")} <= targets


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
