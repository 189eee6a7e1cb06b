"""Labels held against a dataset by their images' names; the commands `import` and `export`."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import SMALL, one_sentence, write_camvid
from sources import CLASSES, Pictures, known, save

import alseg
from alseg.cli.app import run_cli
from alseg.engine.images import DecodedImages
from alseg.errors import UserMistake
from alseg.interchange.checking import matched
from alseg.interchange.fields import label
from alseg.interchange.known import Known
from alseg.interchange.labelset import LabelSet, apart, relative
from alseg.interchange.start import read_start
from alseg.interchange.tables import read_csv


def test_images_are_found_by_key_path_file_name_and_stem():
    images = known("street/0001", "forest/0001", "forest/0002", "Übergang", "0a1b2c3d-x", "dotted.name")
    for name, key in {
        "street/0001": "street/0001",
        "/data/street/0001.jpg": "street/0001",
        "C:\\photos\\forest\\0001.PNG": "forest/0001",
        "elsewhere/0002.png": "forest/0002",
        "0002": "forest/0002",
        "U\u0308bergang.tif": "Übergang",
        "0a1b2c3d-x.png": "0a1b2c3d-x",
        "/data/upload/1/0a1b2c3d-0002.png": "forest/0002",  # as Label Studio renames what is uploaded
        "dotted.name": "dotted.name",
        "dotted.name.png": "dotted.name",
        "0003.png": None,
        "": None,
        "/": None,
    }.items():
        assert images.match(name) == key, name
    with pytest.raises(UserMistake, match="may be 'forest/0001' or 'street/0001'"):
        images.match("0001.png")


def test_a_name_means_a_file_of_the_whole_name_before_one_of_that_stem(tmp_path):
    images = Pictures(("photo", "photo.jpg"))
    images.file = (tmp_path / "data/photo.jpg", tmp_path / "data/photo.jpg.png").__getitem__
    for found in (images, DecodedImages(images, CLASSES, 2**20)):
        labelled = Known(CLASSES, {"train": found})
        for name in ("photo", "elsewhere/photo.jpg", "data/photo.jpg", "photo.tif"):
            assert labelled.match(name) == "photo", name
        for name in ("photo.jpg.png", "elsewhere/0a1b2c3d-photo.jpg.png"):
            assert labelled.match(name) == "photo.jpg", name
        with pytest.raises(UserMistake, match=r"'photo\.jpg' is one image's key and the name of another's file"):
            labelled.match("photo.jpg")


def test_an_image_of_another_split_is_not_taken_for_one_called_alike(tmp_path):
    """CSV holds no sizes by which it would be found out."""
    keys = {"train": Pictures(("train/0000", "train/0001")), "val": Pictures(("val/0001", "val/0002"))}
    images = Known(CLASSES, keys, prefers_train=True)
    assert images.match("0001.png") == "train/0001" and images.match("photos/train/0001.png") == "train/0001"
    assert images.match("/data/local-files/?d=val/0001.png") == "val/0001"
    for name in ("val/0001.png", "0002.jpg"):
        (tmp_path / "labels.csv").write_text(f"image,y,x,class\n{name},1,1,sky\n")
        with pytest.raises(UserMistake, match=r"'val/000[12]' is no training image"):
            read_start(tmp_path / "labels.csv", images)


def test_two_names_are_not_one_image(tmp_path):
    labels = LabelSet((label("camA/0002", 1, 1, "sky", {}, 0), label("camB/0002", 2, 2, "sky", {}, 1)))
    with pytest.raises(UserMistake, match="'camA/0002' and 'camB/0002' both seem to be 'val/0002'"):
        matched(labels, known("val/0002", "val/0003"), ignore_missing=True)
    same = ("val/0002", "/data/val/0002.png", "0002")
    labels = LabelSet(tuple(label(name, i, i, "sky", {}, i) for i, name in enumerate(same)))
    assert {found.image for found in matched(labels, known("val/0002"), False).labels} == {"val/0002"}


# The commands


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    data = write_camvid(root / "camvid")
    words = ["run", "--dataset", "camvid", "--data", data, *SMALL, "--rounds", "2", "--first-pixels", "2"]
    assert run_cli([*map(str, [*words, "--pixels-per-round", 2, "--out", root / "run"])]) == 0
    return root / "run"


def test_labels_go_out_and_come_back(cli, run, tmp_path):
    wanted = None
    for name in ("csv", "coco", "label-studio", "napari"):
        out = cli("export", run, "--format", name, "--out", tmp_path / name, "--json")
        assert out.code == 0, out.err
        assert json.loads(out.out) == {"out": str(tmp_path / name), "labels": 24, "images": 6, "notes": []}
        back = cli(
            "import",
            tmp_path / name,
            "--out",
            tmp_path / f"{name}.csv",
            "--dataset",
            "camvid",
            "--data",
            run / "../camvid",
        )
        assert back.code == 0, back.err
        assert (back.out, back.err) == (f"24 labels of 6 images: {tmp_path / name}.csv\n", "")
        wanted = wanted or (tmp_path / "csv").read_bytes()
        assert (tmp_path / f"{name}.csv").read_bytes() == wanted
    assert "train/train00.png" in (tmp_path / "coco").read_text()
    labels = [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()]
    assert [p._asdict() | {"class": p.name} for p in read_csv(tmp_path / "csv").labels] == [
        {"audit": False, **label, "name": label["class"]} for label in labels
    ]
    out = cli("export", run, "--format", "masks", "--out", tmp_path / "masks")
    assert "does not hold rounds" in out.err and out.err.count("\n") == 1
    assert cli("import", tmp_path / "masks", "--out", tmp_path / "masks.csv").code == 0
    assert len(read_csv(tmp_path / "masks.csv").labels) == 24


@pytest.mark.parametrize("named", [False, True])
def test_a_full_disk_is_told_with_the_folder_that_was_asked_for(cli, run, tmp_path, monkeypatch, named):
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([str(path)] if named else []))

    monkeypatch.setattr(Path, "write_bytes", full)
    outcome = cli("export", run, "--format", "masks", "--out", tmp_path / "masks")
    one_sentence(outcome, f"No space left on device: {tmp_path / 'masks'}. Whatever", code=1)
    assert not list(tmp_path.iterdir())


def test_exports_lie_beside_their_run(cli, tmp_path, run):
    (tmp_path / "copy").symlink_to(run)
    assert cli("export", run, "--format", "napari").out.split(": ")[1].strip() == f"{run}-labels-napari"
    assert len(list((run.parent / "run-labels-napari").rglob("*.csv"))) == 6
    one_sentence(cli("export", run, "--format", "napari"), "exists", "another --out")


def test_a_file_is_called_by_its_link_not_by_where_that_leads(cli, run, tmp_path):
    """As git-annex and DVC keep files."""
    shutil.copytree(run.parent / "camvid", tmp_path / "camvid")
    shutil.copytree(run, tmp_path / "run")
    settings = (run / "run.toml").read_text("utf-8").replace(str(run.parent), str(tmp_path))
    (tmp_path / "run/run.toml").write_text(settings, "utf-8")
    link, kept = tmp_path / "camvid/train/train00.png", tmp_path / "camvid/.git/annex/MD5E-0abc.png"
    kept.parent.mkdir(parents=True)
    link.rename(kept)
    link.symlink_to(kept)
    assert cli("export", tmp_path / "run", "--format", "coco").code == 0
    content = json.loads((tmp_path / "run-labels-coco.json").read_text("utf-8"))
    assert [image["file_name"] for image in content["images"]] == [f"train/train{i:02}.png" for i in range(6)]


def test_no_two_images_are_called_alike(tmp_path):
    (tmp_path / "data").symlink_to(tmp_path)
    inside = [tmp_path / "data/x/0.png", tmp_path / "x/0.png"]
    assert [relative(path, tmp_path / "data") for path in inside] == ["x/0.png"] * 2
    assert relative(tmp_path / "0.png", tmp_path / "x") == "0.png"
    assert apart({"a/0": "0.png", "b/0": "0.png", "c": "c.png"}) == {"a/0": "a/0", "b/0": "b/0", "c": "c.png"}
    assert apart({"0": "1", "1": "2", "2": "2"}) == {"0": "0", "1": "1", "2": "2"}


def test_answers_of_an_open_round_go_out_too(cli, tmp_path):
    data = write_camvid(tmp_path / "camvid")
    words = ["run", "--dataset", "camvid", "--data", data, *SMALL, "--oracle", "human", "--first-pixels", 2]
    assert cli(*words, "--no-wait", "--out", tmp_path / "run").code == 3
    one_sentence(cli("export", tmp_path / "run", "--format", "csv"), "no labels yet")
    first = {"event": "answered", "time": "", "item": "r00-0000000", "who": "me", "class": "sky", "seconds": 1.5}
    second = {"event": "unsure", "time": "", "item": "r00-0000003", "who": "me", "seconds": 2}
    (tmp_path / "run/journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in (first, second)))
    assert cli("export", tmp_path / "run", "--format", "csv").code == 0
    found = read_csv(tmp_path / "run-labels.csv").labels
    assert [(p.item, p.name, p.round, p.source, p.who, p.seconds) for p in found] == [
        ("r00-0000000", "sky", 0, "human", "me", 1.5),
        ("r00-0000003", None, 0, "human", "me", 2.0),
    ]
    assert ": 1 here." in cli("export", tmp_path / "run", "--format", "masks").err


def table(path: Path, *rows: str) -> Path:
    path.write_text("image,y,x,class\n" + "".join(row + "\n" for row in rows))
    return path


REFUSED: dict[str, tuple[tuple[str, ...], tuple[object, ...], str]] = {
    "outside": (("train00,64,0,sky",), (), "(y 64, x 0) of 'train00' lies outside the image of 64x64"),
    "an unknown class": (
        ("train00,0,0,skye",),
        (),
        "'skye', at (y 0, x 0) of 'train00', is no class; did you mean sky",
    ),
    "two classes": (("train00,1,2,sky", "train00.png,1,2,road"), (), "is 'sky' and 'road': keep one"),
    "told and not": (("train00,1,2,sky", "train00,1,2,"), (), "can't tell"),
    "unknown images": (
        tuple(f"{name},0,0,sky" for name in ("p", "q", "r", "s", "t", "train00")),
        (),
        "5 images are none of the dataset's images: 'p', 'q', 'r' and 2 more",
    ),
    "no image known": (("p,0,0,sky",), ("--ignore-missing",), "None of the 1 images"),
    "no number": (("train00,0,a,sky",), (), "x is 'a', not a whole number"),
    "below 0": (("train00,-1,0,sky",), (), "y is '-1'"),
    "too many fields": (("train00,1,0,sky,3",), (), "Line 2 of"),
    "no such format": (("train00,0,0,sky",), ("--format", "cocoa"), "did you mean coco"),
    "another format": (("train00,0,0,sky",), ("--format", "coco"), "is no JSON"),
    "thinned points": (("train00,0,0,sky",), ("--thin", 3), "--thin thins label images"),
    "no rows": ((), (), "holds no label"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_imported_is_said(cli, camvid, tmp_path, case):
    rows, words, expected = REFUSED[case]
    source, out = table(tmp_path / "points.csv", *rows), tmp_path / "labels.csv"
    one_sentence(cli("import", source, "--out", out, "--dataset", "camvid", "--data", camvid, *words), expected)
    assert not out.exists()


def test_images_that_are_missing_may_be_left_out(cli, camvid, tmp_path):
    source = table(tmp_path / "points.csv", "train00.png,0,0,sky", "other,0,0,sky", "train00.png,0,0,sky")
    words = ("--out", tmp_path / "labels.csv", "--dataset", "camvid", "--data", camvid, "--ignore-missing")
    outcome = cli("import", source, *words)
    assert outcome.code == 0
    assert "1 labels of 1 images that match none were left out" in outcome.err
    assert "1 labels say what another says" in outcome.err
    assert [p.image for p in read_csv(tmp_path / "labels.csv").labels] == ["train00"]
    one_sentence(cli("import", source, *words), "exists")


def test_labels_of_another_size_are_refused(cli, camvid, tmp_path):
    save(tmp_path / "masks/train00.png", [[0, 1]])
    words = ("--out", tmp_path / "labels.csv", "--dataset", "camvid", "--data", camvid)
    one_sentence(cli("import", tmp_path / "masks", *words), "is 64x64, but its labels are for 1x2")


FLAGS = {
    "neither": (("export", "RUN"), "Give one of --to"),
    "both": (("export", "RUN", "--to", "a.pt2", "--format", "csv"), "Give one of --to"),
    "a round of labels": (("export", "RUN", "--format", "csv", "--round", "0"), "go with --to"),
    "a model's out": (("export", "RUN", "--to", "a.pt2", "--out", "b"), "--out goes with --format"),
    "no such format": (("export", "RUN", "--format", "pixelpick"), "There is no format 'pixelpick'"),
    "no run": (("export", "nowhere", "--format", "csv"), "is no run"),
    "no folder": (("export", "RUN", "--format", "csv", "--out", "no/where.csv"), "There is no folder"),
    "no source": (("import", "nowhere", "--out", "a.csv"), "There is no file or folder nowhere"),
    "no file": (("import", "/dev/null", "--out", "a.csv"), "/dev/null is a device: give a file or folder of labels."),
    "data of no dataset": (("import", "RUN", "--out", "a.csv", "--data", "."), "give --dataset NAME"),
    "thin by nothing": (("import", "RUN", "--out", "a.csv", "--thin", "0"), "--thin takes pixels from 1"),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags_that_do_not_go_together(cli, run, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    words, expected = FLAGS[case]
    one_sentence(cli(*(run if word == "RUN" else word for word in words)), expected)
    assert list(tmp_path.iterdir()) == []


def test_the_calls_of_python(run, tmp_path):
    done = alseg.export_labels(run, "coco", tmp_path / "labels.json")
    assert (done.path, done.labels, done.images, done.notes) == (tmp_path / "labels.json", 24, 6, ())
    done = alseg.import_labels(done.path, tmp_path / "labels.csv", classes=("sky", "building", "pole", "road"))
    assert (done.labels, done.images) == (24, 6)
    with pytest.raises(UserMistake, match="is no class"):
        alseg.import_labels(tmp_path / "labels.csv", tmp_path / "again.csv", classes=("sky", "building"))
