"""Training batches: augmented images, points and classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from bands import COLOURS, PLAIN, Bands, source_of
from torch import Tensor

from alseg.engine.batches import PADDING, Batch, BatchSource, batch_plan
from alseg.settings import Augmentation
from alseg.values import PixelLabels


def tensors(batches: Iterator[Batch]) -> list[tuple[Tensor, Tensor, Tensor]]:
    return [(batch.images, batch.points, batch.classes) for batch in batches]


def same(one: list[tuple[Tensor, ...]], other: list[tuple[Tensor, ...]]) -> bool:
    pairs = [(a, b) for row, match in zip(one, other, strict=True) for a, b in zip(row, match, strict=True)]
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("labels", ["exact", "nearest"])
@pytest.mark.parametrize("crop", [(64, 64), (40, 50), (96, 80)])
def test_labels_lie_on_the_colour_of_their_class(labels: str, crop: tuple[int, int]):
    images = Bands(5)
    # no smaller than 0.8, for the bands' edges are blurred over more pixels then
    source = source_of(images, images.labels(12), replace(PLAIN, labels=labels, scale=(0.8, 2.0)), size=crop)
    seen = 0
    for epoch in range(3):
        for batch in source.epoch(epoch):
            known = batch.classes != PADDING
            assert batch.points[known].min() >= 0
            assert batch.points[known].max() <= 1
            rows, places = known.nonzero(as_tuple=True)
            cells = (batch.points[rows, places] * torch.tensor(crop)).long().clamp(max=torch.tensor(crop) - 1)
            colours = batch.images[rows, :, cells[:, 0], cells[:, 1]] * 255
            expected = torch.from_numpy(COLOURS)[batch.classes[rows, places]].float()
            torch.testing.assert_close(colours, expected, atol=1e-2, rtol=0)
            seen += len(rows)
    assert seen > 50


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(0, 4, []), (1, 4, [2]), (2, 4, [2]), (5, 4, [4]), (6, 4, [4, 2]), (8, 4, [4, 4]), (9, 4, [4, 4]), (3, 2, [2])],
)
def test_a_remainder_of_one_is_dropped(count: int, batch_size: int, sizes: list[int]):
    assert [len(places) for places in batch_plan(count, batch_size)] == sizes
    images = Bands(count)
    source = source_of(images, images.labels(2), size=(16, 16), batch_size=batch_size)
    assert (source.steps, source.images_per_epoch) == (len(sizes), sum(sizes))
    assert [len(batch.images) for batch in source.epoch(0)] == sizes


def test_each_image_has_its_turn_though_a_remainder_is_dropped():
    places = [place for batch in batch_plan(9, 4) for place in batch]
    assert places == list(range(8))
    images = Bands(9)
    labels = PixelLabels(tuple(images.label(i, 10 + 2 * i, 30, "middle") for i in range(9)))
    still = replace(PLAIN, scale=(1.0, 1.0), flip=0.0)
    source = source_of(images, labels, still, size=(48, 60))
    shown = [
        {round(float(y) * 48 - 10.5) // 2 for batch in source.epoch(epoch) for y in batch.points[:, 0, 0]}
        for epoch in range(12)
    ]
    assert all(len(epoch) == 8 for epoch in shown)
    assert set.union(*shown) == set(range(9))
    orders = {tuple(tuple(b.points[:, 0, 0].tolist()) for b in source.epoch(epoch)) for epoch in range(12)}
    assert len(orders) == 12


def test_images_without_a_trainable_label_are_left_out():
    images = Bands(5)
    unsure = [images.label(i, 9, 9, None) for i in (0, 1)]
    source = source_of(images, images.labels(2, range(1, 4)).plus(unsure))
    assert source.taught == [1, 2, 3]
    for batch in source.epoch(0):
        assert ((batch.classes != PADDING).sum(1) <= 2).all()


def test_workers_change_nothing():
    images = Bands(7)
    sources = [source_of(images, images.labels(4), Augmentation(), workers=workers) for workers in (0, 3)]
    for epoch in range(2):
        assert same(*(tensors(source.epoch(epoch)) for source in sources))


@pytest.mark.parametrize("count", [1, 11, 12])
def test_batches_that_are_made_together_are_those_that_are_made_apart(count: int, monkeypatch: pytest.MonkeyPatch):
    """A GPU has several made at once; their points are padded to the most of all."""
    images = Bands(count)
    labels = images.labels(5)
    apart = [list(source_of(images, labels).epoch(epoch)) for epoch in range(2)]
    monkeypatch.setattr(BatchSource, "_at_once", lambda source, size: 3)
    together = source_of(images, labels)
    for epoch, batches in enumerate(apart):
        made = list(together.epoch(epoch))
        assert [len(batch.images) for batch in made] == [len(batch.images) for batch in batches]
        for batch, whole in zip(batches, made, strict=True):
            torch.testing.assert_close(batch.images, whole.images, atol=1e-5, rtol=0)
            most = batch.points.shape[1]
            assert torch.equal(batch.points, whole.points[:, :most])
            assert torch.equal(batch.classes, whole.classes[:, :most])
            assert (whole.classes[:, most:] == PADDING).all()


def test_on_a_gpu_so_many_batches_are_made_together_as_there_is_room_for():
    source = source_of(Bands(8), Bands(8).labels(2), size=(64, 64), batch_size=4)
    assert source._at_once(4) == 1, "on a CPU none is"
    source._stream = object()
    assert source._at_once(4) == 1, "nothing is known of the images yet"
    source._largest = 4 * 3 * 360 * 480
    assert source._at_once(4) == 8
    source._largest = 4 * 3 * 1024 * 2048
    assert source._at_once(4) == 1


def test_how_an_image_looks_does_not_depend_on_its_batch():
    images = Bands(6)
    by_size = []
    for batch_size in (2, 3):
        batches = tensors(source_of(images, images.labels(3), Augmentation(), batch_size=batch_size).epoch(4))
        by_size.append(torch.cat([batch[0] for batch in batches]))
    assert torch.equal(*by_size)


@pytest.mark.parametrize("change", [{"seed": 1}, {"round": 1}])
def test_another_seed_or_round_looks_different(change: dict[str, int]):
    images = Bands(4)
    labels = images.labels(3)
    base = tensors(source_of(images, labels).epoch(0))
    assert same(base, tensors(source_of(images, labels).epoch(0)))
    assert not same(base, tensors(source_of(images, labels, **change).epoch(0)))
    assert not same(base, tensors(source_of(images, labels).epoch(1)))


def test_images_that_stay_on_the_device_change_nothing():
    images, reads = Bands(4), []
    read = images.image
    images.image = lambda i: reads.append(i) or read(i)
    none, two, all_of_them = (
        source_of(images, images.labels(3), Augmentation(), room=room) for room in (0, 2 * 48 * 60 * 3, 2**30)
    )
    for source, later in ((none, 4), (two, 2), (all_of_them, 0)):
        first = tensors(source.epoch(0))
        reads.clear()
        second = tensors(source.epoch(1))
        assert len(reads) == later
        assert same(first, tensors(none.epoch(0))) and same(second, tensors(none.epoch(1)))
        assert same(tensors(source.epoch(0)), first), "what stays is not written to"


STILL = replace(PLAIN, scale=(1.0, 1.0), flip=0.0)


@pytest.mark.parametrize(("scale", "later"), [(1.0, 0), (0.8, 0), (1.2, 4)])
def test_crops_that_no_epoch_changes_are_made_once(scale: float, later: int):
    """Where an image is larger than the crop, the crop's place is drawn anew."""
    images, reads = Bands(4), []
    read = images.image
    images.image = lambda i: reads.append(i) or read(i)
    change = replace(STILL, scale=(scale, scale))
    kept = source_of(images, images.labels(3), change)
    tensors(kept.epoch(0))
    reads.clear()
    for epoch in (1, 2, 1):
        fresh = tensors(source_of(Bands(4), images.labels(3), change).epoch(epoch))
        assert same(tensors(kept.epoch(epoch)), fresh)
    assert len(reads) == 3 * later


@pytest.mark.parametrize("change", [{"flip": 0.5}, {"blur": 0.5}, {"grayscale": 0.1}, {"scale": (0.9, 1.0)}])
def test_crops_are_made_anew_where_anything_is_left_to_chance(change: dict[str, float]):
    images, reads = Bands(4), []
    read = images.image
    images.image = lambda i: reads.append(i) or read(i)
    source = source_of(images, images.labels(3), replace(STILL, **change))
    tensors(source.epoch(0))
    reads.clear()
    tensors(source.epoch(1))
    assert len(reads) == 4
