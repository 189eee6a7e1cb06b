"""What `alseg plugins new` writes, and the example package: installed as a stranger would, tested and run."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_piece_names import entry_point
from test_plugins import RUN, SMALL_SHAPES, failed

from alseg.errors import UserMistake
from alseg.plugins import load_plugins
from alseg.scaffold import KINDS, REGISTERED, write_package

ROOT = Path(__file__).parent.parent
EXAMPLES = [path.parent for path in sorted((ROOT / "examples").glob("*/pyproject.toml"))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_registers_its_piece(cli, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    outcome = cli("plugins", "new", f"Our-{kind}".lower(), "--kind", kind)
    assert outcome.code == 0, outcome.err
    package = Path(f"our_{kind}")
    assert f"pip install -e {package}" in outcome.out
    files = [path for path in package.rglob("*") if path.is_file()]
    texts = {str(path.relative_to(package)): path.read_text() for path in files}
    assert {"pyproject.toml", "README.md", f"src/our_{kind}/__init__.py", f"tests/test_our_{kind}.py"} <= set(texts)
    left = [
        name for name, text in texts.items() for word in ("my_piece", "my-piece", "MyPiece_", "KIND") if word in text
    ]
    assert left == []
    project = tomllib.loads(texts["pyproject.toml"])["project"]
    assert (project["name"], project["entry-points"]["alseg"]) == (f"our-{kind}", {f"our_{kind}": f"our_{kind}"})
    monkeypatch.syspath_prepend(str(package / "src"))
    registry = load_plugins(entry_points=[entry_point(f"our_{kind}", f"our-{kind}", f"our_{kind}")])
    sys.modules.pop(f"our_{kind}", None)
    assert failed(registry) == {}
    registered = REGISTERED.get(kind, kind)
    found = [(piece.kind, piece.name, piece.is_modifier) for piece in registry.pieces]
    assert found == ([] if registered is None else [(registered, f"our-{kind}", kind == "modifier")])
    assert all(piece.says() for piece in registry.pieces)


OWN = [("model", "model"), ("oracle", "oracle"), ("tracker", "tracker"), ("register", "acquirer"), ("hookimpl", "term")]


@pytest.mark.parametrize(("name", "kind"), OWN)
def test_a_name_that_the_code_uses_itself_is_refused(tmp_path, name, kind):
    with pytest.raises(UserMistake, match=f"'{name}' means something else .*such as my_{kind}"):
        write_package(name, kind, tmp_path / "package")
    assert write_package(f"{name}_of_mine", kind, tmp_path / "package").is_dir()


def test_a_new_datasets_images_are_read_as_alsegs_own_are(tmp_path):
    (train := tmp_path / "data" / "train").mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(np.full((4, 6), 155 * 257, np.uint16)).save(train / "a.png", exif=turned)
    package = write_package("pictures", "dataset", tmp_path / "pictures")
    pictures = runpy.run_path(str(package / "src" / "pictures" / "__init__.py"))["pictures"]
    image = pictures(tmp_path / "data").images("train").image(0)
    assert (image.shape, image.dtype) == ((6, 4, 3), np.uint8)
    assert set(np.unique(image)) == {155}, "and its 16 bits are scaled"


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A package of each kind, and the examples."""
    place = tmp_path_factory.mktemp("packages")
    return [*(write_package(f"my_{kind}", kind, place / f"my_{kind}") for kind in KINDS), *EXAMPLES]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory, packages):
    """Runs a module's command line where the packages are installed in a folder of their own."""
    folder = tmp_path_factory.mktemp("installed")
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", folder]
    subprocess.run([sys.executable, *map(str, words), *map(str, packages)], check=True)

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "2"}
        place = folder.parent
        command = [sys.executable, "-m", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place, timeout=900)

    return call


@pytest.mark.slow
def test_the_packages_are_listed_and_keep_their_contracts(stranger, packages):
    rows = json.loads(stranger("alseg", "plugins", "--json").stdout)
    others = {row["name"]: (row["kind"], row["status"]) for row in rows if row["distribution"] != "alseg"}
    kinds = {f"my-{kind}": (REGISTERED.get(kind, kind), "ok") for kind in KINDS if REGISTERED.get(kind, kind)}
    bare = {f"my_{kind}": (None, "ok") for kind in KINDS if REGISTERED.get(kind, kind) is None}
    assert others == kinds | bare | {"ripu": ("acquirer", "ok")}
    assert not any(row["warning"] for row in rows if row["distribution"] != "alseg")
    tested = stranger("pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *packages)
    assert tested.returncode == 0, tested.stdout[-4000:]
    hidden = json.loads(stranger("alseg", "plugins", "--json", "--no-third-party").stdout)
    assert {row["distribution"] for row in hidden} == {"alseg"}


@pytest.mark.slow
def test_the_packages_pieces_run(stranger, tmp_path):
    pieces = [
        "--acquirer",
        "my-modifier:my-acquirer",
        "--selector",
        "my-selector",
        "--oracle",
        "my-oracle",
        "--model",
        "my-model",
    ]
    pieces += ["-o", "terms=my-term", "-o", "trackers=my-tracker", "-o", "selector.cell=8"]
    words = ["run", "--dataset", "shapes", *SMALL_SHAPES, "-o", "train.epochs=1", "--rounds", "2", "--device", "cpu"]
    run = tmp_path / "run"
    done = stranger("alseg", *words, *pieces, "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"][1]["labelled_pixels"] > 0
    assert len((run / "curve.csv").read_text().splitlines()) == 2
    assert json.loads((run / "my-hooks.json").read_text())["state"] == "finished"
    counted = stranger("alseg", "my-command", run)
    assert int(counted.stdout) == len((run / "labels.jsonl").read_text().splitlines())
    done = stranger("alseg", *RUN, "--acquirer", "ripu", "-o", "acquirer.reach=2", "--out", tmp_path / "ripu")
    assert done.returncode == 0, done.stderr
    compared = stranger(
        *("alseg", "compare", *RUN[1:], "--acquirers", "ripu", "--selectors", "topk", "--seeds", "1"),
        *("--executor", "my-executor", "--out", tmp_path / "compared"),
    )
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "compared" / "summary.csv").exists()
