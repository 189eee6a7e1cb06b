"""Labels from PixelPick's query files, whose pickles are never run."""

from __future__ import annotations

import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import CLASSES, Pictures, known

from alseg.errors import UserMistake
from alseg.interchange.formats import Source, read_source
from alseg.interchange.known import Known
from alseg.interchange.pickles import read_pickle
from alseg.values import Classes


def query_files() -> dict[str, Any]:
    """What its code writes, and what its older code wrote."""
    y, x = np.array([0, 3, 7]), np.array([8, 1, 0])
    mask = np.zeros((8, 9), bool)
    mask[y, x] = True
    size = {"height": 8, "width": 9}
    return {
        "coordinates": {"/data/camvid/train/b.png": {**size, "x_coords": x, "y_coords": y}},
        "coordinates without a size": {"/data/camvid/train/b.png": {"x_coords": x.tolist(), "y_coords": y}},
        "numpy's own numbers": {"/data/b.png": {"x_coords": list(x), "y_coords": tuple(y)}},
        "masks by name": {"/data/camvid/train/b.png": mask},
        "Fortran order": {"/data/camvid/train/b.png": np.asfortranarray(mask)},
        "a stack": np.stack([np.zeros_like(mask), mask]),
        "a list": [np.zeros((8, 9), bool), mask],
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("case", query_files())
def test_query_files_take_their_classes_from_the_masks(tmp_path, case, protocol):
    path = tmp_path / "queries.pkl"
    path.write_bytes(pickle.dumps(query_files()[case], protocol))
    found = read_source(Source(path, known("b", "a")))
    expected = {(0, 8): "car", (3, 1): "sky", (7, 0): "sky"}
    assert {(p.y, p.x): p.name for p in found.labels} == expected
    assert {p.image for p in found.labels} == {"b"}


def test_a_void_below_all_classes_is_no_class(tmp_path):
    class Unknown(Pictures):
        def mask(self, i):
            return np.full(self.size, -1)

    path = tmp_path / "queries.pkl"
    path.write_bytes(pickle.dumps(query_files()["coordinates"]))
    for void, names in ((-1, [None] * 3), (255, None)):
        source = Source(path, Known(Classes(CLASSES.names, void), {"train": Unknown(("b",))}))
        if names is None:
            with pytest.raises(UserMistake, match="the class -1; there are 3"):
                read_source(source)
        else:
            assert [p.name for p in read_source(source).labels] == names


def test_older_query_files_are_arrays(tmp_path):
    np.save(tmp_path / "queries.npy", query_files()["a stack"])
    assert len(read_source(Source(tmp_path / "queries.npy", known("a", "b"))).labels) == 3
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserMistake, match="without pickle"):
        read_source(Source(tmp_path / "objects.npy", known("a", "b")))


def test_answers_of_a_person_have_their_classes(tmp_path):
    entry = {"height": 8, "width": 9, "x_coords": [1, 2], "y_coords": [3, 4], "category": ["road", "car"]}
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps({"b.png": entry | {"category_id": [0, 2]}}))
    for source in (Source(path), Source(path, classes=CLASSES), Source(path, known("b", masks=False))):
        assert [p.name for p in read_source(source).labels] == ["road", "car"]
    path.write_bytes(pickle.dumps({"b.png": entry | {"category_id": [0, 3]}}))
    with pytest.raises(UserMistake, match="the class 3; there are 3"):
        read_source(Source(path, classes=CLASSES))


def test_pixels_of_another_grid_move_to_where_their_centres_lie(tmp_path):
    mask = np.zeros((4, 6), bool)
    mask[0, 0] = mask[3, 5] = mask[1, 2] = True
    path = tmp_path / "queries.pkl"
    path.write_bytes(pickle.dumps({"a.png": mask}))
    found = read_source(Source(path, known("a", size=(8, 18))))
    assert [(p.y, p.x) for p in found.labels] == [(1, 1), (3, 7), (7, 16)]


WRONG_QUERIES: dict[str, tuple[Any, str]] = {
    "no images": (3, "no query file"),
    "too few masks": ([np.zeros((8, 9), bool)], "holds 1 masks; the dataset has 2"),
    "no coordinates": ({"a": {"x_coords": [1]}}, "no list y_coords"),
    "uneven": ({"a": {"x_coords": [1], "y_coords": []}}, "0 y_coords and 1 x_coords"),
    "outside its own size": ({"a": {"x_coords": [9], "y_coords": [0], "height": 8, "width": 9}}, "outside its own 8x9"),
    "outside": ({"a": {"x_coords": [9], "y_coords": [0]}}, "outside the image of 8x9"),
    "below 0": ({"a": {"x_coords": [-1], "y_coords": [0]}}, "not a whole number from 0"),
    "probabilities": ({"a": np.zeros((8, 9))}, "no mask"),
    "a number for an image": ({"a": 1}, "neither coordinates nor a mask"),
}


@pytest.mark.parametrize("case", WRONG_QUERIES)
def test_wrong_query_files_are_refused(tmp_path, case):
    content, expected = WRONG_QUERIES[case]
    (tmp_path / "queries.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserMistake) as caught:
        read_source(Source(tmp_path / "queries.pkl", known("a", "b")))
    assert expected in str(caught.value)


class Attack:
    """What a pickle runs when it is loaded as Python loads it."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def attacks(trace: str) -> dict[str, Any]:
    command = f"touch {trace}"
    return {
        "os.system": Attack(os.system, command),
        "eval": Attack(eval, f"open({trace!r}, 'w')"),
        "exec": Attack(exec, f"open({trace!r}, 'w')"),
        "a file": Attack(open, trace, "w"),
        "getattr": Attack(getattr, "", "join"),
        "in a list": {"a": {"x_coords": [Attack(os.system, command)], "y_coords": [0]}},
        "as a name": {Attack(os.system, command): 1},
        "in an array of objects": np.array([Attack(os.system, command)], object),
        "a class": Path("a"),
        "a set": {1, 2},
        "bytes": {"a": b"1"},
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("case", attacks(""))
def test_nothing_in_a_pickle_is_run(tmp_path, case, protocol):
    trace, path = tmp_path / "trace", tmp_path / "queries.pkl"
    path.write_bytes(pickle.dumps(attacks(str(trace))[case], protocol))
    with pytest.raises(UserMistake) as caught:
        read_pickle(path)
    assert not trace.exists()
    assert str(caught.value).endswith(".")


HANDMADE = {
    "a stand-in is changed": b"cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.",
    "a stand-in is changed by slots": b"cnumpy\ndtype\nN}X\x05\x00\x00\x00_makeK\x01s\x86b.",
    "a name within a name": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
    "a persistent identifier": b"Pmodel\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "a type of objects": b"cnumpy\ndtype\n(S'O8'\nI00\nI01\ntR.",
    "an array larger than its content": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I1000000000\ntcnumpy\ndtype\n(S'b1'\ntRI00\nB\x01\x00\x00\x00xtb."
    ),
    "an endless memo": b"\x80\x04r\xff\xff\xff\xff.",
    "a frame beyond the end": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "nothing": b"",
    "nested without end": b"(" * 10**5 + b"l" * 10**5 + b".",
}


@pytest.mark.parametrize("case", HANDMADE)
def test_pickles_made_by_hand_are_refused(tmp_path, case):
    path = tmp_path / "queries.pkl"
    path.write_bytes(HANDMADE[case])
    with pytest.raises(UserMistake):
        read_pickle(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), case=st.sampled_from(list(query_files())), protocol=st.integers(0, 5))
def test_a_broken_pickle_gives_a_sentence_or_values(tmp_path_factory, data, case, protocol):
    content = bytearray(pickle.dumps(query_files()[case], protocol))
    opcodes = [ord(opcode.code) for opcode in pickletools.opcodes]
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.one_of(st.integers(0, 255), st.sampled_from(opcodes))
        )
    path = tmp_path_factory.getbasetemp() / "broken.pkl"
    path.write_bytes(content)
    try:
        read_source(Source(path, known("a", "b")))
    except UserMistake as error:
        said = str(error)
    else:
        said = "labels"
    assert "\n" not in said
