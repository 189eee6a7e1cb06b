"""Cityscapes and VOC 2012 in miniature, in the layouts they are distributed in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from PIL import Image
from test_run import lines

from alseg.colours import palette
from alseg.errors import UserMistake

SIZE = (48, 64)
FEW = ("--first-pixels", 3, "--pixels-per-round", 2, "--rounds", 2, "--recipe", "camvid")


def write_cityscapes(root: Path) -> Path:
    """Two cities to train on, one to validate, one whose public masks are all void."""
    random = np.random.default_rng(0)
    for split, city, count in (("train", "aachen", 2), ("train", "ulm", 2), ("val", "lindau", 2), ("test", "bonn", 1)):
        images, masks = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for frame in range(count):
            stem = f"{city}_000000_{frame:06}"
            ids = np.repeat(random.choice([0, 3, 7, 8, 11, 23, 26, 29, 33], SIZE[1]), SIZE[0]).reshape(SIZE[::-1]).T
            ids = np.zeros(SIZE, int) if split == "test" else ids
            Image.fromarray(random.integers(0, 255, (*SIZE, 3), np.uint8)).save(images / f"{stem}_leftImg8bit.png")
            Image.fromarray(ids.astype(np.uint8)).save(masks / f"{stem}_gtFine_labelIds.png")
            for other in ("color", "instanceIds"):
                Image.fromarray(ids.astype(np.uint8)).save(masks / f"{stem}_gtFine_{other}.png")
            (masks / f"{stem}_gtFine_polygons.json").write_text("{}")
    return root


def write_voc12(root: Path) -> Path:
    """VOCdevkit in `root`, with images of several sizes and one that belongs to no segmentation list."""
    random = np.random.default_rng(0)
    voc = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "Annotations", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    names = [f"2007_{i:06}" for i in (32, 39, 63, 68, 121)]
    for i, name in enumerate([*names, "2008_000001"]):
        size = (40 + 4 * i, 60 - 5 * i)
        Image.fromarray(random.integers(0, 255, (*size, 3), np.uint8)).save(voc / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(random.choice(np.array([0, 1, 15, 20, 255], np.uint8), size), "P")
        mask.putpalette([part for colour in palette(256) for part in colour])
        if name in names:
            mask.save(voc / "SegmentationClass" / f"{name}.png")
    lists = voc / "ImageSets" / "Segmentation"
    for split, members in (("train", names[:3]), ("val", names[3:]), ("trainval", names)):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in members))
    return root


@pytest.fixture
def cityscapes(tmp_path):
    return write_cityscapes(tmp_path / "cityscapes")


@pytest.fixture
def voc12(tmp_path):
    return write_voc12(tmp_path / "voc")


def opened(registry, name: str, **options):
    piece = registry.find("dataset", name)
    return piece.build(piece.resolve(options))


def everything(images) -> list[tuple]:
    return [(images.key(i), images.image(i), images.mask(i)) for i in range(len(images))]


def test_a_run_on_cityscapes(cli, cityscapes, tmp_path):
    words = ["run", "--dataset", "cityscapes", "--data", cityscapes, *SMALL, *FEW]
    outcome = cli(*words, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    labels = lines(tmp_path / "run" / "labels.jsonl")
    assert {label["class"] for label in labels} <= {"road", "sidewalk", "building", "sky", "car", "bicycle"}
    assert {label["image"] for label in labels} == {
        f"{city}_000000_00000{frame}" for city in ("aachen", "ulm") for frame in (0, 1)
    }
    assert lines(tmp_path / "run" / "rounds.jsonl")[-1]["split"] == "val"


def test_a_run_on_voc12(cli, voc12, tmp_path):
    words = ["run", "--dataset", "voc12", "--data", voc12 / "VOCdevkit", *SMALL, *FEW]
    outcome = cli(*words, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    labels = lines(tmp_path / "run" / "labels.jsonl")
    assert {label["class"] for label in labels} <= {"background", "aeroplane", "person", "tvmonitor"}
    assert 0 <= lines(tmp_path / "run" / "rounds.jsonl")[-1]["miou"] <= 1


def test_cityscapes_is_what_torchvision_reads(registry, cityscapes):
    from torchvision.datasets import Cityscapes

    train_id = {label.id: label.train_id for label in Cityscapes.classes}
    dataset = opened(registry, "cityscapes", data=cityscapes)
    for split in ("train", "val"):
        theirs = Cityscapes(str(cityscapes), split=split, target_type="semantic")
        by_name = {Path(path).name.removesuffix("_leftImg8bit.png"): i for i, path in enumerate(theirs.images)}
        ours = everything(dataset.images(split))
        assert [key for key, _, _ in ours] == sorted(by_name)
        for key, image, mask in ours:
            their_image, ids = theirs[by_name[key]]
            assert (image == np.asarray(their_image)).all()
            assert (mask == np.vectorize(train_id.get)(np.asarray(ids))).all()


def test_voc12_is_what_torchvision_reads(registry, voc12):
    from torchvision.datasets import VOCSegmentation

    dataset = opened(registry, "voc12", data=voc12)
    for split in ("train", "val"):
        theirs = VOCSegmentation(str(voc12), year="2012", image_set=split)
        ours = everything(dataset.images(split))
        assert len(ours) == len(theirs)
        for (_, image, mask), (their_image, their_mask) in zip(ours, theirs, strict=True):
            assert (image == np.asarray(their_image)).all()
            assert (mask == np.asarray(their_mask)).all()
            assert set(np.unique(mask)) <= {0, 1, 15, 20, 255}


def test_cityscapes_classes_are_the_19_evaluated(registry, cityscapes):
    classes = opened(registry, "cityscapes", data=cityscapes).classes
    assert len(classes) == 19
    assert classes.void == 255
    assert [classes.names[i] for i in (0, 2, 5, 10, 11, 13, 18)] == [
        "road",
        "building",
        "pole",
        "sky",
        "person",
        "car",
        "bicycle",
    ]
    assert classes.colours[0] == (128, 64, 128)


def test_voc12_has_its_own_palette(registry, voc12):
    classes = opened(registry, "voc12", data=voc12).classes
    assert len(classes) == 21
    by_name = dict(zip(classes.names, classes.colours, strict=True))
    published = {"background": (0, 0, 0), "aeroplane": (128, 0, 0), "person": (192, 128, 128), "sofa": (0, 192, 0)}
    assert {name: by_name[name] for name in published} == published
    assert palette(256)[255] == (224, 224, 192), "the border's"
    assert len(set(palette(256))) == 256


def test_the_test_split_of_cityscapes_has_no_mask(registry, cli, cityscapes, tmp_path):
    dataset = opened(registry, "cityscapes", data=cityscapes)
    assert dataset.splits == ("train", "val", "test")
    assert dataset.images("test").mask(0) is None
    words = ["run", "--dataset", "cityscapes", "--data", cityscapes, *SMALL, *FEW, "--rounds", 1, "--split", "test"]
    outcome = cli(*words, "--out", tmp_path / "run")
    assert outcome.code == 2 and "has no masks in its split 'test': give another --split" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("inside", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc12_is_found_from_three_folders(registry, voc12, inside):
    dataset = opened(registry, "voc12", data=voc12 / inside)
    assert dataset.splits == ("train", "val")
    assert [dataset.images("train").key(i) for i in range(3)] == ["2007_000032", "2007_000039", "2007_000063"]


def test_datasets_may_lie_behind_links(registry, cityscapes, voc12, tmp_path):
    (tmp_path / "link").symlink_to(cityscapes)
    os.rename(cityscapes / "leftImg8bit" / "train" / "ulm", tmp_path / "elsewhere")
    (cityscapes / "leftImg8bit" / "train" / "ulm").symlink_to(tmp_path / "elsewhere")
    assert len(opened(registry, "cityscapes", data=tmp_path / "link").images("train")) == 4
    (tmp_path / "voc-link").symlink_to(voc12 / "VOCdevkit")
    assert len(opened(registry, "voc12", data=tmp_path / "voc-link").images("val")) == 2


@pytest.mark.parametrize("name", ["camvid", "cityscapes", "voc12", "folder"])
def test_a_folder_that_is_not_there_or_not_it_is_refused(cli, tmp_path, name):
    for data, words in ((tmp_path / "none", "There is no folder"), (tmp_path, str(tmp_path))):
        outcome = cli("run", "--dataset", name, "--data", data, "--out", tmp_path / "run")
        assert outcome.code == 2
        assert words in outcome.err
        assert len(outcome.err.splitlines()) == 1


def test_masks_of_another_kind_are_refused(registry, cityscapes):
    """Somebody's trainIds under the name of the label ids, say: 34 and above are none."""
    path = cityscapes / "gtFine" / "train" / "ulm" / "ulm_000000_000001_gtFine_labelIds.png"
    Image.fromarray(np.full(SIZE, 77, np.uint8)).save(path)
    with pytest.raises(UserMistake, match=f"{path.name} holds 77"):
        opened(registry, "cityscapes", data=cityscapes).images("train").mask(3)
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(path)  # the licence plate, -1
    assert (opened(registry, "cityscapes", data=cityscapes).images("train").mask(3) == 255).all()


def test_a_missing_mask_or_image_is_named(cli, cityscapes, voc12, tmp_path):
    (cityscapes / "gtFine" / "train" / "ulm" / "ulm_000000_000001_gtFine_labelIds.png").unlink()
    outcome = cli("run", "--dataset", "cityscapes", "--data", cityscapes, *SMALL, *FEW, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "ulm_000000_000001 has no mask" in outcome.err
    (voc12 / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2007_000039.jpg").unlink()
    outcome = cli("run", "--dataset", "voc12", "--data", voc12, *SMALL, *FEW, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "2007_000039.jpg: No such file" in outcome.err


def test_a_split_that_is_not_there_is_refused(registry, camvid, cityscapes, voc12):
    for name, data in (("camvid", camvid), ("voc12", voc12)):
        with pytest.raises(UserMistake, match="test"):
            opened(registry, name, data=data).images("test")
    (cityscapes / "leftImg8bit" / "val").rename(cityscapes / "valid")
    with pytest.raises(UserMistake, match="no folder val"):
        opened(registry, "cityscapes", data=cityscapes).images("val")
