"""What the last round's model thinks of single images, for whoever answers; computed when asked."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from alseg.moved import precision_of
from alseg.plugins import Registry
from alseg.protocols import Images
from alseg.store import RunFolder

if TYPE_CHECKING:
    from alseg.segment import Segmentation, Segmenter

KEPT = 4  # images whose maps are kept


class Looking:
    """Maps of a run's pool in a round, by the model of the round before; may be used from any thread."""

    def __init__(self, registry: Registry, folder: RunFolder, round: int, images: Images, seed: int) -> None:
        self._registry, self._folder, self._round, self._seed = registry, folder, round, seed
        self._images, self._index = images, {images.key(i): i for i in range(len(images))}
        self._segmenter: Segmenter | None = None
        self._seen: OrderedDict[tuple[str, bool], Segmentation] = OrderedDict()
        self._lock = threading.Lock()  # one image at a time: a model is no place for two threads

    @property
    def there(self) -> bool:
        """Whether there is a model yet."""
        return self._round > 0 and self._folder.has_model(self._round - 1)

    def predicted(self, image: str) -> np.ndarray | None:
        """Class values int64 [H, W]."""
        seen = self._look(image, False)
        return None if seen is None else seen.mask

    def utility(self, image: str) -> np.ndarray | None:
        """The run's acquirer on an image, float [H, W]."""
        seen = self._look(image, True)
        return None if seen is None else seen.utility

    def noise(self, purpose: str, image: str, size: tuple[int, int]) -> np.ndarray:
        """Uniform numbers, float64 [H, W]."""
        from alseg import noise

        start = noise.stream(self._seed, self._round, purpose, image)
        return noise.uniforms([start], size[0] * size[1])[0].numpy().reshape(size)

    def _look(self, image: str, utility: bool) -> Segmentation | None:
        if not self.there:
            return None
        with self._lock:
            if self._segmenter is None:
                self._segmenter = self._as_asked()
            found = self._seen.get((image, utility))
            if found is None:
                pixels = self._images.image(self._index[image])
                found = self._segmenter.segment(pixels, utility=utility, key=image)
                self._seen[image, utility] = found
                if len(self._seen) > KEPT:
                    self._seen.popitem(last=False)
            return found

    def _as_asked(self) -> Segmenter:
        """The model as it chose the round's pixels: at that size, precision and on that device."""
        from alseg.segment import Segmenter

        settings, registry = self._folder.settings(), self._registry
        device, precision = settings["device"], precision_of(settings)
        segmenter = Segmenter(
            self._folder.path, round=self._round - 1, device=device, precision=precision, registry=registry
        )
        segmenter.size = segmenter.config.query.size
        return segmenter

    def close(self) -> None:
        """Wait for what is being computed, and let the model go."""
        with self._lock:
            self._segmenter = None
            self._seen.clear()
