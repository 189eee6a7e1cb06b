"""Images and maps as files for a browser."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from PIL import Image

from alseg.colours import colours_of, heat, levels
from alseg.imagefiles import encoded
from alseg.protocols import Images
from alseg.values import Classes

LOSSLESS = 2_000_000  # pixels up to which an image is sent as PNG
ROOM = 2**28  # bytes of sent images that are kept


class Pictures:
    """The images of a pool, encoded once: PNG, or JPEG of the best quality where they are large."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._kept: OrderedDict[int, tuple[bytes, str]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._working = threading.Semaphore(2)  # images that are decoded at once: each may be large

    def image(self, i: int) -> tuple[bytes, str]:
        """A file and its media type."""
        found = self._known(i)
        if found is not None:
            return found
        with self._working:
            found = self._known(i)  # whoever was before in the queue may have made it
            if found is not None:
                return found
            made = image_file(np.asarray(self._images.image(i)))
            with self._lock:
                if i not in self._kept:
                    self._kept[i] = made
                    self._size += len(made[0])
                while self._size > ROOM and len(self._kept) > 1:
                    self._size -= len(self._kept.popitem(last=False)[1][0])
        return made

    def _known(self, i: int) -> tuple[bytes, str] | None:
        with self._lock:
            if i in self._kept:
                self._kept.move_to_end(i)
            return self._kept.get(i)


def image_file(image: np.ndarray) -> tuple[bytes, str]:
    """An image uint8 [H, W, 3] as a file."""
    if image.shape[0] * image.shape[1] <= LOSSLESS:
        return encoded(Image.fromarray(image), "PNG", compress_level=1), "image/png"
    return encoded(Image.fromarray(image), "JPEG", quality=95, subsampling=0), "image/jpeg"


def class_map(mask: np.ndarray, classes: Classes) -> bytes:
    """Class values [H, W] in the classes' colours, a PNG."""
    if len(classes) > 256:
        return encoded(Image.fromarray(np.array(colours_of(classes), np.uint8)[mask]), "PNG", compress_level=1)
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([value for colour in colours_of(classes) for value in colour])
    return encoded(picture, "PNG", compress_level=1)


def heat_map(utility: np.ndarray) -> bytes:
    """Numbers [H, W] from dark (lowest) to bright, a PNG."""
    return encoded(heat(levels(utility)), "PNG", compress_level=1)
