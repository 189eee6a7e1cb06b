"""Image datasets of datasets as datasets."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

datasets = pytest.importorskip("datasets", reason="the extra alseg[hf] is not installed")

from alseg.errors import UserMistake  # noqa: E402
from alseg_hf.plugin import dataset as opened  # noqa: E402

NAMES = ("road", "sky", "car")


def pixels(i: int, size: tuple[int, int] = (24, 32)) -> tuple[np.ndarray, np.ndarray]:
    """An image and its mask: three bands, whose first row is 255."""
    mask = np.repeat(np.arange(3, dtype=np.uint8), size[1] // 3 + 1)[: size[1]][None].repeat(size[0], 0)
    image = np.random.default_rng(i).integers(0, 60, (*size, 3)) + mask[..., None] * 60
    mask[0] = 255
    return image.astype(np.uint8), mask


def rows(count: int, **more) -> dict[str, list]:
    both = [pixels(i) for i in range(count)]
    images, masks = ([Image.fromarray(part[k]) for part in both] for k in (0, 1))
    return {"image": images, "label": masks, **more}


def table(columns: dict[str, list], **features):
    features = {"image": datasets.Image(), "label": datasets.Image(), **features}
    return datasets.Dataset.from_dict(columns, datasets.Features({name: features[name] for name in columns}))


@pytest.fixture
def saved(tmp_path) -> Path:
    """train and validation, saved to disk."""
    splits = {"train": table(rows(6)), "validation": table(rows(3))}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_saved_dataset_is_read_as_it_was_written(saved):
    found = opened(data=saved, classes=NAMES)
    assert found.splits == ("train", "val")
    assert (found.classes.names, found.classes.void) == (NAMES, 255)
    images = found.images("train")
    assert [images.key(i) for i in (0, 5)] == ["train/000000", "train/000005"]
    assert found.images("val").key(2) == "validation/000002"
    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(lambda i: (images.image(i % 6), images.mask(i % 6)), range(48)))
    for i, (image, mask) in enumerate(several):
        np.testing.assert_array_equal(image, pixels(i % 6)[0])
        np.testing.assert_array_equal(mask, pixels(i % 6)[1])


def test_a_stamp_tells_another_image_mask_or_meaning(saved, tmp_path):
    stamp = opened(data=saved, classes=NAMES).images("train").stamp
    again = opened(data=saved, classes=NAMES).images("train").stamp
    assert [stamp(i) for i in range(6)] == [again(i) for i in range(6)]
    assert len({stamp(i) for i in range(6)}) == 6
    columns = rows(6)
    columns["label"][3] = Image.fromarray(pixels(3)[1][::-1].copy())
    datasets.DatasetDict({"train": table(columns)}).save_to_disk(str(tmp_path / "other"))
    other = opened(data=tmp_path / "other", classes=NAMES, val_fraction=0).images("train").stamp
    assert [stamp(i) == other(i) for i in range(6)] == [True, True, True, False, True, True]
    assert stamp(0) != opened(data=saved, classes=NAMES, void=1).images("train").stamp(0)


def test_files_are_read_as_load_dataset_reads_them(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    table(rows(5)).to_parquet(str(folder / "train.parquet"))
    found = opened(data=folder, classes=NAMES)
    train, val = found.images("train"), found.images("val")
    assert (len(train), len(val)) == (4, 1), "a fifth is held out"
    keys = [images.key(i) for images in (train, val) for i in range(len(images))]
    assert sorted(keys) == [f"train/{i:06}" for i in range(5)]
    number = int(val.key(0)[-6:])
    np.testing.assert_array_equal(val.image(0), pixels(number)[0])
    np.testing.assert_array_equal(val.mask(0), pixels(number)[1])


@pytest.mark.parametrize("name", ["test", "validation", "fold1"])
def test_the_only_split_is_trained_on_whatever_its_name(tmp_path, name):
    datasets.DatasetDict({name: table(rows(5))}).save_to_disk(str(tmp_path / "one"))
    for stated in ({}, {"train": name}):
        found = opened(data=tmp_path / "one", classes=NAMES, **stated)
        assert [len(found.images(split)) for split in ("train", "val")] == [4, 1]
        assert found.splits == ("train", "val")
        assert found.images("train").key(0).startswith(f"{name}/")


def test_a_split_that_is_stated_is_no_other_by_its_name(tmp_path):
    parts = {"train": table(rows(4)), "test": table(rows(2))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "two"))
    found = opened(data=tmp_path / "two", classes=NAMES, val="test")
    assert (found.splits, len(found.images("val"))) == (("train", "val"), 2)


def test_one_dataset_without_masks(tmp_path):
    table({"image": rows(3)["image"]}).save_to_disk(str(tmp_path / "one"))
    found = opened(data=tmp_path / "one", classes=NAMES)
    assert found.splits == ("train",)
    assert found.images("train").mask(0) is None


def test_a_split_may_lack_the_masks_column(tmp_path):
    bare = table({"image": rows(2)["image"]})
    datasets.DatasetDict({"train": table(rows(4)), "test": bare}).save_to_disk(str(tmp_path / "test"))
    found = opened(data=tmp_path / "test", classes=NAMES)
    test = found.images("test")
    assert (test.has_mask(0), test.mask(1)) == (False, None)
    assert test.stamp(0) != found.images("train").stamp(0)
    datasets.DatasetDict({"train": bare, "validation": table(rows(4))}).save_to_disk(str(tmp_path / "train"))
    found = opened(data=tmp_path / "train", classes=NAMES)
    assert [found.images(split).has_mask(0) for split in ("train", "val")] == [False, True]
    other = bare.rename_column("image", "picture")
    datasets.DatasetDict({"train": table(rows(4)), "test": other}).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(UserMistake, match="The split test has no column 'image'; it has picture"):
        opened(data=tmp_path / "other", classes=NAMES)


def test_an_array_that_is_missing_is_no_mask(tmp_path):
    columns = {"image": rows(3)["image"], "label": [pixels(0)[1], None, pixels(2)[1]]}
    kept = table(columns, label=datasets.Array2D((24, 32), "uint8")).select([2, 1, 0])
    kept.save_to_disk(str(tmp_path / "one"))
    images = opened(data=tmp_path / "one", classes=NAMES, val_fraction=0.0).images("train")
    assert [images.has_mask(i) for i in range(3)] == [True, False, True]
    assert images.mask(1) is None
    np.testing.assert_array_equal(images.mask(0), pixels(2)[1])


def test_only_what_has_a_mask_is_held_out(tmp_path):
    columns = rows(8)
    columns["label"] = [mask if i in (2, 5) else None for i, mask in enumerate(columns["label"])]
    table(columns).save_to_disk(str(tmp_path / "one"))
    found = opened(data=tmp_path / "one", classes=NAMES, val_fraction=0.5)
    val, train = found.images("val"), found.images("train")
    assert [val.key(i) for i in range(len(val))] in (["train/000002"], ["train/000005"])
    assert val.mask(0) is not None and len(train) == 7
    whole = opened(data=tmp_path / "one", classes=NAMES, val_fraction=1.0)
    assert len(whole.images("val")) == 2 and len(whole.images("train")) == 6


def test_a_column_names_the_images_and_some_have_no_mask(tmp_path):
    columns = rows(3, name=["a", "b/c", "d"])
    columns["label"][1] = None
    table(columns, name=datasets.Value("string")).save_to_disk(str(tmp_path / "one"))
    found = opened(data=tmp_path / "one", classes=NAMES, key="name", val_fraction=0.0)
    images = found.images("train")
    assert [images.key(i) for i in range(3)] == ["a", "b/c", "d"]
    assert images.mask(1) is None
    assert images.mask(2) is not None
    with pytest.raises(UserMistake, match="no column 'nome'; did you mean name"):
        opened(data=tmp_path / "one", classes=NAMES, key="nome")


@pytest.mark.parametrize("key", ["image", "label", "place", "raw", "array"])
def test_a_column_that_is_no_text_names_no_images(tmp_path, key):
    kinds = {"place": datasets.Sequence(datasets.Value("int64")), "raw": datasets.Value("binary")}
    kinds["array"] = datasets.Array2D((1, 1), "int64")
    columns = rows(3, place=[[1], [2], [3]], raw=[b"a", b"b", b"c"], array=[[[1]], [[2]], [[3]]])
    table(columns, **kinds).save_to_disk(str(tmp_path / "one"))
    with pytest.raises(UserMistake, match=f"dataset.key must be a column of text or numbers, which '{key}' is not"):
        opened(data=tmp_path / "one", classes=NAMES, key=key)


def test_numbers_name_the_images(tmp_path):
    table(rows(3, number=[7, 8, 9]), number=datasets.Value("int32")).save_to_disk(str(tmp_path / "one"))
    images = opened(data=tmp_path / "one", classes=NAMES, key="number", val_fraction=0.0).images("train")
    assert [images.key(i) for i in range(3)] == ["7", "8", "9"]


@pytest.mark.parametrize("kind", ["names", "array", "array of one channel"])
def test_masks_may_be_arrays_and_name_their_classes(tmp_path, kind):
    inner = datasets.ClassLabel(names=list(NAMES))
    masks = [np.where(pixels(i)[1] == 255, 0, pixels(i)[1]) for i in range(2)]
    feature, values = {
        "names": (datasets.Sequence(datasets.Sequence(inner)), [mask.tolist() for mask in masks]),
        "array": (datasets.Array2D((24, 32), "uint8"), masks),
        "array of one channel": (datasets.Array3D((24, 32, 1), "uint8"), [mask[..., None] for mask in masks]),
    }[kind]
    table({"image": rows(2)["image"], "seg": values}, seg=feature).save_to_disk(str(tmp_path / "one"))
    found = opened(data=tmp_path / "one", classes=None if kind == "names" else NAMES, val_fraction=0.0)
    assert found.classes.names == NAMES
    np.testing.assert_array_equal(found.images("train").mask(1), masks[1])


def test_classes_may_come_from_id2label_and_one_be_void(saved, tmp_path):
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"2": "car", "0": "unlabelled", "1": "sky"}))
    found = opened(data=saved, id2label=file, void=0)
    assert found.classes.names == ("sky", "car")
    wanted = np.array([255, 0, 1, 255])[np.minimum(pixels(0)[1], 3)]
    np.testing.assert_array_equal(found.images("train").mask(0), wanted)
    (saved / "id2label.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b", "2": "c"}}))
    assert opened(data=saved).classes.names == ("a", "b", "c")


@pytest.mark.parametrize("void", [None, -1])
def test_minus_one_is_no_label(tmp_path, void):
    masks = [pixels(i)[1].astype(np.int8).astype(np.int64) for i in range(2)]
    assert {int(mask.min()) for mask in masks} == {-1}
    inner = datasets.Sequence(datasets.Sequence(datasets.ClassLabel(names=list(NAMES))))
    columns = {"image": rows(2)["image"], "seg": [mask.tolist() for mask in masks]}
    table(columns, seg=inner).save_to_disk(str(tmp_path / "one"))
    images = opened(data=tmp_path / "one", val_fraction=0.0, void=void).images("train")
    np.testing.assert_array_equal(images.mask(1), pixels(1)[1])


def test_reduce_labels_is_what_image_processors_do(saved):
    transformers = pytest.importorskip("transformers")
    found = opened(data=saved, classes=("sky", "car"), reduce_labels=True)
    mask = pixels(0)[1]
    processor = transformers.SegformerImageProcessor(do_reduce_labels=True, do_resize=False)
    wanted = processor(pixels(0)[0], segmentation_maps=mask, return_tensors="np")["labels"][0]
    np.testing.assert_array_equal(found.images("train").mask(0), wanted)


def test_images_of_many_kinds(tmp_path):
    content, turned = io.BytesIO(), Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    image, mask = pixels(0)
    Image.fromarray(image).save(content, "JPEG", exif=turned)
    grey = Image.fromarray((image[..., 0].astype(np.uint16)) * 257)
    colours = Image.fromarray(np.dstack([image, np.full(image.shape[:2], 0, np.uint8)]))
    files = []
    for number, each in enumerate((grey, colours)):
        file = io.BytesIO()
        each.save(file, "PNG")
        files.append({"bytes": file.getvalue(), "path": f"{number}.png"})
    Image.fromarray(mask).save(tmp_path / "beside.png")
    palette = Image.fromarray(mask).convert("P")
    palette.putpalette([5 * i % 256 for i in range(768)])
    columns = {
        "image": [{"bytes": content.getvalue(), "path": None}, *files],
        "label": [{"bytes": None, "path": str(tmp_path / "beside.png")}, palette, palette],
    }
    table(columns).save_to_disk(str(tmp_path / "one"))
    images = opened(data=tmp_path / "one", classes=NAMES, val_fraction=0.0).images("train")
    assert images.image(0).shape == (32, 24, 3)
    np.testing.assert_array_equal(images.image(1), np.repeat(image[..., :1], 3, 2))
    assert (images.image(2) == 255).all(), "what is transparent is white"
    for i in range(3):
        np.testing.assert_array_equal(images.mask(i), mask)


def test_masks_that_mean_nothing_are_refused(tmp_path):
    jpeg = io.BytesIO()
    Image.fromarray(pixels(0)[1]).save(jpeg, "JPEG")
    colour = Image.fromarray(pixels(0)[0])
    wrong = Image.fromarray(np.full((24, 32), 7, np.uint8))
    columns = {"image": rows(4)["image"], "label": [{"bytes": jpeg.getvalue(), "path": None}, colour, wrong, wrong]}
    columns["image"][3] = None
    table(columns).save_to_disk(str(tmp_path / "one"))
    images = opened(data=tmp_path / "one", classes=NAMES, val_fraction=0.0).images("train")
    for i, said in enumerate(
        ("must not be a JPEG", "has 3 channels; it must hold one class value", r"holds 7 at \(y 0, x 0\)")
    ):
        with pytest.raises(UserMistake, match=said):
            images.mask(i)
    with pytest.raises(UserMistake, match="Cannot read the image train/000003: there is none"):
        images.image(3)


def test_what_a_dataset_lacks_is_said(saved, tmp_path, monkeypatch):
    for options, said in (
        ({"data": saved}, "does not name its classes"),
        ({"data": saved, "classes": NAMES, "image": "picture"}, "no column 'picture'"),
        ({"data": saved, "classes": NAMES, "mask": "lable"}, "no column 'lable'; did you mean label"),
        ({"data": saved, "classes": NAMES, "test": "testing"}, "no split 'testing'; there are train, validation"),
        (
            {"data": saved, "classes": NAMES, "val": "train"},
            "no split for train: give -o dataset.train=",
        ),
        ({"data": saved, "classes": NAMES, "train": "train", "val": "train"}, "one split cannot be two.*val is train"),
        ({"data": saved, "classes": NAMES, "val_fraction": 0.5}, "there is a split for val already"),
        ({"data": saved, "classes": ("a", "a")}, "'a' is there twice"),
        ({"data": tmp_path / "no"}, "There is no folder"),
        ({}, "dataset.path"),
    ):
        with pytest.raises(UserMistake, match=said):
            opened(**options)
    plain = datasets.Dataset.from_dict({"text": ["a", "b"], "number": [1, 2]})
    plain.save_to_disk(str(tmp_path / "plain"))
    with pytest.raises(UserMistake, match=r"which column holds its images.*there are text, number"):
        opened(data=tmp_path / "plain", classes=NAMES)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserMistake, match="The dataset nobody/nothing could not be had"):
        opened(path="nobody/nothing", classes=NAMES)
