"""The confusion matrix and its scores against plain counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alseg.engine.evaluate import confusion, confusion_matrix, scores
from alseg.engine.images import DecodedImages
from alseg.options import Size
from alseg.values import Classes

few = settings(max_examples=25, deadline=None, database=None, derandomize=True)
CPU = torch.device("cpu")
STEP = 40  # of red from class to class


class RedIsClass(nn.Module):
    """Its logit of class c is highest where red is c * STEP; averages red over `stride` x `stride` pixels."""

    def __init__(self, classes: int, stride: int = 1) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.arange(classes) * STEP / 255)
        self.pool = nn.AvgPool2d(stride)
        self.modes: list[bool] = []
        self.sizes: list[tuple[int, ...]] = []

    def encode(self, images: Tensor) -> Tensor:
        self.modes.append(self.training)
        self.sizes.append(tuple(images.shape))
        return self.pool(images[:, :1])

    def decode(self, features: Tensor) -> Tensor:
        return -100 * (features - self.centres[:, None, None]).square()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"encoder": [], "decoder": [self.centres]}


class Painted:
    """Images whose red tells what `RedIsClass` predicts, with masks that say what is true."""

    def __init__(self, predicted: list[np.ndarray], masks: list[np.ndarray | None]) -> None:
        self._predicted, self._masks = predicted, masks

    def __len__(self) -> int:
        return len(self._masks)

    def key(self, i: int) -> str:
        return f"image {i}"

    def image(self, i: int) -> np.ndarray:
        red = (self._predicted[i] * STEP).astype(np.uint8)
        return np.stack([red, np.full_like(red, 7), red // 2], -1)

    def mask(self, i: int) -> np.ndarray | None:
        return self._masks[i]


def named(classes: int, void: int = 255) -> Classes:
    return Classes(tuple(f"class {c}" for c in range(classes)), void)


def matrix_of(
    images: Painted,
    classes: Classes,
    model: nn.Module,
    size: Size | None = None,
    batch_size: int = 2,
    memory: int = 10**7,
    workers: int = 0,
) -> np.ndarray:
    return confusion_matrix(
        model,
        DecodedImages(images, classes, memory, workers=0),
        classes,
        size=size,
        batch_size=batch_size,
        device=CPU,
        precision=torch.float32,
        workers=workers,
    )


def counted(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int, void: int) -> np.ndarray:
    matrix = np.zeros((classes, classes), np.int64)
    for truth, predicted in pairs:
        for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if t != void:
                matrix[t, p] += 1
    return matrix


def random_pairs(seed: int, classes: int, void: int, sizes: list[tuple[int, int]]) -> tuple[list, list]:
    random = np.random.default_rng(seed)
    predicted = [random.integers(0, classes, size) for size in sizes]
    masks = [np.where(random.random(s) < 0.2, void, random.integers(0, classes, s)) for s in sizes]
    return predicted, masks


@few
@given(
    classes=st.integers(1, 5),
    void=st.sampled_from([255, -1, 5, -100, 300]),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 999),
)
def test_confusion_counts_pairs(classes: int, void: int, size: tuple[int, int], seed: int):
    (predicted,), (truth,) = random_pairs(seed, classes, void, [size])
    found = confusion(torch.from_numpy(truth)[None], torch.from_numpy(predicted)[None], classes)
    assert found.dtype == torch.int64
    assert np.array_equal(found.numpy(), counted([(truth, predicted)], classes, void))


SIZES = [(6, 8), (5, 5), (6, 8), (9, 4), (5, 5), (6, 8), (1, 1)]


@pytest.mark.parametrize(
    ("void", "kind"), [(255, np.uint8), (-1, np.int32), (5, np.uint8), (255, np.int64), (-1, np.int16)]
)
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_matrix_of_images_of_many_sizes(void: int, kind: type, batch_size: int):
    predicted, masks = random_pairs(0, 5, void, SIZES)
    images = Painted(predicted, [mask.astype(kind) for mask in masks])
    found = matrix_of(images, named(5, void), RedIsClass(5), batch_size=batch_size, workers=batch_size % 2)
    expected = counted(list(zip(masks, predicted, strict=True)), 5, void)
    assert np.array_equal(found, expected)
    assert found.sum() == sum((mask != void).sum() for mask in masks)


def test_images_that_are_not_kept_in_memory_count_the_same():
    predicted, masks = random_pairs(1, 4, 255, SIZES)
    images = Painted(predicted, masks)
    kept = matrix_of(images, named(4), RedIsClass(4))
    assert np.array_equal(matrix_of(images, named(4), RedIsClass(4), memory=0), kept)


def test_more_classes_than_a_byte_holds():
    classes = named(300, 300)
    masks = [np.array([[0, 299, 300, 255]])]
    predicted = [np.array([[0, 1, 1, 1]])]
    found = matrix_of(Painted(predicted, masks), classes, RedIsClass(300))
    assert {tuple(place) for place in np.argwhere(found).tolist()} == {(0, 0), (299, 1), (255, 1)}


def test_images_without_a_mask_are_left_out():
    predicted, masks = random_pairs(2, 3, 255, [(4, 4)] * 3)
    found = matrix_of(Painted(predicted, [masks[0], None, masks[2]]), named(3), RedIsClass(3))
    assert np.array_equal(found, counted([(masks[0], predicted[0]), (masks[2], predicted[2])], 3, 255))


def test_all_void_counts_nothing():
    images = Painted([np.zeros((3, 3), int)], [np.full((3, 3), 255)])
    assert matrix_of(images, named(2), RedIsClass(2)).sum() == 0


def upsampling_matrix(cells: int, pixels: int) -> np.ndarray:
    """[pixels, cells] bilinear weights with half-pixel centres, clamped."""
    position = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    return np.clip(1 - abs(position[:, None] - np.arange(cells)), 0, None)


@pytest.mark.parametrize(("size", "seen"), [(None, (12, 20)), (Size(24, 40), (24, 40)), (Size(8, 12), (8, 12))])
def test_scored_at_the_masks_own_size(size: Size | None, seen: tuple[int, int]):
    predicted, masks = random_pairs(3, 3, 255, [(12, 20), (12, 20)])
    images, model = Painted(predicted, masks), RedIsClass(3, stride=4)
    found = matrix_of(images, named(3), model, size)
    assert model.sizes == [(2, 3, *seen)]
    pairs = []
    for i, mask in enumerate(masks):
        image = torch.from_numpy(images.image(i)[..., 0] / 255)[None, None]
        scaled = nn.functional.interpolate(image, seen, mode="bilinear", align_corners=False, antialias=True)[0, 0]
        cells = scaled.numpy().reshape(seen[0] // 4, 4, seen[1] // 4, 4).mean((1, 3))
        logits = np.stack([-((cells - c * STEP / 255) ** 2) for c in range(3)])
        upsampled = upsampling_matrix(seen[0] // 4, 12) @ logits @ upsampling_matrix(seen[1] // 4, 20).T
        pairs.append((mask, upsampled.argmax(0)))
    assert found.sum() == sum((mask != 255).sum() for mask in masks)
    # rounding may turn a pixel that lies on the seam of two classes
    assert abs(found - counted(pairs, 3, 255)).sum() <= 4


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_evaluated_in_evaluation_mode_and_left_as_it_was(training: bool):
    predicted, masks = random_pairs(4, 3, 255, [(4, 4)] * 3)
    model = RedIsClass(3).train(training)
    matrix_of(Painted(predicted, masks), named(3), model)
    assert model.modes == [False, False]
    assert model.training is training
    assert model.centres.grad is None


@few
@given(
    classes=st.integers(1, 5),
    highest=st.sampled_from([0, 1, 3, 1000]),
    zeroed=st.integers(0, 4),
    seed=st.integers(0, 999),
)
def test_scores_follow_their_definitions(classes: int, highest: int, zeroed: int, seed: int):
    matrix = np.random.default_rng(seed).integers(0, highest + 1, (classes, classes))
    matrix[zeroed % classes] = matrix[:, zeroed % classes] = 0
    found = scores(matrix, named(classes))
    truth = np.repeat(np.arange(classes), matrix.sum(1))
    predicted = np.concatenate([np.repeat(np.arange(classes), row) for row in matrix])
    ious = []
    for c in range(classes):
        union = ((truth == c) | (predicted == c)).sum()
        ious.append(((truth == c) & (predicted == c)).sum() / union if union else None)
    assert list(found.iou) == [f"class {c}" for c in range(classes)]
    assert list(found.iou.values()) == pytest.approx(ious)
    known = [iou for iou in ious if iou is not None]
    assert found.iou[f"class {zeroed % classes}"] is None
    assert found.miou == (pytest.approx(sum(known) / len(known)) if known else None)
    assert found.pixel_accuracy == (pytest.approx((truth == predicted).mean()) if len(truth) else None)


def test_a_class_only_predicted_counts_as_missed():
    found = scores(np.array([[6, 2, 0], [0, 0, 0], [0, 0, 0]]), named(3))
    assert found.iou == {"class 0": 0.75, "class 1": 0.0, "class 2": None}
    assert found.miou == 0.375
    assert found.pixel_accuracy == 0.75


def test_nothing_to_score():
    found = scores(np.zeros((2, 2), np.int64), named(2))
    assert (found.miou, found.pixel_accuracy, set(found.iou.values())) == (None, None, {None})


def test_scores_are_plain_numbers():
    found = scores(np.array([[3, 1], [0, 2]]), named(2))
    assert {type(found.miou), type(found.pixel_accuracy), *map(type, found.iou.values())} == {float}
