"""Labels through every format and back, and the files in the programs that they are for."""

from __future__ import annotations

import csv
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from alseg.colours import colours_of
from alseg.errors import UserMistake
from alseg.interchange.checking import checked
from alseg.interchange.filenames import file_names
from alseg.interchange.formats import FORMATS, Source, read_source, recognised
from alseg.interchange.labelset import LabelSet
from alseg.values import Classes, PixelLabel

LOSSLESS = ("csv", "coco", "label-studio", "napari")
WRITTEN = (*LOSSLESS, "masks")
many = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
ODD = [
    'a,"b"',
    "new\nline",
    "cr\rlf\r\n",
    "Straße/Übergang",
    "a/b",
    "../up",
    ".hidden",
    "x;y\tz",
    "\u2028",
    " lead ",
    "a",
]
ODD += ["a.png", "A", "a/b.png/c", "'; --", "=1+1", "can't tell", "null", "007", "\x00", "C:\\photos\\1.jpg", "n" * 300]
names = st.one_of(st.sampled_from(ODD), st.text(min_size=1, max_size=12))


@st.composite
def label_sets(draw: st.DrawFn) -> LabelSet:
    """Few labels with everything that can be odd about them, some of them in the corners."""
    sizes = draw(st.dictionaries(names, st.tuples(st.integers(1, 40), st.integers(1, 3000)), min_size=1, max_size=4))
    classes = Classes(
        tuple(draw(st.lists(names, min_size=1, max_size=5, unique=True))), draw(st.sampled_from([11, 255, -1]))
    )
    labels: list[PixelLabel] = []
    for image, (height, width) in sizes.items():
        inside = st.tuples(st.integers(0, height - 1), st.integers(0, width - 1))
        corners = st.sampled_from([(y, x) for y in (0, height - 1) for x in (0, width - 1)])
        for y, x in draw(st.lists(st.one_of(inside, corners), max_size=6, unique=True)):
            labels.append(
                PixelLabel(
                    item=f"r00-{len(labels):07}{draw(st.sampled_from(['', ',', chr(10)]))}",
                    image=image,
                    y=y,
                    x=x,
                    name=draw(st.one_of(st.none(), st.sampled_from(classes.names))),
                    round=draw(st.integers(0, 99)),
                    source=draw(st.sampled_from(["human", "", 'a,"b"'])),
                    who=draw(st.one_of(st.just(""), names)),
                    seconds=draw(st.one_of(st.none(), st.floats(0, 1e6), st.integers(0, 9))),
                    audit=draw(st.booleans()),
                )
            )
    if not labels:
        labels = [PixelLabel("r00-0000000", next(iter(sizes)), 0, 0, None, 0, "human", "")]
    return LabelSet(tuple(labels), sizes, classes)


def written(labels: LabelSet, name: str, folder: Path) -> Path:
    """The file or folder that an export leaves."""
    write = FORMATS[name].write
    assert write is not None
    content, path = write(labels), folder / f"labels{FORMATS[name].suffix or ''}"
    if isinstance(content, bytes):
        path.write_bytes(content)
        return path
    for inside, part in content.items():
        (path / inside).parent.mkdir(parents=True, exist_ok=True)
        assert not (path / inside).exists()
        (path / inside).write_bytes(part)
    return path


def in_order(labels: LabelSet) -> list[PixelLabel]:
    return sorted(labels.labels, key=lambda label: label.item)


@pytest.mark.parametrize("name", LOSSLESS)
@many
@given(labels=label_sets())
def test_nothing_is_lost(name, labels):
    with tempfile.TemporaryDirectory() as folder:
        path = written(labels, name, Path(folder))
        assert recognised(path) == name
        found = read_source(Source(path))
    assert in_order(found) == in_order(labels)
    assert all(labels.sizes[image] == size for image, size in found.sizes.items())
    assert checked(found, labels.classes).notes == ()


@many
@given(labels=label_sets())
def test_masks_hold_places_and_classes(labels):
    with tempfile.TemporaryDirectory() as folder:
        path = written(labels, "masks", Path(folder))
        known = {
            (label.image, label.y, label.x): label.name for label in labels.labels if label.name and not label.audit
        }
        if not known:
            with pytest.raises(UserMistake, match="holds no label"):
                read_source(Source(path))
            return
        assert recognised(path) == "masks"
        found = read_source(Source(path))
    assert {(label.image, label.y, label.x): label.name for label in found.labels} == known
    assert found.classes is not None and labels.classes is not None
    assert found.classes.names == labels.classes.names
    assert found.classes.colours == colours_of(labels.classes)


@pytest.mark.parametrize("count", [1, 24, 255, 256, 300])
def test_masks_of_many_classes(tmp_path, count):
    classes = Classes(tuple(f"class {i}" for i in range(count)), 65535 if count > 255 else 255)
    labels = tuple(PixelLabel(f"i{i}", "a", 0, i, name, 0, "s", "") for i, name in enumerate(classes.names))
    found = read_source(Source(written(LabelSet(labels, {"a": (1, count)}, classes), "masks", tmp_path)))
    assert [label.name for label in found.labels] == list(classes.names)


def test_a_mask_shows_its_classes_colours(tmp_path):
    classes = Classes(("road", "sky"), 11, ((1, 2, 3), (250, 0, 9)))
    labels = (PixelLabel("i", "a", 1, 2, "sky", 0, "s", ""),)
    path = written(LabelSet(labels, {"a": (3, 4)}, classes), "masks", tmp_path)
    with Image.open(path / "a.png") as picture:
        assert (np.asarray(picture) == np.where(np.arange(12).reshape(3, 4) == 6, 1, 11)).all()
        assert picture.convert("RGB").getpixel((2, 1)) == (250, 0, 9)


def test_classes_that_share_a_colour_come_back(tmp_path):
    classes = Classes(("road", "sky", "car"), 255, ((9, 9, 9), (9, 9, 9), (0, 0, 1)))
    labels = tuple(PixelLabel(f"i{i}", "a", 0, i, name, 0, "s", "") for i, name in enumerate(classes.names))
    path = written(LabelSet(labels, {"a": (1, 3)}, classes), "masks", tmp_path)
    assert [label.name for label in read_source(Source(path)).labels] == list(classes.names)
    with Image.open(path / "a.png") as picture:
        assert len({picture.convert("RGB").getpixel((i, 0)) for i in range(3)}) == 3, "seen apart as well"


@pytest.mark.parametrize("name", WRITTEN)
def test_a_hundred_thousand_points_take_seconds(tmp_path, name):
    classes = Classes(tuple("abcdefghijk"), 11)
    sizes = {f"image-{i:03}": (360, 480) for i in range(100)}
    labels = tuple(
        PixelLabel(f"r00-{1000 * i + j:07}", image, j // 100, j % 100, "abcdefghijk"[j % 11], 0, "human", "me", 1.5)
        for i, image in enumerate(sizes)
        for j in range(1000)
    )
    started = time.process_time()
    found = checked(read_source(Source(written(LabelSet(labels, sizes, classes), name, tmp_path))), classes)
    assert time.process_time() - started < 15, "it takes one to four seconds"
    assert len(found.labels) == len(labels)
    assert name == "masks" or found.labels == labels


@given(st.lists(names, unique=True, max_size=8))
def test_files_of_images_never_collide(images):
    files = file_names({image: image for image in images}, ".png")
    with tempfile.TemporaryDirectory() as folder:
        for file in files.values():
            path = Path(folder, file)
            assert path.resolve().is_relative_to(Path(folder).resolve())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
    assert len({file.lower() for file in files.values()}) == len(images)


# What other programs make of them

LABELS = LabelSet(
    (
        PixelLabel("r00-0000000", "a", 0, 0, "sky, blue", 0, "human", "me", 1.25),
        PixelLabel("r00-0000001", "a", 9, 19, 'the "road"', 0, "human", "me", None),
        PixelLabel("r00-0000002", "b/ü", 4, 7, None, 1, "human", "me", 0.5),
        PixelLabel("r00-0000003", "b/ü", 5, 8, "sky, blue", 1, "human", "me", 0.5),
    ),
    {"a": (10, 20), "b/ü": (7, 9), "c": (3, 3)},
    Classes(('the "road"', "sky, blue"), 255),
    {"a": "images/a.jpg", "b/ü": "images/b/ü.png"},
)


def test_pycocotools_reads_coco(tmp_path, capsys):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    found = coco.COCO(str(written(LABELS, "coco", tmp_path)))
    assert [image["file_name"] for image in found.loadImgs([1, 2, 3])] == ["images/a.jpg", "images/b/ü.png", "c"]
    assert [entry["name"] for entry in found.loadCats(found.getCatIds())] == ['the "road"', "sky, blue"]
    known = [label for label in LABELS.labels if label.name is not None]
    annotations = found.loadAnns(found.getAnnIds())
    assert len(annotations) == len(known)
    for annotation, label in zip(annotations, known, strict=True):
        assert np.argwhere(found.annToMask(annotation)).tolist() == [[label.y, label.x]]
        assert found.loadCats(annotation["category_id"])[0]["name"] == label.name
        assert annotation["keypoints"] == [label.x, label.y, 2]


def test_a_napari_layer_is_as_its_manual_says(tmp_path):
    """https://napari.org: index, one column axis-N an axis, and any further columns as properties."""
    folder = written(LABELS, "napari", tmp_path)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.csv")) == ["images/a.csv", "images/b/ü.csv"]
    with open(folder / "images/a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0][:4] == ["index", "axis-0", "axis-1", "class"]
    assert rows[2][:4] == ["1", "9", "19", 'the "road"']


def test_napari_reads_its_layers(tmp_path):
    napari = pytest.importorskip("napari_builtins.io._read", reason="napari is not installed", exc_type=ImportError)
    path = written(LABELS, "napari", tmp_path) / "images/b/ü.csv"
    data, meta, kind = napari.csv_to_layer_data(str(path), require_type="points")
    assert kind == "points"
    assert data.tolist() == [[4, 7], [5, 8]]
    assert meta["properties"]["class"].tolist() == ["", "sky, blue"]
    assert meta["properties"]["seconds"].tolist() == [0.5, 0.5]


def test_label_studio_tasks_are_as_its_manual_says(tmp_path):
    tasks = json.loads(written(LABELS, "label-studio", tmp_path).read_text())
    assert [task["data"]["image"] for task in tasks] == ["images/a.jpg", "images/b/ü.png"]
    (annotation,) = tasks[0]["annotations"]
    result = annotation["result"][1]
    assert {key: result[key] for key in ("type", "original_width", "original_height", "image_rotation")} == {
        "type": "keypointlabels",
        "original_width": 20,
        "original_height": 10,
        "image_rotation": 0,
    }
    assert (result["value"]["x"], result["value"]["y"]) == (97.5, 95.0)
    assert result["value"]["keypointlabels"] == ['the "road"']
    assert tasks[1]["annotations"][0]["result"][0]["value"]["keypointlabels"] == ["can't tell"]


def test_what_was_changed_elsewhere_counts(tmp_path):
    path = written(LABELS, "label-studio", tmp_path)
    tasks = json.loads(path.read_text())
    point = tasks[1]["annotations"][0]["result"][0]
    point["value"] |= {"keypointlabels": ["sky, blue"], "x": 100 * 2.99 / 9}  # told now, and moved
    path.write_text(json.dumps(tasks))
    (found,) = (label for label in read_source(Source(path)).labels if label.item == "r00-0000002")
    assert (found.y, found.x, found.name, found.who) == (4, 2, "sky, blue", "me")


def test_labels_that_others_made(tmp_path):
    """As other programs write them: without alseg's fields, more than one keypoint, fractions, other results."""
    coco = {
        "images": [{"id": 7, "file_name": "x/1.jpg", "height": 10, "width": 10}],
        "categories": [{"id": 3, "name": "tree"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "keypoints": [1, 2, 2, 0, 0, 0, 3.5, 4.9, 1]},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5]},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    found = read_source(Source(tmp_path / "coco.json"))
    assert [(p.image, p.y, p.x, p.name, p.source, p.round) for p in found.labels] == [
        ("x/1.jpg", 2, 1, "tree", "imported", 0),
        ("x/1.jpg", 4, 3, "tree", "imported", 0),
    ]
    assert found.notes == ("1 annotations have no keypoint and were left out.",)
    point = {"type": "keypointlabels", "original_width": 10, "original_height": 20}
    point["value"] = {"x": 100, "y": 0, "width": 1, "keypointlabels": ["tree"]}
    other = {"type": "choices", "value": {"choices": ["good"]}}
    done = {"completed_by": {"email": "me@example.org"}, "result": [point, other]}
    task = {"data": {"image": "/data/upload/1.jpg"}, "annotations": [done, {"was_cancelled": True, "result": [point]}]}
    (tmp_path / "tasks.json").write_text(json.dumps([task]))
    found = read_source(Source(tmp_path / "tasks.json"))
    assert [(p.y, p.x, p.name, p.who) for p in found.labels] == [(0, 9, "tree", "me@example.org")]
    (tmp_path / "layer.csv").write_text("index,axis-0,axis-1,class\n0.0,2.4,-0.3,tree\n1.0,2.5,1.49,sky\n")
    found = read_source(Source(tmp_path / "layer.csv"))
    assert [(p.image, p.y, p.x, p.name) for p in found.labels] == [("layer", 2, 0, "tree"), ("layer", 3, 1, "sky")]
    (tmp_path / "excel.csv").write_bytes("\ufeffclass;x;y;image;more\r\nBäume;1;2.0;a;\r\n\r\n".encode())
    found = read_source(Source(tmp_path / "excel.csv"))
    assert [(p.image, p.y, p.x, p.name, p.who) for p in found.labels] == [("a", 2, 1, "Bäume", "")]


@pytest.mark.parametrize(
    "text", ['image, y, x, "class"\na b, 1, 2 , "sky, blue"\n', "X;Image;Class;y\n2;a b;sky, blue;1\n"]
)
def test_headers_with_spaces_and_capitals(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, "utf-8")
    (found,) = read_source(Source(tmp_path / "a.csv")).labels
    assert (found.image, found.y, found.x, found.name) == ("a b", 1, 2, "sky, blue")


def test_what_is_nearly_right_is_told_why_it_is_not(tmp_path):
    path = tmp_path / "labels.csv"
    for content, said in (
        ("image,y,x,class\na,1,2,sky\n".encode("utf-16"), "is not UTF-8: save it as CSV UTF-8"),
        (b"image,y,x,label\na,1,2,sky\n", "has no column class; it needs image, y, x, class"),
        (b"Image,image,y,x\n", "has no column class"),
        (b"", "has no column image"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserMistake, match=said):
            read_source(Source(path))
    path = tmp_path / "tasks.json"
    point = {"x": 50, "y": 50, "width": 1, "keypointlabels": ["sky"], "original_width": 9, "original_height": 9}
    for task in ({"image": "a.png", "id": 1, "kp": [point]}, {"image": "a.png", "annotation_id": 2}):
        path.write_text(json.dumps([task]), "utf-8")
        with pytest.raises(UserMistake, match="JSON-MIN: export the project as JSON"):
            read_source(Source(path))


def test_an_empty_class_has_no_place_in_a_table(tmp_path):
    labels = LabelSet((PixelLabel("i", "a", 0, 0, "", 0, "s", ""),), {"a": (1, 1)}, Classes(("", "b"), 255))
    with pytest.raises(UserMistake, match="empty name"):
        written(labels, "csv", tmp_path)
    assert in_order(read_source(Source(written(labels, "coco", tmp_path)))) == in_order(labels)


# Broken files


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """Cut, overwritten, doubled or mixed up."""
    at = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(at, min(len(content), at + 60)))
    junk = st.sampled_from([b"", b"null", b"{}", b"[]", b"\n", b"1e999", b"-1", b'"', b"[[[", b"true", b"99999999999"])
    return content[:at] + data.draw(st.one_of(st.binary(max_size=20), junk)) + content[end:]


@pytest.mark.parametrize("name", WRITTEN)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_broken_file_gives_a_sentence_or_labels(name, data):
    with tempfile.TemporaryDirectory() as folder:
        path = written(LABELS, name, Path(folder))
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        file = data.draw(st.sampled_from(files))
        file.write_bytes(damaged(file.read_bytes(), data))
        said = None
        try:
            found = checked(read_source(Source(path), data.draw(st.sampled_from([None, name]))), LABELS.classes)
        except UserMistake as error:
            said = str(error)
    if said is not None:
        assert said.endswith(".")
        assert "\n" not in said
        return
    for label in found.labels:
        assert label.y >= 0 and label.x >= 0 and label.round >= 0
        assert label.name is None or isinstance(label.name, str)


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize(
    "content", [b"", b"null", b"[1]", b'{"images": 3}', b"image,y,x,class\n", b"\xff\xfe", b"[" * 10**5]
)
def test_what_is_no_such_file_is_refused(tmp_path, name, content):
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    for given_name in (None, name):
        with pytest.raises(UserMistake) as caught:
            read_source(Source(path, classes=LABELS.classes), given_name)
        assert "\n" not in str(caught.value)
