"""Labels from label images and scribbles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import CLASSES, save

from alseg.errors import UserMistake
from alseg.interchange.formats import Source, read_source
from alseg.interchange.thinning import thinned


def places(path: Path, **more: Any) -> list[tuple]:
    found = read_source(Source(path, classes=CLASSES, **more))
    return [(p.image, p.y, p.x, p.name) for p in found.labels]


def test_label_images_become_points(tmp_path):
    save(tmp_path / "a.png", [[255, 0], [2, 255]])
    save(tmp_path / "more/b.png", [[[128, 64, 128], [0, 0, 0]], [[255, 255, 255], [0, 0, 142]]])
    save(tmp_path / "c.png", [[[70, 130, 180, 255], [70, 130, 180, 100]], [[9, 9, 9, 0], [0, 0, 142, 255]]])
    assert places(tmp_path) == [
        *[("a", 0, 1, "road"), ("a", 1, 0, "car")],
        *[("c", 0, 0, "sky"), ("c", 1, 1, "car")],
        *[("more/b", 0, 0, "road"), ("more/b", 1, 1, "car")],
    ]
    assert places(tmp_path / "a.png") == [("a", 0, 1, "road"), ("a", 1, 0, "car")]


def test_classes_beside_label_images_say_what_values_mean(tmp_path):
    save(tmp_path / "a.png", [[10, 20, 0]])
    (tmp_path / "classes.toml").write_text(
        'names = ["x", "y"]\nvalues = [10, 20]\nvoid = 0\ncolours = ["red", "#00ff00"]\n'
    )
    assert places(tmp_path) == [("a", 0, 0, "x"), ("a", 0, 1, "y")]


WRONG = {
    "a value": (lambda p: save(p / "a.png", [[0, 9]]), "holds 9 at (y 0, x 1)"),
    "a colour": (lambda p: save(p / "a.png", [[[1, 2, 3]]]), "holds #010203 at"),
    "a JPEG": (lambda p: save(p / "a.jpg", [[0, 9]]), "must not be a JPEG"),
    "classes of one colour": (
        lambda p: (save(p / "a.png", [[0]]), (p / "classes.toml").write_text('names=["a","b"]\ncolours=["red","red"]')),
        "the same of its colours",
    ),
    "a class's value as void": (
        lambda p: (save(p / "a.png", [[0, 1]]), (p / "classes.toml").write_text('names=["a","b"]\nvoid=0')),
        "void = 0: with 2 classes it goes from 2",
    ),
    "a class's colour as void": (
        lambda p: (
            save(p / "a.png", [[0, 1]]),
            (p / "classes.toml").write_text('names=["a","b"]\ncolours=["red","blue"]\nvoid="blue"'),
        ),
        "a class and void, the same of its colours",
    ),
    "a misspelt key": (
        lambda p: (save(p / "a.png", [[0, 1]]), (p / "classes.toml").write_text('names=["a","b"]\nviod=9')),
        "'viod', which is no key of it; did you mean void",
    ),
    "no TOML": (lambda p: (save(p / "a.png", [[0]]), (p / "classes.toml").write_text("names")), "are not TOML"),
    "nothing labelled": (lambda p: save(p / "a.png", [[255]]), "holds no label"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_label_image_is_named(tmp_path, case):
    make, expected = WRONG[case]
    make(tmp_path)
    with pytest.raises(UserMistake) as caught:
        places(tmp_path)
    assert expected in str(caught.value)


def test_label_images_without_classes_are_refused(tmp_path):
    save(tmp_path / "a.png", [[0]])
    with pytest.raises(UserMistake, match="give --classes"):
        read_source(Source(tmp_path))


def test_a_stroke_becomes_points_along_its_middle():
    values = np.full((40, 60), -1)
    values[10:15, 5:55] = 1  # five pixels wide
    points = thinned(values, 8)
    assert set(points[:, 0].tolist()) == {12}
    assert (np.diff(np.sort(points[:, 1])) >= 8).all()
    assert 5 <= len(points) <= 7


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), distance=st.integers(1, 9), share=st.floats(0, 1))
def test_thinned_points_are_apart_and_near_enough(seed, distance, share):
    from scipy import ndimage

    random = np.random.default_rng(seed)
    values = np.where(random.random((23, 31)) < share, random.integers(0, 3, (23, 31)), -1)
    points = thinned(values, distance)
    assert (values[points[:, 0], points[:, 1]] >= 0).all()
    assert (points == thinned(values, distance)).all()
    for value in range(3):
        regions, count = ndimage.label(values == value, np.ones((3, 3)))
        for region in range(1, count + 1):
            own = np.array([p for p in points if regions[tuple(p)] == region])
            assert len(own)
            apart = np.hypot(*(own[:, None] - own[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(own))
            assert apart.min() >= distance
            away = np.hypot(*(np.argwhere(regions == region)[:, None] - own[None]).transpose(2, 0, 1)).min(1)
            assert away.max() < distance
    if distance == 1:
        assert len(points) == (values >= 0).sum()
