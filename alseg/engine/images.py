"""Images decoded once, checked while they are."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from alseg import __version__
from alseg.calling import mistaken
from alseg.engine.pixelcache import Facts, PixelFile, Pixels, is_worth_while, recall, remember
from alseg.imagefiles import codecs
from alseg.protocols import Images
from alseg.stamps import code_of
from alseg.values import Classes

T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], items: Iterable[T], workers: int, ahead: int = 4) -> Iterator[R]:
    """`map` in threads that run a few items ahead; results in order."""
    if workers == 0:
        yield from map(work, items)
        return
    rest = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        pending: list[Future[R]] = [pool.submit(work, item) for item in islice(rest, workers + ahead)]
        try:
            while pending:
                result = pending.pop(0).result()
                pending += [pool.submit(work, item) for item in islice(rest, 1)]
                yield result
        finally:
            for future in pending:
                future.cancel()


class DecodedImages:
    """`Images` that are checked and decoded once, and then kept.

    Every image and mask is read when this is built, so that a bad file stops a run before it starts. Where
    they are large they go into a memory-mapped file in the folder `cache`, else into memory as far as
    `memory` bytes go; what finds no place is decoded whenever it is used. From that file they also come where the
    images' stamps say that none has changed since it was written. whose: the dataset's name, for messages.
    """

    def __init__(
        self,
        images: Images,
        classes: Classes,
        memory: int,
        workers: int = 2,
        masks: bool = True,
        advance: Callable[[], None] = lambda: None,
        cache: Path | None = None,
        whose: str = "",
    ) -> None:
        self._images, self._classes, self._whose = images, classes, whose
        if hasattr(images, "file"):  # where an image lies, by which labels are matched
            self.file: Any = images.file
        self.keys = tuple(images.key(i) for i in range(len(images)))
        if len(set(self.keys)) < len(self.keys):
            twice = next(key for key in self.keys if self.keys.count(key) > 1)
            what = "Two images" if whose else "Two images of the dataset"
            raise mistaken(whose, f"{what} are called {twice}: each needs a name of its own.")
        self._with_masks = masks
        self._kept: dict[int, Pixels] = {}
        self.bytes = 0  # kept in memory
        identity = None if cache is None else self._identity(workers)
        known = None if cache is None or identity is None else recall(cache, identity, len(self.keys))
        if known is not None:
            facts, self._kept = known[0], dict(enumerate(known[1]))
            for _ in facts:
                advance()
        else:
            facts, mapped = self._read_all(memory, workers, advance, cache)
            # another identity: a file changed while it was read
            if cache is not None and identity is not None and mapped and self._identity(workers) == identity:
                remember(cache, identity, facts)
        self.sizes = [(line.height, line.width) for line in facts]
        self.has_mask = [line.mask is not None for line in facts]
        self.digests = [(line.pixels_digest, line.mask_digest) for line in facts]  # of each image's and mask's pixels
        self.present = frozenset[int]().union(*(line.present for line in facts))  # classes that a pixel has

    def _read_all(
        self, memory: int, workers: int, advance: Callable[[], None], cache: Path | None
    ) -> tuple[list[Facts], bool]:
        """What is known of every image, and whether they lie in a file of the folder `cache`."""
        found: list[Facts] = []
        with contextlib.ExitStack() as stack:
            file: PixelFile | None = None
            read = 0  # bytes
            for i, (image, mask, facts) in enumerate(in_threads(self._first_read, range(len(self.keys)), workers)):
                found.append(facts)
                read += facts.bytes
                # by the mean of those seen so far; the first alone may be the smallest or largest of them
                if cache is not None and is_worth_while(cache, read * len(self.keys) // len(found)):
                    file = self._begun(stack.enter_context(PixelFile(cache)), found[:-1])
                    cache = None  # which is tried once
                if file is not None and not file.add(image, mask, facts):
                    file = None
                if file is None and self.bytes + facts.bytes <= memory:
                    self.bytes += facts.bytes
                    self._kept[i] = image, mask
                advance()
            mapped = file and file.mapped()
        if mapped:
            self._kept, self.bytes = dict(enumerate(mapped)), 0
        else:
            self._keep_rest(found, memory, workers)
        return found, bool(mapped)

    def _keep_rest(self, facts: Sequence[Facts], memory: int, workers: int) -> None:
        """Put into memory what fits of the images that went into a file which could not be finished."""
        rest = []
        for i, line in enumerate(facts):
            if i not in self._kept and self.bytes + line.bytes <= memory:
                self.bytes += line.bytes
                rest.append(i)
        for i, (image, mask, now) in zip(rest, in_threads(self._first_read, rest, workers), strict=True):
            if now == facts[i]:
                self._kept[i] = image, mask

    def _begun(self, file: PixelFile, facts: Sequence[Facts]) -> PixelFile | None:
        """A file with the images that were read before it; None where it cannot be written, or one has changed."""
        for i, line in enumerate(facts):
            image, mask, now = (*self._kept[i], line) if i in self._kept else self._first_read(i)
            if now != line or not file.add(image, mask, line):
                return None
        return file

    def _identity(self, workers: int) -> str | None:
        """A digest of all that decides what is read; None where the images cannot tell that without being read."""
        own = code_of(DecodedImages, codecs)
        if own is None or not hasattr(self._images, "stamp"):
            return None
        content, classes = hashlib.sha256(), (len(self._classes), self._classes.void)
        content.update(repr((__version__, own, codecs(), classes, self._with_masks)).encode())
        for key, stamp in zip(self.keys, in_threads(self._images.stamp, range(len(self.keys)), workers), strict=True):
            if stamp is None:
                return None
            content.update(repr((key, stamp)).encode())
        return content.hexdigest()[:32]

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, i: int) -> str:
        """A stable name."""
        return self.keys[i]

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        kept = self._kept.get(i)
        return self._read_image(i) if kept is None else kept[0]

    def mask(self, i: int) -> np.ndarray | None:
        """Class values [H, W], checked: 0 to C - 1 or void."""
        kept = self._kept.get(i)
        return self._read_mask(i, self.sizes[i]) if kept is None else kept[1]

    def _first_read(self, i: int) -> tuple[np.ndarray, np.ndarray | None, Facts]:
        try:
            image = self._read_image(i)
            mask = self._read_mask(i, image.shape[:2])
        except MemoryError as error:
            raise mistaken(self._whose, f"The image {self.keys[i]} is larger than the memory: cut it up.") from error
        height, width, _ = image.shape
        if mask is None:
            return image, None, Facts(height, width, None, (), digest(image), None)
        present = _classes_in(mask, self._classes)
        return image, mask, Facts(height, width, mask.dtype.str, present, digest(image), digest(mask))

    def _read_image(self, i: int) -> np.ndarray:
        image = np.array(self._images.image(i))  # contiguous, and writable as torch wants it
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise mistaken(
                self._whose,
                f"The image {self.keys[i]} is {image.dtype} {list(image.shape)}; "
                "it must be uint8 [H, W, 3], not empty.",
            )
        return image

    def _read_mask(self, i: int, size: tuple[int, ...]) -> np.ndarray | None:
        mask = self._images.mask(i) if self._with_masks else None
        return None if mask is None else self._checked(i, size, mask)

    def _checked(self, i: int, size: tuple[int, ...], mask: np.ndarray) -> np.ndarray:
        key = self.keys[i]
        if mask.shape != size:
            raise mistaken(
                self._whose,
                f"The mask of {key} is {'x'.join(map(str, mask.shape))}, its image "
                f"{size[0]}x{size[1]}: they must be of one size.",
            )
        if mask.dtype.kind not in "iub":
            raise mistaken(self._whose, f"The mask of {key} holds {mask.dtype}; it must hold whole class values.")
        classes, void = len(self._classes), self._classes.void
        wrong = (mask != void) & ((mask < 0) | (mask >= classes))
        if wrong.any():
            y, x = (int(v) for v in np.argwhere(wrong)[0])
            raise mistaken(
                self._whose,
                f"The mask of {key} holds {int(mask[y, x])} at (y {y}, x {x}): classes go from 0 to {classes - 1} "
                f"and void is {void}.",
            )
        # the smallest type that holds the classes and void
        kind = np.uint8 if max(classes - 1, void) < 256 and void >= 0 else np.int32
        return np.ascontiguousarray(mask.astype(kind))


def _classes_in(mask: np.ndarray, classes: Classes) -> tuple[int, ...]:
    """The classes that a checked mask holds."""
    known = mask if mask.dtype == np.uint8 else mask[mask != classes.void]  # where void is negative or far off
    return tuple(np.flatnonzero(np.bincount(known.ravel())[: len(classes)]).tolist())


def digest(pixels: np.ndarray) -> str:
    """The first half of the SHA-256 of an array's bytes, as hex."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()[:32]


# Numbers in the class maps of a batch: half a gigabyte on a GPU, and on a CPU what its caches serve well.
MOST = {"cuda": 2**27, "cpu": 2**22}


def batch_most(size: tuple[int, int], classes: int, device: str) -> int:
    """How many images of a size are in a batch at most: so many that maps [B, classes, H, W] hold MOST numbers."""
    return max(1, MOST[device] // (classes * size[0] * size[1]))


def batches_of_one_size(
    sizes: list[tuple[int, int]], batch_size: int, classes: int = 1, device: str = "cuda"
) -> list[list[int]]:
    """Image numbers in batches whose images share a size, sizes in order of appearance.

    A batch is smaller where its maps [B, classes, H, W] would hold more than MOST numbers.
    """
    buckets: dict[tuple[int, int], list[int]] = {}
    for i, size in enumerate(sizes):
        buckets.setdefault(size, []).append(i)
    batches = []
    for (height, width), bucket in buckets.items():
        count = min(batch_size, batch_most((height, width), classes, device))
        batches += [bucket[j : j + count] for j in range(0, len(bucket), count)]
    return batches
