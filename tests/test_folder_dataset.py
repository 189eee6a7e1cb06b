"""A user's own images: what is found, and which split it is in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import named_pipe
from photos import write_image, write_mask, write_pair
from studies import RANDOM, labels_of, write_run

from alseg.compare.page import write_comparison
from alseg.errors import UserMistake
from alseg.interchange.labelset import LabelSet
from alseg.interchange.masks import write_masks
from alseg.report.page import write_report
from alseg.store import RunFolder
from alseg.values import Classes, PixelLabel, PixelLabels
from alseg_datasets.folder import Folder
from alseg_datasets.folder_layout import VAL_FRACTION, find_splits

NAMES = ("road", "sky", "car")


def keys(dataset: Folder) -> dict[str, list[str]]:
    return {split: [images.key(i) for i in range(len(images))] for split, images in all_images(dataset)}


def all_images(dataset: Folder):
    return [(split, dataset.images(split)) for split in dataset.splits]


# What is found


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        (".", "masks"),
        ("train", "trainannot"),
        ("images/train", "masks/train"),
        ("images/train", "images/trainannot"),
        ("train/images", "train/masks"),
        ("train", "train/masks"),
    ],
)
def test_layouts_with_masks(tmp_path, images, masks):
    for name in ("a.png", "street/b.jpg", "street/wet/c.TIFF", "d.webp"):
        write_pair(tmp_path / images, tmp_path / masks, name)
    dataset = Folder(tmp_path, NAMES, val_fraction=0)
    prefix = "train/" if "train" in images else ""
    assert keys(dataset) == {"train": [prefix + name for name in ("a", "d", "street/b", "street/wet/c")]}
    assert all((dataset.images("train").mask(i) == [0] * 14 + [1] * 13 + [2] * 13).all() for i in range(4))


def test_masks_may_be_anywhere(tmp_path):
    write_pair(tmp_path / "data", tmp_path / "elsewhere", "a.png")
    write_pair(tmp_path / "data", tmp_path / "data" / "truth", "b.png")
    for masks, labelled in ((str(tmp_path / "elsewhere"), ["a"]), ("truth", ["b"])):
        images = Folder(tmp_path / "data", NAMES, masks=masks, val_fraction=0).images("train")
        found = {images.key(i): images.mask(i) is not None for i in range(len(images))}
        assert [key for key, there in found.items() if there] == labelled
        assert set(found) >= {"a", "b"}
    with pytest.raises(UserMistake, match="no folder of masks"):
        Folder(tmp_path / "data", NAMES, masks="nowhere")
    with pytest.raises(UserMistake, match="folder of their own"):
        Folder(tmp_path / "data", NAMES, masks=".")


def test_names_with_spaces_accents_and_links(tmp_path):
    data, elsewhere = tmp_path / "mes données", tmp_path / "elsewhere"
    write_pair(data / "images", data / "masks", "été à la mer/plage 1.png")
    write_image(data / "images" / "e\u0301cole.png")  # decomposed, as on a Mac
    write_mask(data / "masks" / "\u00e9cole.png")
    write_image(elsewhere / "街.png")
    (data / "images" / "linked.png").symlink_to(elsewhere / "街.png")
    (data / "images" / "folder").symlink_to(elsewhere)
    (elsewhere / "above").symlink_to(data / "images")  # round and round
    dataset = Folder(data, NAMES, val_fraction=0)
    assert keys(dataset) == {"train": ["folder/街", "linked", "\u00e9cole", "été à la mer/plage 1"]}
    masked = [dataset.images("train").mask(i) is not None for i in range(4)]
    assert masked == [False, False, True, True]


def test_what_is_passed_over(tmp_path):
    write_image(tmp_path / "a.png")
    for name in ("._a.png", ".thumbnails/a.png", "runs/first/learning-curve.png"):
        write_image(tmp_path / name)
    (tmp_path / "runs" / "first" / "run.toml").write_text("[record]\n", "utf-8")
    (tmp_path / "notes.txt").touch()
    assert keys(Folder(tmp_path, NAMES)) == {"train": ["a"]}


@pytest.mark.parametrize("name", ["run.toml", "predictions.json"])
def test_another_programs_file_of_a_name_that_alseg_uses_hides_no_image(tmp_path, name):
    write_image(tmp_path / "cam1" / "a.png")
    (tmp_path / "cam1" / name).write_text('{"model": "another"}', "utf-8")
    assert keys(Folder(tmp_path, NAMES)) == {"train": ["cam1/a"]}


def test_a_pipe_of_a_name_that_alseg_uses_is_not_waited_for(tmp_path):
    write_image(tmp_path / "cam1" / "a.png")
    named_pipe(tmp_path / "cam1" / "run.toml", b"[record]")
    assert keys(Folder(tmp_path, NAMES)) == {"train": ["cam1/a"]}


@pytest.mark.parametrize("layout", ["folders", "lists"])
def test_a_split_that_is_there_and_empty_is_not_taken_from_the_training_images(tmp_path, layout):
    for name in "ab":
        write_pair(tmp_path / "images" / "train", tmp_path / "masks" / "train", f"{name}.png")
    (tmp_path / "images" / "val").mkdir()
    if layout == "lists":
        (tmp_path / "train.txt").write_text("train/a.png\ntrain/b.png\n", "utf-8")
        (tmp_path / "val.txt").touch()
    with pytest.raises(UserMistake, match="has no PNG, JPEG, WebP or TIFF image to evaluate on: remove it"):
        Folder(tmp_path, NAMES, split_by=layout)
    assert set(keys(Folder(tmp_path, NAMES, split_by=layout, val_fraction=0.5))) == {"train", "val"}


def test_pictures_that_alseg_made_among_the_images_are_passed_over(tmp_path):
    write_image(tmp_path / "a.png")
    runs = [write_run(tmp_path / f"runs/{name}", (0.2, 0.3), seed=seed) for seed, name in enumerate("xy")]
    for run in runs:
        RunFolder(run).write_labels(PixelLabels(tuple(labels_of(run))))
    write_report(runs, tmp_path / "report")
    write_report(runs[:1], tmp_path / "first")
    write_comparison(runs, tmp_path / "comparison", random=RANDOM)
    label = PixelLabel("q0", "a", 3, 5, "sky", 0, "oracle", "", None)
    for name, content in write_masks(LabelSet((label,), {"a": (32, 40)}, Classes(NAMES, 255))).items():
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / name).write_bytes(content)
    for folder in ("report/figures", "first/figures", "comparison/figures", "labels"):
        assert list((tmp_path / folder).rglob("*.png"))
    assert keys(Folder(tmp_path, NAMES)) == {"train": ["a"]}


def test_exported_label_images_may_be_the_masks_of_a_split(tmp_path):
    write_pair(tmp_path / "images", tmp_path / "masks", "wet/a.png")
    (tmp_path / "masks/wet/.made-by-alseg").touch()
    assert Folder(tmp_path, NAMES, val_fraction=0).images("train").mask(0) is not None


def test_two_files_of_one_name_are_refused(tmp_path):
    write_image(tmp_path / "images" / "x" / "a.png")
    write_image(tmp_path / "images" / "x" / "a.jpg")
    with pytest.raises(UserMistake, match=r"a\.jpg and .*a\.png have the same name x/a"):
        Folder(tmp_path, NAMES)


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    try:
        write_image(tmp_path / "a.png").rename(tmp_path / "\udcff.png")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(UserMistake, match="not UTF-8"):
        Folder(tmp_path, NAMES)


def test_masks_of_other_names_are_refused(tmp_path):
    write_image(tmp_path / "images" / "a.png")
    write_mask(tmp_path / "masks" / "a_mask.png")
    with pytest.raises(UserMistake, match=r"there is 'a_mask', but the image 'a' needs"):
        Folder(tmp_path, NAMES)


def test_nothing_to_train_on_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserMistake, match="nothing to train on"):
        Folder(tmp_path, NAMES)
    write_image(tmp_path / "images" / "val" / "a.png")
    (tmp_path / "images" / "train").mkdir()
    with pytest.raises(UserMistake, match=r"nothing to train on: .*train has no PNG"):
        Folder(tmp_path, NAMES)


# Which split


def test_folders_are_splits_and_none_is_held_out_where_there_is_test(tmp_path):
    for split in ("train", "val", "test"):
        write_pair(tmp_path / split, tmp_path / f"{split}annot", "a.png")
    assert keys(Folder(tmp_path, NAMES)) == {split: [f"{split}/a"] for split in ("train", "val", "test")}
    for folder in ("val", "valannot"):
        shutil.rmtree(tmp_path / folder)
    assert set(keys(Folder(tmp_path, NAMES))) == {"train", "test"}
    for folder in ("trainannot", "testannot"):
        shutil.rmtree(tmp_path / folder)
    assert keys(Folder(tmp_path, NAMES, split_by="fraction")) == {"train": ["test/a", "train/a"]}


def test_lists_are_splits(tmp_path):
    for name in ("a.png", "b c.jpg", "x/d.png", "e.png"):
        write_pair(tmp_path / "images", tmp_path / "masks", name)
    (tmp_path / "train.txt").write_text("\ufeffx/d\r\n\r\n./a.png\r\n", "utf-8")
    (tmp_path / "val.txt").write_text("images/b c.jpg\n")
    assert keys(Folder(tmp_path, NAMES)) == {"train": ["x/d", "a"], "val": ["b c"]}
    write_image(tmp_path / "images" / "train" / "f.png")
    assert keys(Folder(tmp_path, NAMES)) == {"train": ["train/f"]}
    assert keys(Folder(tmp_path, NAMES, split_by="lists")) == {"train": ["x/d", "a"], "val": ["b c"]}


def test_a_list_means_a_file_of_the_whole_name_before_one_of_that_stem(tmp_path):
    for name in ("photo.jpg", "photo.jpg.png"):
        write_image(tmp_path / name)
    for train, file in {"photo": "photo.jpg", "photo.jpg": "photo.jpg", "photo.jpg.png": "photo.jpg.png"}.items():
        (tmp_path / "train.txt").write_text(train, "utf-8")
        assert Folder(tmp_path, NAMES).images("train").file(0).name == file
    for name in ("a.jpg", "images/a.jpg"):
        write_image(tmp_path / "images" / name)
    (tmp_path / "train.txt").write_text("images/a.jpg\n", "utf-8")
    with pytest.raises(UserMistake, match=r"images/a\.jpg, which is both .*: rename one of the two"):
        Folder(tmp_path, NAMES)


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ("a\nz\n", "", r"Line 2 of .*train\.txt names z, which is no image"),
        ("a\na\n", "", r"a is in train\.txt and again in train\.txt"),
        ("a\n", "a.png\n", r"a is in train\.txt and again in val\.txt"),
        ("\n", "a\n", r"nothing to train on: .*train\.txt"),
    ],
)
def test_lists_that_are_wrong(tmp_path, train, val, message):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png")
    (tmp_path / "train.txt").write_text(train)
    (tmp_path / "val.txt").write_text(val)
    with pytest.raises(UserMistake, match=message):
        Folder(tmp_path, NAMES)


def empty_files(root: Path, count: int, masks: int) -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (root / "images" / f"{i}.png").touch()
        if i < masks:
            (root / "masks" / f"{i}.png").touch()
    return root


def split_keys(root: Path, fraction: float | None = None) -> dict[str, set[str]]:
    return {split: {f.key for f in files} for split, files in find_splits(root, None, "auto", fraction).items()}


def test_a_fifth_of_the_images_with_masks_is_held_out_and_little_changes_when_images_are_added(tmp_path):
    few = split_keys(empty_files(tmp_path, 200, 150))
    assert len(few["val"]) == 30
    assert all(int(key) < 150 for key in few["val"])
    assert few["train"].isdisjoint(few["val"])
    assert len(few["train"] | few["val"]) == 200
    more = split_keys(empty_files(tmp_path, 300, 200))
    assert len(more["val"]) == 40
    assert len(few["val"] - more["val"]) <= 5
    assert split_keys(tmp_path, VAL_FRACTION) == more
    half = split_keys(tmp_path, 0.5)
    assert half["val"] > more["val"]


def test_a_fraction_leaves_something_to_train_on(tmp_path):
    for count in range(1, 6):
        splits = split_keys(empty_files(tmp_path / str(count), count, count), 0.9)
        assert splits["train"]
    for count in range(2, 20):
        assert len(split_keys(empty_files(tmp_path / f"{count} more", count, count))["val"]) == max(1, round(count / 5))


def test_a_fraction_that_contradicts_the_images_is_refused(tmp_path):
    write_image(tmp_path / "train" / "a.png")
    with pytest.raises(UserMistake, match="no image has a mask"):
        Folder(tmp_path, NAMES, val_fraction=0.2)
    write_pair(tmp_path / "val", tmp_path / "valannot", "b.png")
    with pytest.raises(UserMistake, match="images for val already"):
        Folder(tmp_path, NAMES, val_fraction=0.2)
    assert set(keys(Folder(tmp_path, NAMES, val_fraction=0))) == {"train", "val"}


# Which classes
