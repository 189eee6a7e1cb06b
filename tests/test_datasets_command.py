"""`alseg datasets` and `alseg datasets check` through the real command line."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import SMALL, named_pipe
from photos import write_image, write_pair
from PIL import Image
from test_datasets import write_cityscapes, write_voc12

from alseg.dataset_check import SplitCheck, sample

THIRD_PARTY = '''
import numpy as np
from alseg import Classes, hookimpl
class Plain:
    """Plain squares, all of one class.

    From nowhere: made here.
        no/folder/at/all
    """
    classes, splits, recipe = Classes({names}, {void}), ("train",), "camvid"
    def __init__(self, side: int = 8): self.side = side
    def images(self, split): return self
    def __len__(self): return 9
    def key(self, i): return f"square-{{i}}"
    def image(self, i): return np.full((self.side, self.side, 3), 20 * i, np.uint8)
    def mask(self, i): return {mask}
@hookimpl
def register_datasets(register): register("plain", Plain)
'''


def third_party(path, names=("a", "b $x$ [bold]"), void=255, mask="np.zeros((8, 8), int)"):
    path.write_text(THIRD_PARTY.format(names=names, void=void, mask=mask))
    return path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def refused(outcome) -> str:
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert outcome.err.startswith("alseg: ")
    return outcome.err


def test_the_list_says_where_each_is_had_and_what_its_folder_looks_like(cli):
    outcome = cli("datasets")
    assert outcome.code == 0
    for words in (
        "cityscapes  Cityscapes (Cordts et al., 2016): 19 classes",
        "leftImg8bit_trainvaltest.zip",
        "gtFine/{train,val,test}/CITY/*_gtFine_labelIds.png",
        "ImageSets/Segmentation/train.txt",
        "--classes road,sky",
        'names = ["road", "sky"]',
        "split_by=auto",
    ):
        assert words in outcome.out


def test_every_first_party_dataset_describes_itself(cli):
    rows = json.loads(cli("--no-third-party", "datasets", "--json").out)
    assert {row["name"] for row in rows} >= {"camvid", "cityscapes", "voc12", "folder", "shapes"}
    for row in rows:
        assert row["error"] is None
        assert row["summary"].endswith(".")
        assert row["description"]
        assert row["options"]


def test_a_third_partys_docstring_is_shown_as_it_is(cli, tmp_path):
    plugin = third_party(tmp_path / "plain.py")
    outcome = cli("--plugin", plugin, "datasets")
    assert "plain  Plain squares, all of one class." in outcome.out
    assert "        no/folder/at/all" in outcome.out
    row = next(row for row in json.loads(cli("--plugin", plugin, "datasets", "--json").out) if row["name"] == "plain")
    assert row["summary"] == "Plain squares, all of one class."
    assert row["distribution"] == str(plugin)


def test_the_list_does_without_torch(tmp_path):
    code = "import sys; from alseg.cli.app import run_cli; run_cli(['datasets']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_a_good_copy_is_counted_and_drawn(cli, camvid, tmp_path):
    outcome = cli("datasets", "check", "camvid", "--data", camvid, "--out", tmp_path / "six.png")
    assert outcome.code == 0, outcome.err
    for words in ("train        6", "64x64", "sky", "(void, 11)", "train: 6 of the 367 images that were published."):
        assert words in outcome.out
    assert "No pixel of the training masks is pavement, tree" in outcome.out
    assert f"picture: {tmp_path / 'six.png'}" in outcome.out
    with Image.open(tmp_path / "six.png") as picture:
        assert picture.size[0] > 1000
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {(128, 128, 128), (128, 0, 0), (64, 0, 128)} <= colours, "the legend shows the classes' own colours"


def test_json_counts_what_is_there(cli, camvid, tmp_path):
    (camvid / "trainannot" / "train01.png").unlink()
    outcome = cli("datasets", "check", "camvid", "--data", camvid, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["picture"] == str(tmp_path / "here" / "camvid-samples.png")
    assert (tmp_path / "here" / "camvid-samples.png").stat().st_size > 5000
    assert (result["dataset"], len(result["classes"]), result["void"]) == ("camvid", 11, 11)
    train, val = result["splits"]
    assert (train["split"], train["images"], train["published"]) == ("train", 6, 367)
    assert (train["without_mask"], val["without_mask"]) == (["train01"], [])
    assert train["sizes"] == {"64x64": 6}
    masks = [np.asarray(Image.open(path)) for path in (camvid / "trainannot").iterdir()]
    counts = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=12).tolist()
    assert [*train["pixels"].values(), train["void"]] == counts
    assert list(train["pixels"]) == result["classes"]


@pytest.mark.parametrize("name", ["cityscapes", "voc12", "shapes", "folder"])
def test_each_dataset_can_be_checked(cli, tmp_path, name):
    words: list[object] = ["--data", tmp_path / "data"]
    if name == "cityscapes":
        write_cityscapes(tmp_path / "data")
    elif name == "voc12":
        write_voc12(tmp_path / "data")
    elif name == "folder":
        for i in range(9):
            write_pair(tmp_path / "data" / "images", tmp_path / "data" / "masks", f"été {i}/街.png", (20 + i, 31))
        words += ["--classes", "road,sky,car", "-o", "dataset.val_fraction=0.3"]
    else:
        words = ["-o", "dataset.train_images=4"]
    outcome = cli("datasets", "check", name, *words)
    assert outcome.code == 0, outcome.err
    assert not outcome.err, "neither warnings nor progress"
    assert (tmp_path / "here" / f"{name}-samples.png").exists()


def test_images_without_masks_can_be_checked(cli, tmp_path):
    for i in range(4):
        write_image(tmp_path / "data" / f"{i}.jpg")
    outcome = cli("datasets", "check", "folder", "--data", tmp_path / "data", "--classes", "a,b")
    assert outcome.code == 0, outcome.err
    assert "pixels %" not in outcome.out
    write_pair(tmp_path / "data", tmp_path / "data" / "masks", "labelled.png")
    words = ("--classes", "a,b,c", "-o", "dataset.val_fraction=0")
    outcome = cli("datasets", "check", "folder", "--data", tmp_path / "data", *words)
    assert "train has images without a mask: 0, 1, 2, ..." in outcome.out


@pytest.mark.parametrize("layout", ["fraction", "folders", "lists"])
def test_what_a_folder_passes_over_is_said(cli, tmp_path, layout):
    data, part = tmp_path / "data", "train/" if layout == "folders" else ""
    for name in ("a.png", "b.png"):
        write_pair(data / "images" / part, data / "masks" / part, name)
    words = ("datasets", "check", "folder", "--data", data, "--classes", "a,b,c", "-o", "dataset.val_fraction=0")
    if layout == "lists":
        (data / "train.txt").write_text("a\nb\n")
    outcome = cli(*words)
    assert outcome.code == 0 and "Passed over" not in outcome.out, outcome.err
    assert json.loads(cli(*words, "--json").out)["passed_over"] == {}
    for name in ("c.gif", "d.HEIC", "notes.txt", ".e.gif"):
        (data / "images" / part / name).touch()
    write_pair(tmp_path, data / "masks" / part, "lonely.png")
    write_image(data / "beside.png")
    unread = [f"images/{part}c.gif", f"images/{part}d.HEIC"]
    if layout == "lists":
        write_pair(data / "images", data / "masks", "unlisted.png")
        unread.append("images/unlisted.png")
    found = json.loads(cli(*words, "--json").out)["passed_over"]
    assert found == {
        "files that look like images and are not read": ["beside.png", *unread],
        "masks without an image": [f"masks/{part}lonely.png"],
    }
    shown = cli(*words).out
    assert f"files that look like images and are not read: {len(unread) + 1}, such as beside.png." in shown
    assert f"Passed over, masks without an image: 1, such as masks/{part}lonely.png." in shown


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train/train02.png", b"", r"train/train02.png: it is empty."),
        ("trainannot/train02.png", b"nonsense", r"trainannot/train02.png: it is not an image"),
        ("train/train02.png", named_pipe, "train/train02.png: it is no ordinary file."),
        ("trainannot/train02.png", named_pipe, "trainannot/train02.png: it is no ordinary file."),
        ("valannot/val00.png", (64, 60), "mask of val00 is 64x60"),
        ("valannot/val00.png", 77, "mask of val00 holds 77"),
    ],
)
def test_the_first_bad_file_is_named(cli, camvid, tmp_path, file, content, message):
    if isinstance(content, bytes):
        (camvid / file).write_bytes(content)
    elif callable(content):
        (camvid / file).unlink()
        content(camvid / file)
    else:
        size, value = (content, 0) if isinstance(content, tuple) else ((64, 64), content)
        Image.fromarray(np.full(size, value, np.uint8)).save(camvid / file)
    assert message in refused(cli("datasets", "check", "camvid", "--data", camvid))
    assert not list((tmp_path / "here").iterdir())


def test_what_is_asked_wrongly(cli, camvid, tmp_path):
    check = ("datasets", "check", "camvid", "--data", camvid)
    assert "did you mean camvid" in refused(cli("datasets", "check", "camvod", "--data", camvid))
    assert "needs --data" in refused(cli("datasets", "check", "camvid"))
    assert "no option 'classes'" in refused(cli(*check, "--classes", "a,b"))
    assert "not train.epochs" in refused(cli(*check, "-o", "train.epochs=2"))
    assert "ends in .png" in refused(cli(*check, "--out", tmp_path / "six.pdf"))
    assert "no folder" in refused(cli(*check, "--out", tmp_path / "none" / "six.png"))
    assert "among the data" in refused(cli(*check, "--out", camvid / "train" / "six.png"))
    given = ("datasets", "check", "camvid", "-o", f"dataset.data={camvid}")
    assert "among the data" in refused(cli(*given, "--out", camvid / "train" / "six.png"))
    (tmp_path / "mine.png").write_bytes(b"mine")
    assert "mine.png exists: give another --out" in refused(cli(*check, "--out", tmp_path / "mine.png"))
    assert (tmp_path / "mine.png").read_bytes() == b"mine"
    assert len(list((camvid / "train").iterdir())) == 6


@pytest.mark.parametrize("change", ["a mask is missing", "void alone"])
def test_held_out_masks_that_a_run_refuses_are_refused(cli, camvid, tmp_path, change):
    masks = sorted((camvid / "valannot").iterdir())
    if change == "void alone":
        for mask in masks:
            Image.new("L", Image.open(mask).size, 11).save(mask)
        said = "Every pixel of the masks of split 'val' is void: nothing can be evaluated on it."
    else:
        masks[0].unlink()
        said = "of split 'val' has no mask while others have: add the mask or remove the image."
    assert said in refused(cli("datasets", "check", "camvid", "--data", camvid))
    words = ("run", "--dataset", "camvid", "--data", camvid, *SMALL, "--rounds", 1, "--out", tmp_path / "run")
    assert said in refused(cli(*words))


def test_a_check_without_out_may_be_done_again(cli, camvid, tmp_path):
    picture = tmp_path / "here" / "camvid-samples.png"
    for _ in range(2):
        assert cli("datasets", "check", "camvid", "--data", camvid).code == 0
        assert picture.stat().st_size > 5000
        picture.write_bytes(b"earlier")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("a", "a")}, "a name of its own"),
        ({"names": ()}, "a name of its own"),
        ({"void": 1}, "void is 1, which is the class"),
        ({"mask": "np.zeros((8, 8))"}, "mask of square-0 holds float64"),
        ({"mask": "np.full((8, 8), -3)"}, "mask of square-0 holds -3"),
    ],
)
def test_a_third_partys_mistakes_are_found(cli, tmp_path, change, message):
    plugin = third_party(tmp_path / "plain.py", **change)
    assert message in refused(cli("--plugin", plugin, "datasets", "check", "plain"))


def test_a_third_partys_good_dataset_passes(cli, tmp_path):
    outcome = cli("--plugin", third_party(tmp_path / "plain.py"), "datasets", "check", "plain", "-o", "dataset.side=8")
    assert outcome.code == 0, outcome.err
    assert "No pixel of the training masks is b $x$ [bold]" in outcome.out


def checked(split: str, has_mask: list[bool]) -> SplitCheck:
    return SplitCheck(split, tuple(map(str, range(len(has_mask)))), tuple(has_mask), None, {}, {}, 0)


def test_samples_are_spread_and_prefer_masks():
    assert sample([checked("train", [True] * 600), checked("val", [True] * 300)], 6) == [
        ("train", 75),
        ("train", 225),
        ("train", 375),
        ("train", 525),
        ("val", 75),
        ("val", 225),
    ]
    few = sample([checked("train", [False] * 50 + [True, True])], 6)
    assert few[:2] == [("train", 50), ("train", 51)]
    assert len(set(few)) == 6
    assert sample([checked("train", [True, False])], 6) == [("train", 0), ("train", 1)]


def test_what_a_dataset_prints_is_not_among_the_json(cli, tmp_path):
    plugin = third_party(tmp_path / "plain.py")
    plugin.write_text(plugin.read_text().replace("self.side = side", "self.side = side; print('opened')"))
    checked = cli("--plugin", plugin, "datasets", "check", "plain", "--json")
    assert json.loads(checked.out)["dataset"] == "plain" and "opened" in checked.err
    (tmp_path / "labels.csv").write_text("image,y,x,class\nsquare-1,2,3,a\n")
    words = ("import", tmp_path / "labels.csv", "--out", tmp_path / "out.csv", "--dataset", "plain", "--json")
    imported = cli("--plugin", plugin, *words)
    assert imported.code == 0, imported.err
    assert json.loads(imported.out)["labels"] == 1 and "opened" in imported.err
