"""Decoded images in a shared, memory-mapped file."""

from __future__ import annotations

import mmap
import os
import time

import numpy as np
import pytest
import torch
from conftest import SMALL, write_camvid
from PIL import Image

from alseg import stamps
from alseg.engine import images as engine_images
from alseg.engine import pixelcache
from alseg.engine.acquire import Pool, ask_at_random
from alseg.engine.images import DecodedImages
from alseg.engine.pixelcache import PixelFile, cache_folder, is_worth_while
from alseg.errors import UserMistake
from alseg.imagefiles import read_image
from alseg.store import RunFolder
from alseg.values import Classes, PixelLabels
from alseg_datasets import files

CLASSES, NO_LABELS = Classes(("a", "b"), 255), PixelLabels(())


class Drawn:
    """Images of mixed sizes; a mask for all but the last; they cannot tell whether they changed."""

    def __init__(self, seed: int = 0, broken: int | None = None) -> None:
        random = np.random.default_rng(seed)
        sizes = [(6, 8), (5, 7), (9, 4)]
        self.images = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
        self.masks = [random.integers(0, 2, size).astype(np.uint8) for size in sizes[:2]] + [None]
        self.broken, self.reads = broken, 0

    def __len__(self) -> int:
        return 3

    def key(self, i: int) -> str:
        return f"image {i}"

    def image(self, i: int) -> np.ndarray:
        self.reads += 1
        if i == self.broken:
            raise UserMistake("This image is broken.")
        return self.images[i]

    def mask(self, i: int) -> np.ndarray | None:
        return self.masks[i]


class Stamped(Drawn):
    """As many, which tell by a stamp whether they changed."""

    def __init__(self, seed: int = 0, stamps: tuple[str | None, ...] = ("a", "b", "c")) -> None:
        super().__init__(seed)
        self.stamps = list(stamps)

    def stamp(self, i: int) -> str | None:
        return self.stamps[i]


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(pixelcache, "LEAST", 1)


def opened(drawn: Drawn, folder, memory: int = 0, classes: Classes = CLASSES, **more) -> DecodedImages:
    return DecodedImages(drawn, classes, memory, workers=0, cache=folder, **more)


def is_mapped(array: np.ndarray) -> bool:
    while array is not None:
        if (isinstance(array, memoryview) and isinstance(array.obj, mmap.mmap)) or isinstance(array, mmap.mmap):
            return True
        array = getattr(array, "base", None)
    return False


def test_images_come_back_as_they_were_and_are_not_decoded_again(tmp_path):
    drawn = Drawn()
    found = opened(drawn, tmp_path)
    assert drawn.reads == 3
    for i in range(3):
        assert is_mapped(found.image(i))
        np.testing.assert_array_equal(found.image(i), drawn.images[i])
        if drawn.masks[i] is None:
            assert found.mask(i) is None
        else:
            np.testing.assert_array_equal(found.mask(i), drawn.masks[i])
        torch.from_numpy(found.image(i)).sum()  # without torch's warning of read-only arrays
    assert drawn.reads == 3


@pytest.mark.parametrize("memory", [0, 200, 10**6])
def test_the_first_image_alone_does_not_decide_whether_there_is_a_file(tmp_path, monkeypatch, memory):
    drawn = Drawn()
    drawn.images[0], drawn.masks[0] = drawn.images[0][:1, :2].copy(), drawn.masks[0][:1, :2].copy()
    monkeypatch.setattr(pixelcache, "LEAST", 150)  # 8 bytes, then 140, then 108: by the first alone 24 in all
    found = opened(drawn, tmp_path, memory)
    for i in range(3):
        assert is_mapped(found.image(i))
        np.testing.assert_array_equal(found.image(i), drawn.images[i])
    assert drawn.reads == (4 if memory == 0 else 3), "what was not kept in memory is read again"


def test_what_is_not_kept_is_read_when_it_is_asked_for_and_no_more():
    class Counted(Drawn):
        def mask(self, i: int) -> np.ndarray | None:
            self.masks_read = getattr(self, "masks_read", 0) + 1
            return super().mask(i)

    drawn = Counted()
    found = opened(drawn, None)
    assert (drawn.reads, drawn.masks_read) == (3, 3)
    found.image(0)
    assert (drawn.reads, drawn.masks_read) == (4, 3)
    found.mask(1)
    assert (drawn.reads, drawn.masks_read) == (4, 4)
    pool = Pool(found, CLASSES, NO_LABELS, skip_void=True, seed=0, round=0, device=torch.device("cpu"), batch_size=2)
    assert len(ask_at_random(pool, 2)) == 3
    assert (drawn.reads, drawn.masks_read) == (4, 7), "the first round looks at no image"


def test_runs_of_one_content_share_a_file_and_others_do_not(tmp_path):
    first, second = opened(Drawn(), tmp_path), opened(Drawn(), tmp_path)
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(first.image(1), second.image(1))
    opened(Drawn(seed=1), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 and path.exists()


def test_what_is_written_to_an_image_stays_with_the_writer(tmp_path):
    first, second = opened(Drawn(), tmp_path), opened(Drawn(), tmp_path)
    first.image(0)[:] = 0
    np.testing.assert_array_equal(second.image(0), Drawn().images[0])


def test_a_truncated_file_is_written_afresh(tmp_path):
    opened(Drawn(), tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    np.testing.assert_array_equal(opened(Drawn(), tmp_path).image(2), Drawn().images[2])
    assert path.read_bytes() == whole


def test_a_bad_image_leaves_no_file(tmp_path):
    with pytest.raises(UserMistake, match="broken"):
        opened(Drawn(broken=2), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_falls_back_to_memory(tmp_path, monkeypatch):
    real = PixelFile.__init__

    def on_a_full_disk(self, folder):
        real(self, folder)
        self._file.close()
        self._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115

    monkeypatch.setattr(PixelFile, "__init__", on_a_full_disk)
    drawn = Drawn()
    found = opened(drawn, tmp_path, memory=10**6)
    np.testing.assert_array_equal(found.image(0), drawn.images[0])
    assert drawn.reads == 3 and not is_mapped(found.image(0)) and not list(tmp_path.iterdir())


def test_what_went_into_a_file_that_could_not_be_finished_comes_into_memory(tmp_path, monkeypatch):
    real, added = PixelFile.add, []

    def for_two_images(self, *of_image):
        added.append(of_image)
        return real(self, *of_image) if len(added) < 3 else self._drop() or False

    monkeypatch.setattr(PixelFile, "add", for_two_images)
    drawn = Drawn()
    found = opened(drawn, tmp_path, memory=10**6)
    assert len(added) == 3 and drawn.reads == 5 and not list(tmp_path.iterdir())
    for i in range(3):
        np.testing.assert_array_equal(found.image(i), drawn.images[i])
    assert drawn.reads == 5 and found.bytes == sum(4 * image[..., 0].size for image in drawn.images[:2]) + 9 * 4 * 3


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    drawn = Drawn()
    np.testing.assert_array_equal(opened(drawn, tmp_path / "file" / "cache", 10**6).image(0), drawn.images[0])


def test_old_files_are_swept(tmp_path):
    day, old, new, dead = 86400, "0" * 32, "1" * 32, f"17-{time.time_ns()}.tmp"
    ages = {f"{old}.pixels": 31, f"{new}.pixels": 1, dead: 2, f"{old}.index": 31, f"{new}.index": 1}
    others = {"thesis.tmp", "faiss.index", "photos.pixels", "mine.txt"}
    ages |= dict.fromkeys(others, 99)  # the setting may name a folder that holds more
    for images in (Stamped(), Stamped()):  # written, then mapped
        for name, age in ages.items():
            (tmp_path / name).write_bytes(b"x")
            os.utime(tmp_path / name, (time.time() - age * day,) * 2)
        opened(images, tmp_path)
        names = {path.name for path in tmp_path.iterdir()}
        assert {f"{new}.pixels", f"{new}.index", *others} < names
        assert not {f"{old}.pixels", f"{old}.index", dead} & names


def test_what_is_mapped_counts_as_used(tmp_path):
    opened(Stamped(), tmp_path)
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    opened(Stamped(), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 and all(path.stat().st_mtime > 1 for path in tmp_path.iterdir())


def test_few_pixels_and_full_disks_need_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(pixelcache, "LEAST", 1000)
    assert not is_worth_while(tmp_path, 999)
    assert is_worth_while(tmp_path / "not" / "there", 1000)
    assert not is_worth_while(tmp_path, 2**60)
    assert not is_worth_while(None, 10**6)


def test_the_setting_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "alseg" / "pixels"
    assert cache_folder("none") is None and cache_folder("None") is None
    with pytest.raises(UserMistake, match="The setting cache is empty: give a folder"):
        cache_folder("")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(pixelcache, "expanded", pixelcache.Path)  # as where a container's user has no home
    assert cache_folder() is None
    assert cache_folder("/elsewhere") == pixelcache.Path("/elsewhere")


def test_images_that_did_not_change_are_read_once_by_all_runs(tmp_path):
    first = opened(Stamped(), tmp_path)
    again, steps = Stamped(seed=1), []  # other pixels, so that reading them would show
    second = opened(again, tmp_path, advance=lambda: steps.append(1))
    assert again.reads == 0 and len(steps) == 3
    for name in ("keys", "sizes", "has_mask", "digests", "present"):
        assert getattr(second, name) == getattr(first, name), name
    for i in range(3):
        assert is_mapped(second.image(i))
        np.testing.assert_array_equal(second.image(i), Drawn().images[i])
    np.testing.assert_array_equal(second.mask(1), Drawn().masks[1])
    assert second.mask(2) is None


@pytest.mark.parametrize(
    ("stamps", "more"),
    [
        (("a", "b", "d"), {}),
        (("b", "a", "c"), {}),
        (("a", "b", None), {}),
        (("a", "b", "c"), {"classes": Classes(("a", "b"), 254)}),
        (("a", "b", "c"), {"classes": Classes(("a", "b", "c"), 255)}),
        (("a", "b", "c"), {"masks": False}),
    ],
    ids=["another", "swapped", "unknown", "void", "classes", "masks"],
)
def test_what_may_have_changed_is_read(tmp_path, stamps, more):
    opened(Stamped(), tmp_path)
    drawn = Stamped(seed=1, stamps=stamps)
    np.testing.assert_array_equal(opened(drawn, tmp_path, **more).image(0), drawn.images[0])
    assert drawn.reads == 3


@pytest.mark.parametrize("what", ["__version__", "codecs", "code_of"])
def test_what_another_alseg_or_decoder_read_is_read_anew(tmp_path, monkeypatch, what):
    opened(Stamped(), tmp_path)
    monkeypatch.setattr(engine_images, what, "another" if what == "__version__" else lambda *_: "another")
    drawn = Stamped()
    opened(drawn, tmp_path)
    assert drawn.reads == 3


def test_images_that_change_while_they_are_read_are_read_again(tmp_path):
    class Changing(Stamped):
        def image(self, i):
            self.stamps[0] = "changed"
            return super().image(i)

    opened(Changing(), tmp_path)
    assert not list(tmp_path.glob("*.index"))


FACTS = b'[[6, 8, "|u1", true, "a", "b"]]'


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        *(("index", text) for text in (b"[[1, 2", b"[[1]]", FACTS, FACTS.replace(b"u1", b"O"), b"[" * 10**5)),
        *(("pixels", text) for text in (b"12", None)),
    ],
    ids=range(7),
)
def test_a_broken_index_or_a_lost_file_is_no_error(tmp_path, suffix, content):
    opened(Stamped(), tmp_path)
    (path,) = tmp_path.glob(f"*.{suffix}")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    for reads in (3, 0):  # and then it is mended
        drawn = Stamped()
        np.testing.assert_array_equal(opened(drawn, tmp_path).image(2), drawn.images[2])
        assert drawn.reads == reads


def test_a_second_run_decodes_nothing_and_sees_what_changed(tmp_path, cli, monkeypatch):
    monkeypatch.setattr(stamps, "AGE", -60)
    data = write_camvid(tmp_path / "data")
    common = ("run", "--dataset", "camvid", "--data", data, "--rounds", 1, *SMALL, "-o", f"cache={tmp_path / 'pixels'}")
    assert cli(*common, "--out", tmp_path / "first").code == 0
    reads = []
    monkeypatch.setattr(files, "read_image", lambda path: reads.append(path) or read_image(path))
    assert cli(*common, "--out", tmp_path / "second").code == 0
    assert not reads
    one, other = RunFolder(tmp_path / "first"), RunFolder(tmp_path / "second")
    assert one.labels() == other.labels() and one.images() == other.images()
    assert one.rounds()[0]["iou"] == other.rounds()[0]["iou"]
    changed = sorted((data / "train").iterdir())[0]
    Image.open(changed).rotate(180).save(changed)
    refused = cli("resume", tmp_path / "second", "--rounds", 2)
    assert refused.code == 2 and f"The image {changed.stem} of split 'train' is not what it was" in refused.err
    assert changed in reads


def test_a_run_with_the_cache_equals_one_without(tmp_path, cli, monkeypatch):
    data = write_camvid(tmp_path / "data")
    common = ("run", "--dataset", "camvid", "--data", data, "--rounds", 2, *SMALL)
    assert cli(*common, "-o", f"cache={tmp_path / 'pixels'}", "--out", tmp_path / "with").code == 0
    assert cli(*common, "-o", "cache=none", "--out", tmp_path / "without").code == 0
    assert len(list((tmp_path / "pixels").glob("*.pixels"))) == 2  # train and val
    one, other = RunFolder(tmp_path / "with"), RunFolder(tmp_path / "without")
    assert one.labels() == other.labels()
    assert [record["miou"] for record in one.rounds()] == [record["miou"] for record in other.rounds()]
