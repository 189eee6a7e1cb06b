"""Runs on a user's own images: mixed sizes and formats, one image, a large one, none with a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from photos import write_image, write_mask, write_pair
from PIL import Image
from test_run import lines

from alseg.answering import Attendance
from alseg.attending import annotate
from alseg.config import recipe
from alseg.errors import UserMistake
from alseg.store import RunFolder
from alseg_datasets.folder import Folder

ROAD, SKY = (128, 64, 128), (70, 130, 180)
NAMES = ("road", "sky", "car")
FEW = ("--first-pixels", 3, "--pixels-per-round", 2, "--rounds", 2)
# writes questions nowhere and never answers, as a person who has not come yet
SOMEBODY = """
from alseg import Answers, hookimpl
class Somebody:
    sees_truth = False
    def ask(self, questions): pass
    def collect(self): return Answers((), complete=False)
@hookimpl
def register_oracles(register): register("somebody", Somebody)
"""


def run(cli, data: Path, out: Path, *more: object, code: int = 0):
    words = ["run", "--dataset", "folder", "--data", data, *SMALL, *FEW, "--out", out]
    outcome = cli(*words, *more)
    assert outcome.code == code, outcome.err
    return outcome


def test_a_run_on_mixed_sizes_and_formats_is_resumed_as_it_was(cli, tmp_path):
    data, out = tmp_path / "data", tmp_path / "run"
    for i, suffix in enumerate(("png", "jpg", "webp", "tif")):
        write_pair(data / "images", data / "masks", f"{suffix}/{i}.{suffix}", (30 + 3 * i, 50 - 4 * i))
        write_pair(data / "images", data / "masks", f"{suffix}/more {i}.{suffix}", (40, 30))
    run(cli, data, out, "--classes", "road, sky,car", "-o", "dataset.val_fraction=0.4")
    rounds = lines(out / "rounds.jsonl")
    assert rounds[-1]["split"] == "val"
    assert set(rounds[-1]["iou"]) == set(NAMES)
    (out / "rounds.jsonl").write_bytes(b"".join((out / "rounds.jsonl").read_bytes().splitlines(True)[:1]))
    assert cli("resume", out).code == 0
    assert len(lines(out / "rounds.jsonl")) == 2
    found = {label["image"] for label in lines(out / "labels.jsonl")}
    assert all("/" in image and not image.endswith("png.png") for image in found)


def test_a_run_on_one_image(cli, tmp_path):
    write_pair(tmp_path / "data", tmp_path / "data" / "masks", "only.jpg")
    run(cli, tmp_path / "data", tmp_path / "run", "--classes", "road,sky,car")
    assert {label["image"] for label in lines(tmp_path / "run" / "labels.jsonl")} == {"only"}
    assert lines(tmp_path / "run" / "rounds.jsonl")[-1]["miou"] is None


@pytest.mark.parametrize("rounds", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_on_a_photograph_of_12_megapixels(cli, tmp_path, rounds):
    data = tmp_path / "data"
    (data / "masks").mkdir(parents=True)
    bands = np.repeat(np.arange(3, dtype=np.uint8), 1000)
    Image.fromarray(np.tile(bands[:, None, None] * 80, (1, 4000, 3))).save(data / "large.jpg")
    Image.fromarray(np.tile(bands[:, None], (1, 4000))).save(data / "masks" / "large.png")
    run(cli, data, tmp_path / "run", "--classes", "road,sky,car", "--rounds", rounds, "--first-pixels", 8)
    labels = lines(tmp_path / "run" / "labels.jsonl")
    assert len(labels) == 6 + 2 * rounds
    assert all(label["class"] == NAMES[label["y"] // 1000] for label in labels)
    assert max(label["x"] for label in labels) >= 1000


def test_a_run_on_16_bit_grey_palette_and_alpha_images_with_colour_masks(cli, tmp_path):
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "masks").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (32, 40, 4), np.uint8)
    colour = Image.fromarray(picture)
    for name, image in {
        "sixteen.png": Image.fromarray(picture[..., 0].astype(np.uint16) * 257),
        "grey.jpg": colour.convert("L"),
        "palette.png": colour.convert("RGB").quantize(16),
        "alpha.webp": colour,
        "grey-alpha.tif": colour.convert("LA"),
    }.items():
        image.save(data / "images" / name)
        mask = np.zeros((32, 40, 3), np.uint8)
        mask[:16], mask[16:] = ROAD, SKY
        Image.fromarray(mask).save((data / "masks" / name).with_suffix(".png"))
    (data / "classes.toml").write_text('names = ["road", "sky"]\ncolours = [[128, 64, 128], [70, 130, 180]]')
    run(cli, data, tmp_path / "run", "-o", "dataset.val_fraction=0")
    labels = lines(tmp_path / "run" / "labels.jsonl")
    assert len(labels) == 25
    assert all(label["class"] == ("road" if label["y"] < 16 else "sky") for label in labels)


def test_images_without_any_mask_get_as_far_as_the_first_question(cli, tmp_path):
    data, oracle = tmp_path / "data", tmp_path / "somebody.py"
    for i in range(3):
        write_image(data / f"{i}.jpg", (30 + i, 40))
    oracle.write_text(SOMEBODY)
    words = ["--plugin", oracle, "run", "--dataset", "folder", "--data", data, "--classes", "road,sky", *SMALL, *FEW]
    outcome = cli(*words, "--oracle", "somebody", "--out", tmp_path / "run")
    assert outcome.code == 3, outcome.err
    questions = lines(tmp_path / "run" / "rounds" / "00" / "questions.jsonl")
    assert len(questions) == 9
    assert all(0 <= q["y"] < 30 + int(q["image"]) and 0 <= q["x"] < 40 for q in questions)
    with_truth = run(cli, data, tmp_path / "other", "--classes", "road,sky", code=2)
    assert "The image 0 has no mask" in with_truth.err


def test_masks_of_0_and_255_are_one_class_and_void_which_is_said(cli, tmp_path):
    for i in range(3):
        write_pair(tmp_path / "data" / "images", tmp_path / "data" / "masks", f"{i}.png", (32, 40))
        write_mask(tmp_path / "data" / "masks" / f"{i}.png", (32, 40), (0, 255))
    outcome = run(cli, tmp_path / "data", tmp_path / "run", "--classes", "ground,car", "--rounds", 1)
    assert "No pixel of the training masks is car (void is 255)." in outcome.err


def test_images_that_became_others_of_the_same_bytes_are_noticed(cli, tmp_path):
    data = tmp_path / "data"
    for i in range(3):
        Image.new("RGB", (40, 32), (i, i, i)).save(write_image(data / "images" / f"{i}.png"))
        Image.new("L", (40, 32), i % 2).save(write_mask(data / "masks" / f"{i}.png"))
    run(cli, data, tmp_path / "run", "--classes", "ground,car", "--rounds", 1, "-o", "dataset.val_fraction=0")
    Image.new("RGB", (32, 40), (1, 1, 1)).save(data / "images" / "1.png")
    Image.new("L", (32, 40), 1).save(data / "masks" / "1.png")
    outcome = cli("resume", tmp_path / "run", "--rounds", 2)
    assert outcome.code == 2 and "The image 1 of split 'train' is not what it was when the run began" in outcome.err


def test_classes_may_be_a_list_in_toml_and_belong_to_datasets_that_take_them(cli, camvid, tmp_path):
    write_pair(tmp_path / "data", tmp_path / "data" / "masks", "a.png")
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[dataset]\nname = "folder"\ndata = "{tmp_path / "data"}"\nclasses = ["road", "sky", "car"]\n')
    words = ["run", "--config", settings, *SMALL, *FEW, "--rounds", 1]
    assert cli(*words, "--out", tmp_path / "run").code == 0
    outcome = cli("run", "--dataset", "camvid", "--data", camvid, "--classes", "a,b", "--out", tmp_path / "other")
    assert outcome.code == 2
    assert "no option 'classes'" in outcome.err


def test_the_recipe_folder_is_camvids_without_a_size(registry):
    camvid = {k: v for k, v in recipe(registry, "camvid").items() if not k.endswith((".size", ".resize"))}
    assert recipe(registry, "folder") == camvid


@pytest.mark.parametrize(
    ("oracle", "changed"),
    [("ground-truth", 'names = ["sky", "road", "car"]'), ("human", 'names = ["road", "sky", "car"]\nvoid = 254')],
)
def test_a_run_keeps_the_classes_that_it_began_with(cli, registry, tmp_path, oracle, changed):
    data, out, waits = tmp_path / "data", tmp_path / "run", oracle == "human"
    write_pair(data, data / "masks", "a.png")
    (data / "classes.toml").write_text('names = ["road", "sky", "car"]')
    run(cli, data, out, "--rounds", 1, "--oracle", oracle, *(["--no-wait"] if waits else []), code=3 if waits else 0)
    (data / "classes.toml").write_text(changed)
    outcome = cli("resume", out, *(["--no-wait"] if waits else ["--rounds", 2]))
    assert outcome.code == 2 and "not those that the run began with (road, sky, car; void 255)" in outcome.err
    if waits:
        with pytest.raises(UserMistake, match="The classes are not those"):
            annotate(RunFolder(out), registry=registry, attendance=Attendance(wait=False, browser=False))


@given(name=st.text(min_size=1, max_size=20))
def test_any_name_of_a_class_is_taken_or_refused(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "names"
    write_image(root / "a.png", (4, 4))
    try:
        classes = Folder(root, (name, "other")).classes
    except UserMistake:
        assert not name.strip() or name == "other"
    else:
        assert classes.names == (name, "other")
