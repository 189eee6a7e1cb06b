"""Labels from label images, scribbles and PixelPick, held against a dataset; the commands."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, one_sentence, write_camvid
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import alseg
from alseg.cli.app import run_cli
from alseg.errors import UserMistake
from alseg.interchange.formats import Source, read_source
from alseg.interchange.known import Known
from alseg.interchange.pickles import read_pickle
from alseg.interchange.tables import read_csv
from alseg.interchange.thinning import thinned
from alseg.values import Classes

CLASSES = Classes(("road", "sky", "car"), 255, ((128, 64, 128), (70, 130, 180), (0, 0, 142)))


class Pictures:
    """A dataset's images by name, all of one size, masks of bands."""

    def __init__(self, keys: tuple[str, ...], size: tuple[int, int] = (8, 9), masks: bool = True) -> None:
        self.keys, self.size, self.masks = keys, size, masks

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, i: int) -> str:
        return self.keys[i]

    def image(self, i: int) -> np.ndarray:
        return np.zeros((*self.size, 3), np.uint8)

    def mask(self, i: int) -> np.ndarray | None:
        return (np.indices(self.size).sum(0) + i) % 3 if self.masks else None


def known(*keys: str, **more: Any) -> Known:
    return Known(CLASSES, {"train": Pictures(keys, **more)})


def places(path: Path, **more: Any) -> list[tuple]:
    found = read_source(Source(path, classes=CLASSES, **more))
    return [(p.image, p.y, p.x, p.name) for p in found.labels]


# Label images and scribbles


def save(path: Path, pixels: Any, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(pixels, np.uint8))
    (picture if mode is None else picture.convert(mode)).save(path)
    return path


def test_label_images_become_points(tmp_path):
    save(tmp_path / "a.png", [[255, 0], [2, 255]])
    save(tmp_path / "more/b.png", [[[128, 64, 128], [0, 0, 0]], [[255, 255, 255], [0, 0, 142]]])
    save(tmp_path / "c.png", [[[70, 130, 180, 255], [70, 130, 180, 100]], [[9, 9, 9, 0], [0, 0, 142, 255]]])
    assert places(tmp_path) == [
        *[("a", 0, 1, "road"), ("a", 1, 0, "car")],
        *[("c", 0, 0, "sky"), ("c", 1, 1, "car")],
        *[("more/b", 0, 0, "road"), ("more/b", 1, 1, "car")],
    ]
    assert places(tmp_path / "a.png") == [("a", 0, 1, "road"), ("a", 1, 0, "car")]


def test_classes_beside_label_images_say_what_values_mean(tmp_path):
    save(tmp_path / "a.png", [[10, 20, 0]])
    (tmp_path / "classes.toml").write_text(
        'names = ["x", "y"]\nvalues = [10, 20]\nvoid = 0\ncolours = ["red", "#00ff00"]\n'
    )
    assert places(tmp_path) == [("a", 0, 0, "x"), ("a", 0, 1, "y")]


WRONG = {
    "a value": (lambda p: save(p / "a.png", [[0, 9]]), "holds 9 at (y 0, x 1)"),
    "a colour": (lambda p: save(p / "a.png", [[[1, 2, 3]]]), "holds #010203 at"),
    "a JPEG": (lambda p: save(p / "a.jpg", [[0, 9]]), "must not be a JPEG"),
    "classes of one colour": (
        lambda p: (save(p / "a.png", [[0]]), (p / "classes.toml").write_text('names=["a","b"]\ncolours=["red","red"]')),
        "a colour or value of its own",
    ),
    "no TOML": (lambda p: (save(p / "a.png", [[0]]), (p / "classes.toml").write_text("names")), "are not TOML"),
    "nothing labelled": (lambda p: save(p / "a.png", [[255]]), "holds no label"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_label_image_is_named(tmp_path, case):
    make, expected = WRONG[case]
    make(tmp_path)
    with pytest.raises(UserMistake) as caught:
        places(tmp_path)
    assert expected in str(caught.value)


def test_label_images_without_classes_are_refused(tmp_path):
    save(tmp_path / "a.png", [[0]])
    with pytest.raises(UserMistake, match="give --classes"):
        read_source(Source(tmp_path))


def test_a_stroke_becomes_points_along_its_middle():
    values = np.full((40, 60), -1)
    values[10:15, 5:55] = 1  # five pixels wide
    points = thinned(values, 8)
    assert set(points[:, 0].tolist()) == {12}
    assert (np.diff(np.sort(points[:, 1])) >= 8).all()
    assert 5 <= len(points) <= 7


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), distance=st.integers(1, 9), share=st.floats(0, 1))
def test_thinned_points_are_apart_and_near_enough(seed, distance, share):
    from scipy import ndimage

    random = np.random.default_rng(seed)
    values = np.where(random.random((23, 31)) < share, random.integers(0, 3, (23, 31)), -1)
    points = thinned(values, distance)
    assert (values[points[:, 0], points[:, 1]] >= 0).all()
    assert (points == thinned(values, distance)).all()
    for value in range(3):
        regions, count = ndimage.label(values == value, np.ones((3, 3)))
        for region in range(1, count + 1):
            own = np.array([p for p in points if regions[tuple(p)] == region])
            assert len(own)
            apart = np.hypot(*(own[:, None] - own[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(own))
            assert apart.min() >= distance
            away = np.hypot(*(np.argwhere(regions == region)[:, None] - own[None]).transpose(2, 0, 1)).min(1)
            assert away.max() < distance
    if distance == 1:
        assert len(points) == (values >= 0).sum()


# PixelPick


def query_files() -> dict[str, Any]:
    """What its code writes, and what its older code wrote."""
    y, x = np.array([0, 3, 7]), np.array([8, 1, 0])
    mask = np.zeros((8, 9), bool)
    mask[y, x] = True
    size = {"height": 8, "width": 9}
    return {
        "coordinates": {"/data/camvid/train/b.png": {**size, "x_coords": x, "y_coords": y}},
        "coordinates without a size": {"/data/camvid/train/b.png": {"x_coords": x.tolist(), "y_coords": y}},
        "numpy's own numbers": {"/data/b.png": {"x_coords": list(x), "y_coords": tuple(y)}},
        "masks by name": {"/data/camvid/train/b.png": mask},
        "Fortran order": {"/data/camvid/train/b.png": np.asfortranarray(mask)},
        "a stack": np.stack([np.zeros_like(mask), mask]),
        "a list": [np.zeros((8, 9), bool), mask],
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("case", query_files())
def test_query_files_take_their_classes_from_the_masks(tmp_path, case, protocol):
    path = tmp_path / "queries.pkl"
    path.write_bytes(pickle.dumps(query_files()[case], protocol))
    found = read_source(Source(path, known("b", "a")))
    expected = {(0, 8): "car", (3, 1): "sky", (7, 0): "sky"}
    assert {(p.y, p.x): p.name for p in found.labels} == expected
    assert {p.image for p in found.labels} == {"b"}


def test_older_query_files_are_arrays(tmp_path):
    np.save(tmp_path / "queries.npy", query_files()["a stack"])
    assert len(read_source(Source(tmp_path / "queries.npy", known("a", "b"))).labels) == 3
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserMistake, match="without pickle"):
        read_source(Source(tmp_path / "objects.npy", known("a", "b")))


def test_answers_of_a_person_have_their_classes(tmp_path):
    entry = {"height": 8, "width": 9, "x_coords": [1, 2], "y_coords": [3, 4], "category": ["road", "car"]}
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps({"b.png": entry | {"category_id": [0, 2]}}))
    for source in (Source(path), Source(path, classes=CLASSES), Source(path, known("b", masks=False))):
        assert [p.name for p in read_source(source).labels] == ["road", "car"]
    path.write_bytes(pickle.dumps({"b.png": entry | {"category_id": [0, 3]}}))
    with pytest.raises(UserMistake, match="the class 3; there are 3"):
        read_source(Source(path, classes=CLASSES))


def test_pixels_of_another_grid_move_to_where_their_centres_lie(tmp_path):
    mask = np.zeros((4, 6), bool)
    mask[0, 0] = mask[3, 5] = mask[1, 2] = True
    path = tmp_path / "queries.pkl"
    path.write_bytes(pickle.dumps({"a.png": mask}))
    found = read_source(Source(path, known("a", size=(8, 18))))
    assert [(p.y, p.x) for p in found.labels] == [(1, 1), (3, 7), (7, 16)]


WRONG_QUERIES: dict[str, tuple[Any, str]] = {
    "no images": (3, "no query file"),
    "too few masks": ([np.zeros((8, 9), bool)], "holds 1 masks; the dataset has 2"),
    "no coordinates": ({"a": {"x_coords": [1]}}, "no list y_coords"),
    "uneven": ({"a": {"x_coords": [1], "y_coords": []}}, "0 y_coords and 1 x_coords"),
    "outside its own size": ({"a": {"x_coords": [9], "y_coords": [0], "height": 8, "width": 9}}, "outside its own 8x9"),
    "outside": ({"a": {"x_coords": [9], "y_coords": [0]}}, "outside the image of 8x9"),
    "below 0": ({"a": {"x_coords": [-1], "y_coords": [0]}}, "not a whole number from 0"),
    "probabilities": ({"a": np.zeros((8, 9))}, "no mask"),
    "a number for an image": ({"a": 1}, "neither coordinates nor a mask"),
}


@pytest.mark.parametrize("case", WRONG_QUERIES)
def test_wrong_query_files_are_refused(tmp_path, case):
    content, expected = WRONG_QUERIES[case]
    (tmp_path / "queries.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserMistake) as caught:
        read_source(Source(tmp_path / "queries.pkl", known("a", "b")))
    assert expected in str(caught.value)


class Attack:
    """What a pickle runs when it is loaded as Python loads it."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def attacks(trace: str) -> dict[str, Any]:
    command = f"touch {trace}"
    return {
        "os.system": Attack(os.system, command),
        "eval": Attack(eval, f"open({trace!r}, 'w')"),
        "exec": Attack(exec, f"open({trace!r}, 'w')"),
        "a file": Attack(open, trace, "w"),
        "getattr": Attack(getattr, "", "join"),
        "in a list": {"a": {"x_coords": [Attack(os.system, command)], "y_coords": [0]}},
        "as a name": {Attack(os.system, command): 1},
        "in an array of objects": np.array([Attack(os.system, command)], object),
        "a class": Path("a"),
        "a set": {1, 2},
        "bytes": {"a": b"1"},
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("case", attacks(""))
def test_nothing_in_a_pickle_is_run(tmp_path, case, protocol):
    trace, path = tmp_path / "trace", tmp_path / "queries.pkl"
    path.write_bytes(pickle.dumps(attacks(str(trace))[case], protocol))
    with pytest.raises(UserMistake) as caught:
        read_pickle(path)
    assert not trace.exists()
    assert str(caught.value).endswith(".")


HANDMADE = {
    "a stand-in is changed": b"cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.",
    "a stand-in is changed by slots": b"cnumpy\ndtype\nN}X\x05\x00\x00\x00_makeK\x01s\x86b.",
    "a name within a name": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
    "a persistent identifier": b"Pmodel\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "a type of objects": b"cnumpy\ndtype\n(S'O8'\nI00\nI01\ntR.",
    "an array larger than its content": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I1000000000\ntcnumpy\ndtype\n(S'b1'\ntRI00\nB\x01\x00\x00\x00xtb."
    ),
    "an endless memo": b"\x80\x04r\xff\xff\xff\xff.",
    "a frame beyond the end": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "nothing": b"",
    "nested without end": b"(" * 10**5 + b"l" * 10**5 + b".",
}


@pytest.mark.parametrize("case", HANDMADE)
def test_pickles_made_by_hand_are_refused(tmp_path, case):
    path = tmp_path / "queries.pkl"
    path.write_bytes(HANDMADE[case])
    with pytest.raises(UserMistake):
        read_pickle(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), case=st.sampled_from(list(query_files())), protocol=st.integers(0, 5))
def test_a_broken_pickle_gives_a_sentence_or_values(tmp_path_factory, data, case, protocol):
    content = bytearray(pickle.dumps(query_files()[case], protocol))
    opcodes = [ord(opcode.code) for opcode in pickletools.opcodes]
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.one_of(st.integers(0, 255), st.sampled_from(opcodes))
        )
    path = tmp_path_factory.getbasetemp() / "broken.pkl"
    path.write_bytes(content)
    try:
        read_source(Source(path, known("a", "b")))
    except UserMistake as error:
        said = str(error)
    else:
        said = "labels"
    assert "\n" not in said


# Names


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
        label | {"name": label["class"]} for label in labels
    ]
    out = cli("export", run, "--format", "masks", "--out", tmp_path / "masks")
    assert "does not hold rounds" in out.err and out.err.count("\n") == 1
    assert cli("import", tmp_path / "masks", "--out", tmp_path / "masks.csv").code == 0
    assert len(read_csv(tmp_path / "masks.csv").labels) == 24


def test_exports_lie_beside_their_run(cli, tmp_path, run):
    (tmp_path / "copy").symlink_to(run)
    assert cli("export", run, "--format", "napari").out.split(": ")[1].strip() == f"{run}-labels-napari"
    assert len(list((run.parent / "run-labels-napari").rglob("*.csv"))) == 6
    one_sentence(cli("export", run, "--format", "napari"), "exists", "another --out")


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
    assert "(1 here)" in cli("export", tmp_path / "run", "--format", "masks").err


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
