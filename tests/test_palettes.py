"""Masks and label images with a palette: read by its colours where it numbers them as it likes, else by index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import write_image
from PIL import Image

from alseg.colours import distinct, palette
from alseg.errors import UserMistake
from alseg.interchange.formats import Source, read_source
from alseg.interchange.labelset import LabelSet
from alseg.interchange.masks import write_masks
from alseg.predicting import mask_file
from alseg.values import Classes, PixelLabel
from alseg_datasets.folder import Folder

NAMES, COLOURS = ("background", "road", "sky", "car"), ((0, 0, 0), (128, 64, 128), (70, 130, 180), (0, 0, 142))
VOID = (224, 224, 192)


def data(root: Path, mask: np.ndarray, colours, void=None, names=NAMES, more=None) -> Path:
    """A folder of one image and its palette mask; `colours` is the palette."""
    (root / "masks").mkdir(parents=True, exist_ok=True)
    write_image(root / "images" / "a.png", mask.shape)
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([channel for colour in colours for channel in colour])
    picture.save(root / "masks" / "a.png", **(more or {}))
    table = {"names": list(names), "colours": [list(c) for c in COLOURS[: len(names)]]}
    (root / "masks" / "classes.toml").write_text(tomli_w.dumps(table | ({} if void is None else {"void": void})))
    return root


def seen(root: Path) -> np.ndarray:
    mask = Folder(root, classes_file=root / "masks" / "classes.toml", val_fraction=0).images("train").mask(0)
    assert mask is not None
    return mask


def imported(root: Path, size: tuple[int, int]) -> np.ndarray:
    """What import takes a folder of masks for, -1 where unlabelled."""
    found = np.full(size, -1)
    for label in read_source(Source(root / "masks")).labels:
        found[label.y, label.x] = NAMES.index(str(label.name))
    return found


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(6)), seed=st.integers(0, 2**32 - 1), count=st.integers(1, 5))
def test_colours_mean_the_same_at_whatever_index(tmp_path_factory, order, seed, count):
    """The same picture as GIMP might number its colours, and as a picture of colours."""
    random = np.random.default_rng(seed)
    occurring = random.permutation(5)[:count]
    truth = occurring[random.integers(0, count, (5, 7))]  # 4 is void
    colours = [(9, 9, 9)] * 6  # one is not used
    for value, colour in enumerate((*COLOURS, VOID)):
        colours[order[value]] = colour
    root = data(tmp_path_factory.mktemp("any"), np.array(order)[truth], colours, list(VOID))
    assert (seen(root) == np.where(truth == 4, 255, truth)).all()
    if (truth != 4).any():
        assert (imported(root, truth.shape) == np.where(truth == 4, -1, truth)).all()


@pytest.mark.parametrize("fill", [(0, 0, 0), VOID, (128, 64, 128), (255, 255, 255)])
@pytest.mark.parametrize("present", [(0, 1, 2, 3, 255), (1, 255), (3, 255), (255, 0)])
def test_a_palette_in_the_classes_order_means_its_indices_whatever_fills_it_up(tmp_path, fill, present):
    mask = np.resize(np.array(present), (3, 5))
    root = data(tmp_path, mask, [*COLOURS, *[fill] * 252], 255)
    assert (seen(root) == mask).all()
    assert (imported(root, mask.shape) == np.where(mask == 255, -1, mask)).all()


def test_a_palette_of_other_colours_means_its_indices(tmp_path):
    mask = np.array([[0, 1, 2, 3, 255]])
    for number, colours in enumerate(([(i, 7, 7) for i in range(256)], [*palette(256)])):
        root = data(tmp_path / str(number), mask, [(1, 1, 1), *colours[1:]])
        assert seen(root).tolist() == mask.tolist()
        assert imported(root, mask.shape).tolist() == [[0, 1, 2, 3, -1]]


def test_without_colours_indices_are_meant(tmp_path):
    root = data(tmp_path, np.array([[1, 0, 2]]), [COLOURS[2], COLOURS[1], COLOURS[3]])
    (root / "masks" / "classes.toml").write_text(tomli_w.dumps({"names": list(NAMES)}))
    assert seen(root).tolist() == [[1, 0, 2]]
    assert imported(root, (1, 3)).tolist() == [[1, 0, 2]]


def test_colours_that_contradict_beside_unknown_ones_are_refused(tmp_path):
    root = data(tmp_path, np.array([[0, 1]]), [COLOURS[2], (9, 8, 7)])
    for read in (lambda: seen(root), lambda: imported(root, (1, 2))):
        with pytest.raises(UserMistake, match=r"masks/a\.png has #090807 at index 1, .* #4682b4 at index 0") as caught:
            read()
        assert str(caught.value).count("\n") == 0


def test_a_transparent_index_is_unlabelled_and_no_mask(tmp_path):
    root = data(tmp_path, np.array([[0, 1, 2]]), [COLOURS[2], (9, 8, 7), COLOURS[1]], more={"transparency": 1})
    assert imported(root, (1, 3)).tolist() == [[2, -1, 1]]
    with pytest.raises(UserMistake, match="no colour at index 1"):
        seen(root)


def test_values_of_ones_own_agree_or_give_way_to_colours(tmp_path):
    table = {"names": ["road", "sky"], "colours": ["red", "blue"], "values": [7, 9], "void": 0}
    for mask, colours, expected in (
        ([[7, 9, 0]], {7: (255, 0, 0), 9: (0, 0, 255)}, [[0, 1, 255]]),
        ([[7, 9]], {7: (0, 0, 255), 9: (255, 0, 0)}, [[1, 0]]),
        ([[0, 1]], {0: (0, 0, 255), 1: (255, 0, 0)}, [[1, 0]]),
    ):
        root = data(tmp_path, np.array(mask), [colours.get(i, (3, 3, 3)) for i in range(10)])
        (root / "masks" / "classes.toml").write_text(tomli_w.dumps(table))
        assert seen(root).tolist() == expected


def test_scribbles_on_black_are_no_black_class(tmp_path):
    """Black says nothing alone, and is unlabelled beside a class's colour, as in a picture of colours."""
    classes = Classes(("road", "sky"), 255, ((128, 64, 128), (70, 130, 180)))
    for colours, expected in (([(0, 0, 0), (70, 130, 180)], "sky"), ([(0, 0, 0), (255, 255, 255)], "sky road")):
        root = data(tmp_path, np.array([[0, 1]]), colours)
        (root / "masks" / "classes.toml").unlink()
        found = read_source(Source(root / "masks" / "a.png", classes=classes)).labels
        assert {label.name for label in found} == set(expected.split())


def test_many_made_up_colours_do_not_turn_vocs_palette(tmp_path):
    names = tuple(map(str, range(40)))
    assert set(distinct(40)) & set(palette(40)), "or there is nothing to mistake"
    root = data(tmp_path, np.array([[0, 1, 2, 39]]), palette(256))
    (root / "masks" / "classes.toml").unlink()
    classes = Classes(names, 255, distinct(40))
    found = read_source(Source(root / "masks" / "a.png", classes=classes)).labels
    assert [label.name for label in found] == ["0", "1", "2", "39"]


@pytest.mark.parametrize(
    "classes", [Classes(NAMES, 255, COLOURS), Classes(NAMES, 4), Classes(NAMES[::-1], 255, COLOURS)]
)
def test_what_alseg_writes_comes_back(tmp_path, classes):
    truth = np.array([[0, 1, 2], [3, -1, 3]])
    labels = tuple(
        PixelLabel(f"{y}{x}", "a", y, x, classes.names[truth[y, x]], 0, "human", "", None)
        for y, x in np.argwhere(truth >= 0).tolist()
    )
    for name, content in write_masks(LabelSet(labels, {"a": truth.shape}, classes)).items():
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / "masks" / name).write_bytes(content)
    write_image(tmp_path / "images" / "a.png", truth.shape)
    assert (seen(tmp_path) == np.where(truth < 0, classes.void, truth)).all()
    found = read_source(Source(tmp_path / "masks")).labels
    assert [(p.y, p.x, p.name) for p in found] == [(p.y, p.x, p.name) for p in labels]
    (tmp_path / "masks" / "a.png").write_bytes(mask_file(truth.clip(0), classes))
    assert (seen(tmp_path) == truth.clip(0)).all()


def test_check_and_import_read_a_swapped_palette_and_say_what_void_is(cli, tmp_path):
    root = data(tmp_path / "data", np.array([[0, 0, 1], [2, 2, 2]]), [COLOURS[3], COLOURS[1], VOID], list(VOID))
    words = ("--data", root, "-o", f"dataset.classes_file={root}/masks/classes.toml", "-o", "dataset.val_fraction=0")
    outcome = cli("datasets", "check", "folder", *words, "--json", "--out", tmp_path / "a.png")
    assert outcome.code == 0, outcome.err
    split = json.loads(outcome.out)["splits"][0]
    assert (split["pixels"], split["void"]) == ({"background": 0, "road": 1, "sky": 0, "car": 2}, 3)
    outcome = cli("import", root / "masks", "--out", tmp_path / "labels.csv")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "labels.csv").read_text().count(",car,") == 2
    Image.fromarray(np.full((2, 3), 77, np.uint8)).save(root / "masks" / "a.png")
    outcome = cli("datasets", "check", "folder", *words, "--out", tmp_path / "b.png")
    assert outcome.code == 2
    assert "from 0 to 3 and void is 255, by colour void is (224, 224, 192)" in outcome.err
