"""The classes of a user's own images, and how masks mean them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from photos import write_image
from PIL import Image

from alseg.errors import UserMistake
from alseg_datasets.folder import Folder

ROAD, SKY = (128, 64, 128), (70, 130, 180)
NAMES = ("road", "sky", "car")


def folder_with(tmp_path: Path, toml: str, mask: np.ndarray | Image.Image | None = None, name: str = "a.png") -> Folder:
    write_image(tmp_path / "images" / "a.png", (4, 6))
    if mask is not None:
        (tmp_path / "masks").mkdir(exist_ok=True)
        (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(tmp_path / "masks" / name)
    (tmp_path / "classes.toml").write_text(toml)
    return Folder(tmp_path, val_fraction=0)


def test_classes_by_name_alone(tmp_path):
    write_image(tmp_path / "a.png")
    classes = Folder(tmp_path, NAMES).classes
    assert (classes.names, classes.void, len(set(classes.colours))) == (NAMES, 255, 3)
    many = Folder(tmp_path, tuple(map(str, range(300)))).classes
    assert many.void == 65535
    assert len(set(many.colours)) > 250


def test_classes_from_a_file_of_their_own_or_the_folders(tmp_path):
    folder_with(tmp_path, 'names = ["a", "b"]')
    (tmp_path / "other.toml").write_text('names = ["c", "d"]')
    assert Folder(tmp_path).classes.names == ("a", "b")
    assert Folder(tmp_path, classes_file=tmp_path / "other.toml").classes.names == ("c", "d")
    assert Folder(tmp_path, ("e", "f")).classes.names == ("e", "f")
    with pytest.raises(UserMistake, match="not both"):
        Folder(tmp_path, ("e", "f"), tmp_path / "other.toml")
    (tmp_path / "classes.toml").unlink()
    with pytest.raises(UserMistake, match="Give --classes"):
        Folder(tmp_path)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("names = 3", "list as names"),
        ('names = ["a"]', "two classes or more"),
        ("", "two classes or more"),
        ('names = ["a", "a"]', "'a' twice"),
        ('names = ["a", " "]', "each class a name"),
        ('names = ["a", "b"]\ncolors = []', "did you mean colours"),
        ('names = ["a", "b"]\ncolours = ["red"]', "2 names and 1 colours"),
        ('names = ["a", "b"]\ncolours = ["red", "reddish"]', "the colour 'reddish'"),
        ('names = ["a", "b"]\ncolours = ["red", [1, 2]]', r"the colour \[1, 2\]"),
        ('names = ["a", "b"]\ncolours = ["red", [1, 2, 256]]', "the colour"),
        ('names = ["a", "b"]\ncolours = ["red", "#f00"]', "the same of its colours"),
        ('names = ["a", "b"]\ncolours = ["red", "blue"]\nvoid = [255, 0, 0]', "the same of its colours"),
        ('names = ["a", "b"]\nvoid = "#000000"', "a colour as void, but no colours"),
        ('names = ["a", "b"]\nvalues = [3, 4]\nvoid = "#000000"', "a colour as void, but no colours"),
        ('names = ["a", "b"]\nvoid = 1', "void = 1"),
        ('names = ["a", "b"]\nvoid = true', "True as a mask's value"),
        ('names = ["a", "b"]\nvoid = 70000', "void = 70000"),
        ('names = ["a", "b"]\nvalues = [1]', "2 names and 1 values"),
        ('names = ["a", "b"]\nvalues = [1, -2]', "-2 as a mask's value"),
        ('names = ["a", "b"]\nvalues = [1, 1]', "the same of its values"),
        ('names = ["a", "b"]\nvalues = [1, 2]\nvoid = 2', "the same of its values"),
        ("names = [", "not TOML"),
    ],
)
def test_a_file_of_classes_that_is_wrong(tmp_path, toml, message):
    with pytest.raises(UserMistake, match=message) as caught:
        folder_with(tmp_path, toml)
    assert str(tmp_path / "classes.toml") in str(caught.value)


def row(*values: int) -> np.ndarray:
    return np.tile(np.array(values, np.uint8), (4, 1))


def test_masks_of_8_and_16_bits_palettes_and_bilevel(tmp_path):
    palette = Image.fromarray(row(0, 0, 1, 1, 255, 255), "P")
    palette.putpalette([10, 20, 30] * 256)
    for mask, name in (
        (row(0, 0, 1, 1, 255, 255), "a.png"),
        (row(0, 0, 1, 1, 255, 255).astype(np.uint16), "a.png"),
        (row(0, 0, 1, 1, 255, 255).astype(np.uint16), "a.tif"),
        (palette, "a.png"),
    ):
        shutil.rmtree(tmp_path / "masks", ignore_errors=True)
        dataset = folder_with(tmp_path, 'names = ["a", "b"]', mask, name)
        assert dataset.images("train").mask(0).tolist() == [[0, 0, 1, 1, 255, 255]] * 4
    bilevel = Image.fromarray(row(0, 0, 0, 255, 255, 255)).convert("1")
    shutil.rmtree(tmp_path / "masks")
    assert folder_with(tmp_path, 'names = ["a", "b"]', bilevel).images("train").mask(0)[0].tolist() == [
        0,
        0,
        0,
        1,
        1,
        1,
    ]


def test_masks_of_16_bits_hold_more_than_255_classes(tmp_path):
    names = ", ".join(f'"{i}"' for i in range(1000))
    mask = np.full((4, 6), 999, np.uint16)
    assert (folder_with(tmp_path, f"names = [{names}]", mask).images("train").mask(0) == 999).all()


def test_values_of_ones_own(tmp_path):
    toml = 'names = ["a", "b"]\nvalues = [0, 255]\nvoid = 128'
    dataset = folder_with(tmp_path, toml, row(0, 0, 255, 255, 128, 128))
    assert dataset.images("train").mask(0)[0].tolist() == [0, 0, 1, 1, 255, 255]
    assert dataset.classes.void == 255
    toml = 'names = ["a", "b"]\nvalues = [1, 2]'
    assert folder_with(tmp_path, toml, row(1, 2, 1, 2, 255, 255)).images("train").mask(0)[0, 4] == 255
    with pytest.raises(UserMistake, match=r"a\.png holds 0 at \(y 0, x 2\), which is neither"):
        folder_with(tmp_path, toml, row(1, 2, 0, 0, 0, 0)).images("train").mask(0)


@pytest.mark.parametrize("opaque", [False, True])
def test_colour_masks_are_read_by_the_classes_colours(tmp_path, opaque):
    toml = 'names = ["road", "sky"]\ncolours = [[128, 64, 128], "#4682b4"]\nvoid = "black"'
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:, :2], picture[:, 2:4] = ROAD, SKY
    mask = Image.fromarray(picture)
    dataset = folder_with(tmp_path, toml, mask.convert("RGBA") if opaque else mask)
    assert dataset.classes.colours == (ROAD, SKY)
    assert dataset.images("train").mask(0).tolist() == [[0, 0, 1, 1, 255, 255]] * 4
    picture[3, 5] = 1, 2, 3
    with pytest.raises(UserMistake, match=r"a\.png holds \(1, 2, 3\) at \(y 3, x 5\)"):
        folder_with(tmp_path, toml, picture).images("train").mask(0)
    with pytest.raises(UserMistake, match=r"give the classes' colours in classes\.toml"):
        folder_with(tmp_path, 'names = ["road", "sky"]', picture).images("train").mask(0)


def test_masks_that_cannot_be_trusted_are_refused(tmp_path):
    toml = 'names = ["road", "sky"]\ncolours = ["red", "blue"]'
    transparent = Image.fromarray(np.full((4, 6, 4), 100, np.uint8))
    fractions = Image.fromarray(np.ones((4, 6), np.float32))
    for mask, name, message in (
        (row(0, 0, 0, 1, 1, 1), "a.jpg", "must not be a JPEG"),
        (transparent, "a.png", "must not be transparent"),
        (fractions, "a.tif", "not fractions"),
    ):
        shutil.rmtree(tmp_path / "masks", ignore_errors=True)
        dataset = folder_with(tmp_path, toml, mask, name)
        with pytest.raises(UserMistake, match=message):
            dataset.images("train").mask(0)
