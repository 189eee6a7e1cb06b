"""Stamps of files and code, by which a run knows that it need not decode again."""

from __future__ import annotations

import importlib
import os
import sys
import time

import numpy as np
import pytest

from alseg import stamps
from alseg.imagefiles import read_mask
from alseg.opened import NamedDataset
from alseg.stamps import besides, code_of, file_stamp
from alseg.values import Classes
from alseg_datasets.files import FileImages, ImageFile
from alseg_datasets.folder import Folder
from alseg_datasets.folder_classes import MaskReader


@pytest.fixture
def at_once(monkeypatch):
    """A file that was changed a moment ago has a stamp, too."""
    monkeypatch.setattr(stamps, "AGE", -60)


class Images:
    def __len__(self):
        return 1

    def key(self, i):
        return "a"

    def image(self, i):
        return np.zeros((4, 4, 3), np.uint8)

    def mask(self, i):
        return None

    def stamp(self, i):
        return "its own"


class Dataset:
    classes, splits, recipe = Classes(("a", "b"), 255), ("train",), "shapes"

    def __init__(self, kind=Images):
        self._kind = kind

    def images(self, split):
        return self._kind()


def test_a_file_that_just_changed_has_none(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    assert file_stamp(path) is None, "it may change again at the same time of the clock"


def test_every_change_of_a_file_is_told(tmp_path, at_once):
    path, missing = tmp_path / "a.png", tmp_path / "b.png"
    path.write_bytes(b"one")
    first, both = file_stamp(path), file_stamp(path, missing)
    assert first == file_stamp(path) and both == file_stamp(path, missing) and first != both
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    time.sleep(0.02)  # a tick of the file system's clock
    path.write_bytes(b"two")
    os.utime(path, ns=times)
    assert file_stamp(path) != first
    missing.write_bytes(b"")
    assert file_stamp(path, missing) != both
    os.utime(path, (10**11, 10**11))  # a camera whose clock is wrong
    assert file_stamp(path) is not None


def test_images_in_files_tell_what_is_read_and_how(tmp_path, at_once):
    image, mask = tmp_path / "a.png", tmp_path / "m.png"
    image.write_bytes(b"1")

    def stamp(reading="as stored"):
        return FileImages([ImageFile("a", image, mask)], read_mask, reading).stamp(0)

    found = [stamp(), stamp("otherwise")]
    mask.write_bytes(b"1")
    found.append(stamp())
    time.sleep(0.02)
    image.write_bytes(b"2")
    found.append(stamp())
    mask.unlink()
    found.append(stamp())
    assert None not in found and len(set(found)) == 5
    assert stamp(None) is None, "somebody else's reader may read in any way"


def test_a_folder_tells_how_colours_are_meant(tmp_path, at_once):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"1")
    found = set()
    for values in ("[1, 2]", "[2, 1]"):
        (tmp_path / "classes.toml").write_text(f'names = ["a", "b"]\nvalues = {values}\n')
        found.add(Folder(tmp_path, val_fraction=0).images("train").stamp(0))
    assert len(found) == 2 and repr(MaskReader({0: 0, 1: 1})) != repr(MaskReader({0: 1, 1: 0}))


def test_other_options_and_other_code_are_told(monkeypatch):
    def stamp(**options):
        return NamedDataset(Dataset(), "mine", options=options).images("train").stamp(0)

    assert stamp(size=1) == stamp(size=1) != stamp(size=2)
    before = stamp()
    monkeypatch.setattr(stamps, "code_of", lambda *kinds: "other code")
    assert stamp() != before


def test_code_is_told_by_the_files_that_were_loaded(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path, beside, found = tmp_path / "images_of_mine.py", tmp_path / "helps_mine.py", []
    beside.write_text("")
    for mine, help in (("class Mine: pass", "1"), ("class Mine: pass  # otherwise", "1"), ("class Mine: pass", "12")):
        path.write_text(mine)
        beside.write_text(help)
        for file in (path, beside):
            os.utime(file, (1, 1))
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
        importlib.invalidate_caches()
        found.append(code_of(importlib.import_module(path.stem).Mine))
    assert None not in found and len(set(found)) == 3
    inherits = type("Inherits", (sys.modules[path.stem].Mine,), {"__module__": __name__})
    assert code_of(inherits) != code_of(type("Alone", (), {"__module__": __name__}))
    path.write_text("class Mine: pass  # changed since")
    assert code_of(sys.modules[path.stem].Mine) is None
    assert code_of(type("Typed", (), {"__module__": "typed_in"})) is None


def test_a_stamp_speaks_for_what_was_written_with_it():
    class Inherits(Images):
        pass

    class Otherwise(Images):
        def mask(self, i):
            return None

    class Again(Otherwise):
        def stamp(self, i):
            return "its own again"

    class Lent:
        def __getattr__(self, name):
            return getattr(Images(), name)

    kinds = (Images, Inherits, Otherwise, Again, Lent)
    assert [besides(kind(), Dataset(), {}) is not None for kind in kinds] == [True, True, False, True, False]
    assert not hasattr(NamedDataset(Dataset(Otherwise), "mine").images("train"), "stamp")
