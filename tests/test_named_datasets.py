"""A dataset that misbehaves before a run is named."""

from __future__ import annotations

import pytest
from broken_runs import HEAD, PLUGIN, RUN, TINY, journal, line_of, told  # noqa: F401

DATASET = """
import io, os
from PIL import Image

def half():
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "png")
    return io.BytesIO(whole.getvalue()[:2000])

class Pictures:
    def __init__(self, images):
        self._images = images

    def __len__(self):
        return len(self._images)

    def key(self, i):
        return self._images.key(i)

    def image(self, i):
        return self._images.image(i)

    def mask(self, i):
        return self._images.mask(i)

class Mine:
    recipe = "alseg-tiny"

    data = TinyDataset({{"train": 4, "val": 2}}, (64, 64))
    classes, splits = data.classes, data.splits

    def images(self, split):
        return Pictures(self.data.images(split))

{broken}

@hookimpl
def register_datasets(register):
    register("mine", lambda: Mine())
"""

# what is put in, what is said, and the exit code
DATASETS = {
    "Mine.images = lambda self, split: 1 / 0": ("failed in images('train'): ZeroDivisionError", 1),
    "Mine.images = lambda self, split: []": ("gave list in images('train'), which has no key and no image and no", 1),
    "Pictures.image = lambda self, i: {}[i]": ("failed in image(0): KeyError: 0 (FILE, line ", 1),
    "Pictures.mask = lambda self, i: {}[i]": ("failed in mask(0): KeyError: 0 (FILE, line ", 1),
    "Pictures.key = lambda self, i: i": ("gave 0 in key(0); it must give a name", 1),
    "Pictures.__len__ = lambda self: 1 / 0": ("failed in len(images): ZeroDivisionError", 1),
    "Pictures.image = lambda self, i: self._images.image(i) / 255": (
        "is wrong: the image train-0 is float64 [64, 64, 3]; it must be uint8 [H, W, 3], not empty",
        2,
    ),
    "Pictures.image = lambda self, i: None": ("is wrong: the image train-0 is object []", 2),
    "Pictures.mask = lambda self, i: self._images.mask(i)[None]": (
        "is wrong: the mask of train-0 holds uint8 [1, 64, 64]; it must hold whole class values [H, W], or be None",
        2,
    ),
    "Pictures.mask = lambda self, i: self._images.mask(i) / 1": (
        "is wrong: the mask of train-0 holds float64 [64, 64]",
        2,
    ),
    "Pictures.image = lambda self, i: open('/nowhere/x.png')": (
        "failed in image(0): No such file or directory: /nowhere/x.png (FILE, line ",
        2,
    ),
    "Pictures.image = lambda self, i: os.read(-1, 1)": (
        "failed in image(0): Bad file descriptor (FILE, line 41); it is of the image train-0.",
        2,
    ),
    "Pictures.mask = lambda self, i: Image.open(io.BytesIO(b'x'))": (
        "failed in mask(0): UnidentifiedImageError: cannot identify image file",
        2,
    ),
    "Pictures.file = lambda self, i: f'/photos/{i}.png'; Pictures.image = lambda self, i: Image.open(half()).load()": (
        "failed in image(0): OSError: image file is truncated (FILE, line 41); it is of the image /photos/0.png.",
        2,
    ),
    "Pictures.mask = lambda self, i: self._images.mask(i)[:47]": (
        "is wrong: the mask of train-0 is 47x64, its image 64x64: they must be of one size.",
        2,
    ),
    "Pictures.mask = lambda self, i: self._images.mask(i) * 0 + 7": (
        "is wrong: the mask of train-0 holds 7 at (y 0, x 0): classes go from 0 to 2 and void is 255.",
        2,
    ),
    "Pictures.key = lambda self, i: 'one'": (
        "is wrong: two images are called one: each needs a name of its own.",
        2,
    ),
    "Pictures.mask = lambda self, i: self._images.mask(i) if i else None": (
        "is wrong: the image val-0 of split 'val' has no mask while others have",
        2,
    ),
    "Pictures.__len__ = lambda self: 0": ("has no images in its split 'train'.", 2),
    "Mine.classes = Classes(('a', 'a'), 255)": ("must name its classes, each with a name of its own.", 2),
    "Mine.classes = Classes((0, 1), 255)": (
        'gave (0, 1) as the names of its classes; they must be strings, such as ("road", "sky").',
        1,
    ),
    "Mine.classes = Classes('sky', 255)": ("gave 'sky' as the names of its classes; they must be strings", 1),
    "Mine.classes = Classes(('a', 'b'), None)": ("gave None as the void value of its classes; it must be a whole", 1),
    "Mine.classes = Classes(('a', 'b'), 255, ('red', 'blue'))": ("gave 'red' as the colour of a class; it must be", 1),
    "Mine.published = 5": ('gave 5 as published; it must be such as {"train": 367}.', 1),
    "Mine.recipe = 'camvit'": ("is wrong: there is no recipe 'camvit'; did you mean camvid.", 2),
    "Pictures.image = lambda self, i: [0][:1] * 2**62": ("is wrong: the image train-0 is larger than the memory", 2),
    "Mine.splits = 'train'": ('gave \'train\' as its splits; it must give names, such as ("train", "val").', 1),
    "Mine.splits = ('val',)": ("has no images to train on.", 2),
    "Mine.splits = ('train', 'valid')": ('has a split \'valid\', which is none of "train", "val" and "test": re', 1),
    "Mine.recipe = None": ("gave None as its recipe; it must give a registered recipe's name.", 1),
    "Mine.__init__ = lambda self: open('/nowhere/list.txt')": (
        "failed to start: No such file or directory: /nowhere/list.txt (FILE, line 41).",
        2,
    ),
    "del Mine.images": ("has no images: see Dataset in alseg's documentation", 1),
}


@pytest.mark.parametrize("broken", DATASETS)
def test_a_dataset_is_named_before_the_run(told, tmp_path, broken):  # noqa: F811
    words, code = DATASETS[broken]
    said = told(DATASET.format(broken=broken), "run", "--dataset", "mine", "--model", "alseg-tiny", code=code)
    assert f"The dataset 'mine' of FILE {words}" in said
    assert not (tmp_path / "run").exists()


def test_a_dataset_is_named_by_its_check_too(cli, tmp_path):
    (tmp_path / "mine.py").write_text(HEAD + DATASET.format(broken="Pictures.mask = lambda self, i: {}[i]"))
    words = ["--plugin", tmp_path / "mine.py", "datasets", "check", "mine", "--out", tmp_path / "x.png"]
    outcome = cli(*words)
    assert outcome.code == 1
    assert f"The dataset 'mine' of {tmp_path / 'mine.py'} failed in mask(0): KeyError" in outcome.err
    (tmp_path / "mine.py").write_text(HEAD + DATASET.format(broken="Mine.passed_over = lambda self: ['a.gif']"))
    outcome = cli(*words)
    assert outcome.code == 1
    assert f"The dataset 'mine' of {tmp_path / 'mine.py'} gave ['a.gif'] in passed_over()" in outcome.err
