"""Augmented training batches: images, points and classes."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alseg import noise
from alseg.engine import augment
from alseg.engine.colour import recolour
from alseg.engine.images import in_threads
from alseg.engine.team import ALONE, Team
from alseg.engine.warping import warp
from alseg.options import Longer, Size, fitted
from alseg.protocols import Images
from alseg.settings import Augmentation
from alseg.values import Classes, PixelLabels

STILL = 2**30  # bytes of crops without chance that are kept where images do not stay on the device
PADDING = -100  # the class of a point that is none
AHEAD = 8  # batches that a GPU may be behind those that are handed out, and how many are made at once there
TOGETHER = 2**27  # bytes of float images that are made at once there, at most


@dataclass(frozen=True)
class Batch:
    """Images [B, 3, H, W] in [0, 1] and what they teach.

    At points: points [B, n, 2] as fractions, classes [B, n]. In full supervision: no points, classes
    [B, H, W]. PADDING is the class of what is not labelled.
    """

    images: Tensor
    points: Tensor | None
    classes: Tensor

    def tensors(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Images, points and classes."""
        return self.images, self.points, self.classes


class BatchSource:
    """The batches of each epoch; how an image looks depends on seed, round, epoch and its name alone.

    `labels` None is full supervision by the images' masks. Images without a trainable label are left out.
    A remainder of one image is dropped, since batch norms need two; a pool of one image is shown twice in
    its batch. Each of a team gets its share of a batch, two images at least, for which a remainder is filled up with
    images that the epoch shows twice. `room`: how many bytes of images may stay on the device; None: as `room_on` says.
    On a GPU batches are made on a stream of their own, beside the work on those before.
    """

    def __init__(
        self,
        images: Images,
        labels: PixelLabels | None,
        classes: Classes,
        augmentation: Augmentation,
        *,
        size: tuple[int, int],
        resize: Size | Longer | None = None,
        batch_size: int,
        seed: int,
        round: int,
        device: torch.device | str = "cpu",
        workers: int = 0,
        team: Team = ALONE,
        room: int | None = None,
    ) -> None:
        self._images, self._augmentation, self._size, self._resize = images, augmentation, size, resize
        self._seed, self._round, self._device, self._workers = seed, round, torch.device(device), workers
        self._fill = torch.tensor(augmentation.fill, device=device)
        self._void = None if labels is not None else classes.void
        self._labels = {} if labels is None else _taught(images, labels, classes)
        self.taught = sorted(self._labels) if labels is not None else list(range(len(images)))
        self._team = team
        self._resident: dict[int, Tensor] = {}  # images that stay on the device, in so many bytes
        self._room = room_on(self._device) if room is None else room
        self._still: dict[int, tuple[Tensor, augment.Geometry]] = {}  # crops that chance has no part in
        self._still_room = self._room or STILL
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))  # which makes `_fill`
        self._largest = 0  # bytes of a float image, as far as they are known
        self._plan = batch_plan(len(self.taught), batch_size, 2 * team.size)

    @property
    def dense(self) -> bool:
        """Full supervision."""
        return self._void is not None

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self._plan)

    @property
    def sizes(self) -> list[int]:
        """Images of each batch, over all of the team."""
        return list(map(len, self._plan))

    @property
    def images_per_epoch(self) -> int:
        """Images that an epoch shows."""
        return sum(self.sizes)

    @property
    def most_points(self) -> int:
        """Labelled points of the image that has most."""
        return max((len(values) for _, values in self._labels.values()), default=0)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, images decoded by threads ahead of time."""
        keys = [self._images.key(i) for i in self.taught]
        starts = [noise.stream(self._seed, self._round, f"order {epoch}", key) for key in keys]
        order = noise.uniforms(starts, 1)[:, 0].argsort(dim=0, stable=True).tolist() if starts else []
        groups = [[self.taught[order[place]] for place in places] for places in self._plan]
        numbers = [i for group in groups for i in self._team.share(group)]
        here = not self.dense and all(i in self._resident or i in self._still for i in numbers)
        decoded = in_threads(self._read, numbers, 0 if here else self._workers, ahead=8)
        used: deque[torch.cuda.Event] = deque()
        shown: Counter[int] = Counter()
        while groups:
            made = groups[: self._at_once(len(groups[0]))]
            del groups[: len(made)]
            named = [[self._showing(i, shown) for i in group] for group in made]
            mine = [self._team.share(group) for group in made]
            shared = [key for part in named for key in self._team.share(part)]
            draws = augment.draws_of(self._seed, self._round, epoch, shared)
            numbers = [i for part in mine for i in part]
            with self._apart():
                batch = self._batch(numbers, draws, [next(decoded) for _ in numbers])
            for part in _parted(batch, list(map(len, mine))):
                yield self._handed_out(part)
                self._keep_pace(used)

    def _showing(self, i: int, shown: Counter[int]) -> str:
        """What an image's looks are drawn by: a second showing in an epoch is drawn on its own. shown: how often."""
        shown[i] += 1
        return self._images.key(i) + "+" * (shown[i] - 1)

    def _at_once(self, size: int) -> int:
        """How many batches of so many images are made together: on a GPU several, since each call costs time there."""
        if self._stream is None or self._largest == 0:
            return 1
        return max(1, min(AHEAD, TOGETHER // (size * self._largest)))

    def _apart(self) -> contextlib.AbstractContextManager[Any]:
        """Where batches are made."""
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _handed_out(self, batch: Batch) -> Batch:
        """The batch, for which the stream that will use it waits."""
        if self._stream is not None:
            now = torch.cuda.current_stream(self._device)
            now.wait_stream(self._stream)
            for part in batch.tensors():
                if part is not None:
                    part.record_stream(now)
        return batch

    def _keep_pace(self, used: deque[torch.cuda.Event]) -> None:
        """Wait where the GPU is far behind, since batches that wait for it take memory. used: ends of earlier ones."""
        if self._stream is None:
            return
        used.append(torch.cuda.current_stream(self._device).record_event())
        if len(used) > AHEAD:
            used.popleft().synchronize()

    def _read(self, i: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        image = None if i in self._resident or i in self._still else self._images.image(i)
        return image, None if self._void is None else self._images.mask(i)

    def _on_device(self, i: int, image: np.ndarray | None) -> Tensor:
        """uint8 [3, H, W] on the device, where it stays if there is room."""
        if image is None or i in self._resident:
            return self._resident[i]
        tensor = torch.from_numpy(image).to(self._device, non_blocking=True).permute(2, 0, 1)
        if image.nbytes <= self._room:
            self._room -= image.nbytes
            self._resident[i] = tensor
        return tensor

    def _batch(
        self,
        numbers: Sequence[int],
        draws: Sequence[list[float]],
        read: Sequence[tuple[np.ndarray | None, np.ndarray | None]],
    ) -> Batch:
        new = [place for place, i in enumerate(numbers) if i not in self._still]
        sources = [self._on_device(numbers[place], read[place][0]) for place in new]
        numels = (3 * math.prod(self._size), *(source.numel() for source in sources))
        self._largest = max(self._largest, 4 * max(numels))
        made = [self._geometry(source, draws[place]) for source, place in zip(sources, new, strict=True)]
        crops = recolour(warp(sources, made, self._fill), [draws[p] for p in new], self._augmentation) if new else None
        images, geometries = self._with_still(numbers, new, crops, made)
        images = images.contiguous(memory_format=torch.channels_last)
        if self._void is not None:
            masks = [
                g.mask(mask, self._void) for g, (_, mask) in zip(geometries, read, strict=True) if mask is not None
            ]
            shown = np.stack(masks)
            classes = torch.from_numpy(np.where(shown == self._void, PADDING, shown))
            return Batch(images, None, classes.to(self._device, non_blocking=True))
        return Batch(images, *self._points(numbers, geometries))

    def _with_still(
        self, numbers: Sequence[int], new: Sequence[int], crops: Tensor | None, made: Sequence[augment.Geometry]
    ) -> tuple[Tensor, Sequence[augment.Geometry]]:
        """The batch's crops [B, 3, H, W] and where they lie; crops that no epoch changes are kept for the next."""
        if crops is not None and len(new) == len(numbers) and not augment.is_still(self._augmentation):
            return crops, made
        found = {} if crops is None else dict(zip(new, zip(crops, made, strict=True), strict=True))
        together = [found[place] if place in found else self._still[i] for place, i in enumerate(numbers)]
        images = torch.stack([crop for crop, _ in together])
        for place, (crop, geometry) in found.items():
            size = crop.numel() * crop.element_size()
            if geometry.fits and size <= self._still_room and numbers[place] not in self._still:
                self._still_room -= size
                self._still[numbers[place]] = crop.clone(), geometry
        return images, [geometry for _, geometry in together]

    def _geometry(self, image: Tensor, draws: list[float]) -> augment.Geometry:
        change, source = self._augmentation, (image.shape[1], image.shape[2])
        base = self._size if self._resize is None else fitted(self._resize, source)
        return augment.draw_geometry(draws, source, self._size, change.scale, change.flip, base)

    def _points(self, numbers: Sequence[int], geometries: Sequence[augment.Geometry]) -> tuple[Tensor, Tensor]:
        """Where the images' labels are in the crops, and their classes."""
        taught = []
        for i, geometry in zip(numbers, geometries, strict=True):
            pixels, values = self._labels[i]
            moved = geometry.nearest if self._augmentation.labels == "nearest" else geometry.exact
            points, kept = moved(pixels)
            taught.append((points / np.array(self._size), values[kept]))
        most = max(1, *(len(values) for _, values in taught))
        points = np.full((len(taught), most, 2), 0.5, np.float32)
        classes = np.full((len(taught), most), PADDING, np.int64)
        for row, (where, values) in enumerate(taught):
            points[row, : len(where)] = where
            classes[row, : len(values)] = values
        on_device = (torch.from_numpy(part).to(self._device, non_blocking=True) for part in (points, classes))
        return next(on_device), next(on_device)


def _parted(batch: Batch, sizes: Sequence[int]) -> Iterator[Batch]:
    """Batches of so many images that were made as one."""
    if len(sizes) == 1:
        yield batch
        return
    points = [None] * len(sizes) if batch.points is None else batch.points.split(list(sizes))
    yield from map(Batch, batch.images.split(list(sizes)), points, batch.classes.split(list(sizes)))


def room_on(device: torch.device) -> int:
    """Bytes that images may take on a device for a whole training: a quarter of what is free on a GPU."""
    return int(torch.cuda.mem_get_info(device)[0]) // 4 if device.type == "cuda" else 0


def _taught(images: Images, labels: PixelLabels, classes: Classes) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Points and class values of the images that have any."""
    trained = {i: labels.trained(images.key(i), classes) for i in range(len(images))}
    return {i: (points, values) for i, (points, values) in trained.items() if len(points)}


def batch_plan(count: int, batch_size: int, least: int = 2) -> list[list[int]]:
    """Places in the shuffled order, by batch; those of an epoch's end that are fewer than `least` are filled up.

    The number of batches does not depend on `least`: a remainder of one image is dropped, as it is where 2 are enough.
    """
    if 0 < count < least:
        return [[place % count for place in range(least)]]
    plan = [list(range(j, min(j + batch_size, count))) for j in range(0, count, batch_size)]
    # by the first places, which are other images in each epoch's order
    return [places + list(range(least - len(places))) for places in plan if len(places) >= 2]
