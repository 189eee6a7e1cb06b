"""The dataset keeps alseg's contract, and finds the masks beside the images."""

import numpy as np
import pytest
from alseg import UserMistake
from alseg.testing import check_dataset
from PIL import Image

from my_piece import my_piece


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        (tmp_path / split).mkdir()
        for i in range(count):
            image = np.full((48, 64, 3), 40 * i, np.uint8)
            Image.fromarray(image).save(tmp_path / split / f"{i}.png")
            mask = np.zeros((48, 64), np.uint8)
            mask[10:20, 10:30], mask[0] = 1, 255
            Image.fromarray(mask).save(tmp_path / split / f"{i}.mask.png")
    return tmp_path


def test_it_keeps_the_contract(folder):
    check_dataset(my_piece, {"data": folder})


def test_an_image_without_a_mask_is_not_labelled(folder):
    (folder / "train" / "1.mask.png").unlink()
    images = my_piece(folder).images("train")
    assert [images.mask(i) is None for i in range(len(images))] == [False, True, False]


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserMistake, match="no folder train"):
        my_piece(tmp_path)
