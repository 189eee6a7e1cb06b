"""Using a run's model: masks and maps of any images, in pieces, again and again."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from conftest import SMALL, named_pipe, write_camvid
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import alseg
from alseg import predicting
from alseg.cli.app import run_cli
from alseg.engine.tiles import strips, tile_starts, tiled_logits
from alseg.errors import UserMistake
from alseg.grid import resize
from alseg.imagefiles import read_image
from alseg.several import Choice


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run whose data are gone."""
    root = tmp_path_factory.mktemp("trained")
    data, out = write_camvid(root / "camvid"), root / "run"
    words = ["run", "--dataset", "camvid", "--data", data, *SMALL, "--rounds", "2", "--out", out]
    assert run_cli([*map(str, words), "-o", "train.epochs=3"]) == 0
    data.rename(root / "moved")
    return out


def photo(path: Path, height: int, width: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_masks_maps_and_overlays_of_a_folder(cli, run, tmp_path):
    photos = tmp_path / "photos"
    sizes = {"a": (50, 70), "inside/b": (33, 121), "größe": (64, 64)}
    for name, size in sizes.items():
        photo(photos / f"{name}.png", *size)
    out = tmp_path / "out"
    outcome = cli("predict", run, photos, "--out", out, "--probabilities", "--utility", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["done"] == sorted(sizes)
    for name, size in sizes.items():
        picture = Image.open(out / "masks" / f"{name}.png")
        mask, chances = np.asarray(picture), np.load(out / "probabilities" / f"{name}.npy")
        assert mask.shape == size
        assert (picture.mode, picture.getpalette()[:3]) == ("P", [128, 128, 128]), "sky is grey in CamVid"
        assert chances.shape == (11, *size)
        np.testing.assert_allclose(chances.astype(float).sum(0), 1, atol=0.01)
        top = np.sort(chances.astype(float), 0)
        utility = np.load(out / "utility" / f"{name}.npy")
        np.testing.assert_allclose(utility, top[-2] - top[-1], atol=2e-3)
        sure = top[-1] - top[-2] > 0.01
        assert (mask == chances.argmax(0))[sure].all()
        assert Image.open(out / "overlays" / f"{name}.jpg").size == size[::-1]


def test_the_same_command_goes_on_where_it_was_stopped(cli, run, tmp_path):
    for name in "abc":
        photo(tmp_path / "photos" / f"{name}.png", 40, 40)
    words = ["predict", run, tmp_path / "photos", "--out", tmp_path / "out", "--json"]
    assert cli(*words).code == 0
    before = (tmp_path / "out/masks/b.png").read_bytes()
    (tmp_path / "out/masks/b.png").unlink()
    result = json.loads(cli(*words).out)
    assert (result["done"], result["kept"]) == (["b"], ["a", "c"])
    assert (tmp_path / "out/masks/b.png").read_bytes() == before
    photo(tmp_path / "photos" / "c.png", 30, 30)  # a newer image
    assert json.loads(cli(*words).out)["done"] == ["c"]
    outcome = cli(*words, "--size", "32x32")
    assert outcome.code == 2
    assert "another size" in outcome.err


def test_a_bad_image_among_others_is_told_and_passed_over(cli, run, tmp_path):
    photo(tmp_path / "photos" / "good.png", 40, 40)
    (tmp_path / "photos" / "bad.png").write_bytes(b"not a picture")
    named_pipe(tmp_path / "photos" / "pipe.png")
    outcome = cli("predict", run, tmp_path / "photos", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "bad.png" in outcome.err
    assert "pipe.png: it is no ordinary file." in outcome.err
    assert (tmp_path / "out/masks/good.png").exists()


REFUSED = {
    "no image": (["nothing.png"], "nothing.png"),
    "an empty folder": (["empty"], "empty"),
    "a text": (["notes.txt"], "notes.txt"),
    "two of a name": (["one/a.png", "two/a.png"], "one/a.png"),
    "no such round": (["one", "--round", "7"], "round 7"),
    "no precision": (["one", "--precision", "float16"], "precision takes auto, float32 or bfloat16, not 'float16'"),
    "no size": (["one", "--size", "big"], "--size"),
    "another's folder": (["one", "--out", "two"], "holds other files"),
    "the images' own folder": (["one", "--out", "two/../one"], "--out is the folder of the images one themselves"),
    "a glob of the own folder": (["one/*.png", "--out", "one"], "--out is the folder of the images one/*.png"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_predicted_is_said(cli, run, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        photo(Path(name) / "a.png", 20, 20)
    Path("empty").mkdir()
    Path("notes.txt").write_text("x")
    words, expected = REFUSED[case]
    outcome = cli("predict", run, *words, *([] if "--out" in words else ["--out", "out"]))
    assert outcome.code == 2
    assert expected in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("out").exists()


def test_a_glob_is_expanded(cli, run, tmp_path):
    for name in "ab":
        photo(tmp_path / f"{name}.png", 20, 20)
    assert cli("predict", run, f"{tmp_path}/[a-b].png", "--out", tmp_path / "out").code == 0
    assert len(list((tmp_path / "out/masks").iterdir())) == 2


def test_predicting_gives_the_scores_of_the_run(run):
    data = run.parent / "moved"
    segmenter = alseg.Segmenter(run, device="cpu")
    matrix = np.zeros((11, 11), np.int64)
    for path in sorted((data / "val").glob("*.png")):
        mask = np.asarray(Image.open(data / "valannot" / path.name))
        seen = segmenter.segment(np.asarray(Image.open(path)))
        np.add.at(matrix, (mask[mask < 11], seen.mask[mask < 11]), 1)
    rows = (run / "rounds/01/confusion.csv").read_text().splitlines()[1:]
    stored = np.array([[int(cell) for cell in row.split(",")[1:]] for row in rows])
    assert (matrix == stored).all()


def test_an_earlier_round_and_a_bad_array(run):
    assert alseg.Segmenter(run, round=0).round == 0
    with pytest.raises(alseg.UserMistake, match="uint8"):
        alseg.Segmenter(run).segment(np.zeros((4, 4, 3)))


def test_a_path_and_a_pillow_image_are_read_as_a_datasets_images_are(run, tmp_path):
    segmenter = alseg.Segmenter(run, device="cpu")
    random = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = Image.fromarray(random.integers(0, 256, (40, 60, 4), np.uint8))
    clear.save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(random.integers(0, 2**16, (40, 60), np.uint16)).save(tmp_path / "grey.png")
    for name, size in (("turned.png", (60, 40)), ("grey.png", (40, 60))):
        expected = segmenter.segment(read_image(tmp_path / name), probabilities=True)
        assert expected.mask.shape == size
        with Image.open(tmp_path / name) as opened:
            for image in (tmp_path / name, str(tmp_path / name), opened, opened.copy()):
                found = segmenter.segment(image, probabilities=True)
                assert (found.mask == expected.mask).all()
                assert (found.probabilities == expected.probabilities).all()
    fractions = Image.fromarray(np.zeros((4, 4), np.float32))
    for image, message in (
        (None, "not a NoneType"),
        ([[0, 0, 0]], "not a list"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "not a Tensor"),
        (tmp_path / "gone.png", "gone.png: No such file"),
        (tmp_path, "directory"),
        (fractions, "the image: it has 32 bits"),
    ):
        with pytest.raises(alseg.UserMistake, match=message):
            segmenter.segment(image)


@given(length=st.integers(1, 500), tile=st.integers(8, 128))
def test_tiles_cover_every_pixel_and_overlap(length, tile):
    starts = tile_starts(length, tile)
    assert starts[0] == 0
    assert starts[-1] + tile >= length
    assert starts == [0] or starts[-1] + tile == length
    for before, after in pairwise(starts):
        assert 0 < after - before <= max(1, int(0.75 * tile)) + 1


@settings(max_examples=30, deadline=None)
@given(height=st.integers(20, 90), width=st.integers(20, 90), tile=st.integers(16, 64))
def test_tiles_of_a_local_model_give_the_whole_map(height, width, tile):
    images = torch.rand(1, 3, height, width)
    whole = tiled_logits(images, lambda part: part * 2, 1000)
    torch.testing.assert_close(tiled_logits(images, lambda part: part * 2, tile), whole)


@settings(max_examples=30, deadline=None)
@given(h=st.integers(1, 12), w=st.integers(1, 12), H=st.integers(1, 60), W=st.integers(1, 60))
def test_strips_are_the_resized_map(h, w, H, W):  # noqa: N803
    logits = torch.randn(1, 3, h, w)
    found = torch.cat([rows() for _, rows in strips(logits, (H, W), most=3 * W * 4)], 2)
    torch.testing.assert_close(found, resize(logits, (H, W)), atol=2e-5, rtol=1e-4)


def test_another_model_in_the_same_folder_is_another_model(cli, run, tmp_path):
    photo(tmp_path / "photos" / "a.png", 20, 20)
    moved = shutil.copytree(run, tmp_path / "run")
    words = ["predict", moved, tmp_path / "photos", "--out", tmp_path / "out"]
    assert cli(*words).code == 0
    first = moved / "rounds/00/model.safetensors"
    (moved / "rounds/01/model.safetensors").write_bytes(first.read_bytes())
    outcome = cli(*words)
    assert outcome.code == 2 and "another model" in outcome.err


def test_an_older_file_in_the_place_of_an_image_is_predicted(cli, run, tmp_path):
    path = photo(tmp_path / "photos" / "a.png", 20, 20)
    words = ["predict", run, tmp_path / "photos", "--out", tmp_path / "out", "--json"]
    assert cli(*words).code == 0
    photo(path, 30, 30)
    os.utime(path, (1, 1))
    assert json.loads(cli(*words).out)["done"] == ["a"]
    assert np.asarray(Image.open(tmp_path / "out/masks/a.png")).shape == (30, 30)


@pytest.mark.parametrize("time", [1, 2])
def test_an_image_from_elsewhere_does_not_pass_for_one_of_its_name(cli, run, tmp_path, time):
    first, second = photo(tmp_path / "day1/x.png", 20, 20), photo(tmp_path / "day2/x.png", 20, 20, 1)
    os.utime(first, (1, 1))
    os.utime(second, (time, time))
    assert cli("predict", run, first, "--out", tmp_path / "out").code == 0
    mask = (tmp_path / "out/masks/x.png").read_bytes()
    outcome = cli("predict", run, second, "--out", tmp_path / "out")
    assert outcome.code == 2 and str(first) in outcome.err and "another --out" in outcome.err
    assert (tmp_path / "out/masks/x.png").read_bytes() == mask
    (tmp_path / "link").symlink_to(tmp_path / "day1", target_is_directory=True)
    again = cli("predict", run, tmp_path / "link/x.png", "--out", tmp_path / "out", "--json")
    assert json.loads(again.out)["kept"] == ["x"], "the same file by another way"


def test_maps_of_an_image_that_was_replaced_are_not_kept(cli, run, tmp_path):
    path = photo(tmp_path / "photos" / "a.png", 30, 30)
    words = ["predict", run, tmp_path / "photos", "--out", tmp_path / "out"]
    assert cli(*words, "--probabilities", "--utility").code == 0
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    os.utime(path, (1, 1))
    assert cli(*words, "--no-overlays").code == 0
    left = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").glob("*/*")}
    assert left == {"masks/a.png"}
    assert cli(*words, "--probabilities").code == 0
    chances = np.load(tmp_path / "out/probabilities/a.npy").astype(np.float32)
    agree = chances.argmax(0) == np.asarray(Image.open(tmp_path / "out/masks/a.png"))
    assert agree.mean() > 0.99, "float16 ties aside"


@pytest.mark.parametrize("what", ["too large to segment", "too large to draw", "too wide for a JPEG"])
def test_an_image_that_cannot_be_done_does_not_keep_others_from_it(cli, run, tmp_path, monkeypatch, what):
    for name, side in (("a", 20), ("b", 33), ("c", 20)):
        photo(tmp_path / "photos" / f"{name}.png", side, side)
    logits, overlay = alseg.Segmenter._logits, predicting._overlay

    def segmented(self, images):
        return raise_memory() if images.shape[-1] == 33 and what == "too large to segment" else logits(self, images)

    def laid_over(image, seen, classes):
        if image.shape[0] == 33 and what != "too large to segment":
            raise MemoryError if what == "too large to draw" else OSError("broken data stream")
        return overlay(image, seen, classes)

    monkeypatch.setattr(alseg.Segmenter, "_logits", segmented)
    monkeypatch.setattr(predicting, "_overlay", laid_over)
    words = ["predict", run, tmp_path / "photos", "--out", tmp_path / "out", "--size", "own"]
    outcome = cli(*words)
    assert outcome.code == 2 and "b" in outcome.err and "Traceback" not in outcome.err
    assert (tmp_path / "out/masks/c.png").exists() and (tmp_path / "out/overlays/c.jpg").exists()
    monkeypatch.undo()
    found = json.loads(cli(*words, "--json").out)
    assert (found["done"], found["kept"], found["failed"]) == (["b"], ["a", "c"], [])


def test_predictions_inside_the_input_are_no_input(cli, run, tmp_path):
    photo(tmp_path / "photos" / "a.png", 20, 20)
    for out in ("first", "second", "first"):
        outcome = cli("predict", run, tmp_path / "photos", "--out", tmp_path / "photos" / out, "--json")
        found = json.loads(outcome.out)
        assert found["done"] + found["kept"] == ["a"]


@pytest.mark.parametrize(
    ("masks", "stated"), [("masks", "none"), ("truth", "truth"), ("train/masks", "none"), ("images/valannot", "none")]
)
def test_masks_of_the_runs_dataset_are_no_input(cli, run, tmp_path, masks, stated):
    photos, moved = tmp_path / "photos", shutil.copytree(run, tmp_path / "run")
    photo(photos / "train/a.png", 20, 20)
    photo(photos / masks / "a.png", 20, 20)
    table = tomllib.loads((moved / "run.toml").read_text("utf-8"))
    table["dataset"] = {"name": "folder", "data": str(photos), "masks": stated}
    (moved / "run.toml").write_text(tomli_w.dumps(table), "utf-8")
    outcome = cli("predict", moved, photos, "--out", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["done"] == ["train/a"]
    asked = cli("predict", moved, photos / masks, "--out", tmp_path / "asked", "--json")
    assert json.loads(asked.out)["done"] == ["a"]


def test_a_name_too_long_is_told_and_the_others_are_done(cli, run, tmp_path):
    photo(tmp_path / "photos" / "z.png", 20, 20)
    photo(tmp_path / "photos" / ("n" * 249 + ".png"), 20, 20)
    outcome = cli("predict", run, tmp_path / "photos", "--out", tmp_path / "out")
    assert (tmp_path / "out/masks/z.png").exists()
    long = (tmp_path / "out" / "masks" / ("n" * 249 + ".png")).exists()  # where the file system has longer names
    assert outcome.code == (0 if long else 2)


def test_memory_that_runs_out_makes_tiles_smaller(cli, run, tmp_path, monkeypatch):
    photo(tmp_path / "photos" / "a.png", 200, 260)
    seen, logits = [], alseg.Segmenter._logits

    def small(self, images):
        seen.append(max(images.shape[-2:]))
        if seen[-1] > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(self, images)

    monkeypatch.setattr(alseg.Segmenter, "_logits", small)
    outcome = cli("predict", run, tmp_path / "photos", "--out", tmp_path / "out", "--size", "own", "--tile", 256)
    assert outcome.code == 0, outcome.err
    assert "in tiles of 64" in outcome.err
    monkeypatch.setattr(alseg.Segmenter, "_logits", lambda self, images: raise_memory())
    outcome = cli("predict", run, tmp_path / "photos", "--out", tmp_path / "other")
    assert outcome.code == 2 and "not enough memory" in outcome.err


def raise_memory():
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_an_interruption_says_how_to_go_on(cli, run, tmp_path, monkeypatch):
    for name in "abc":
        photo(tmp_path / "photos" / f"{name}.png", 20, 20)
    segment, calls = alseg.Segmenter.segment, []

    def interrupted(self, *words, **more):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return segment(self, *words, **more)

    monkeypatch.setattr(alseg.Segmenter, "segment", interrupted)
    outcome = cli("predict", run, tmp_path / "photos", "--out", tmp_path / "out")
    assert outcome.code == 130
    assert "1 of 3 images are done, the same command goes on" in outcome.err


def test_committee_utilities_in_tiles(tmp_path, run):
    segmenter = alseg.Segmenter(run, device="cpu", size="own", tile=64)
    segmenter.config = dataclasses.replace(segmenter.config, acquirer=Choice("bald", {"passes": 2}))
    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    utility = segmenter.segment(image, utility=True).utility
    assert utility is not None and utility.shape == (90, 130)
    assert np.isfinite(utility).all() and utility.max() > 0


def test_a_folder_that_was_made_and_not_yet_filled_is_filled(run, tmp_path):
    """What a killed process left is no file of anybody else's."""
    Image.new("RGB", (40, 30)).save(tmp_path / "p.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".k3x_a9.tmp").touch()
    assert [*alseg.predict(run, tmp_path / "p.png", tmp_path / "out").done] == ["p"]


def test_one_path_from_python_is_no_series_of_letters(run, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "p.png")
    for path in (tmp_path, str(tmp_path), tmp_path / "p.png", str(tmp_path / "p.png")):
        out = tmp_path / "out"
        assert [*alseg.predict(run, path, out).done] == ["p"]
        shutil.rmtree(out)
    with pytest.raises(UserMistake, match=r"Images are given by paths, not .*: Segmenter.segment takes pixels"):
        alseg.predict(run, [np.zeros((4, 4, 3), np.uint8)], tmp_path / "out")
    for nothing in (None, 5, b"/p.png", ""):
        with pytest.raises(UserMistake, match="Images are given by paths, not "):
            alseg.predict(run, nothing, tmp_path / "out")
