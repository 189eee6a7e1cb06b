"""Image and mask files: reading them, with one sentence where that fails, and pictures as bytes.

Pillow reads everything: torchvision's decoders have no TIFF and turn a palette's indices into colours.
"""

from __future__ import annotations

import io
import logging
import stat
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Set
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import PIL
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features

from alseg.calling import first_line
from alseg.colours import packed
from alseg.errors import AlsegError, UserMistake

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
FORMATS = "PNG, JPEG, WebP or TIFF"
MADE = ".made-by-alseg"  # lies beside the figures and label images that alseg writes
# files that alseg writes into folders of its own, and what is in them, since other programs have such files, too
OWN = {"run.toml": (b"[record]",), "predictions.json": (b'"run":', b'"model":', b'"tile":', b'"precision":'), MADE: ()}
# what people keep images in besides, cameras' raw files among them
UNREAD = (
    *(".gif", ".bmp", ".jp2", ".j2k", ".jxl", ".avif", ".heic", ".heif", ".tga", ".pbm", ".pgm", ".ppm", ".pnm"),
    *(".jfif", ".jpe", ".exr", ".hdr", ".psd", ".xcf", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw"),
)

# Pillow refuses above twice its limit; up to there a large photograph is nobody's attack. For the whole process, since
# images are read in threads, and after the filters that are there: whoever set one is heard.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, append=True)
# What Pillow logs of a broken file is said by the sentence that refuses it.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def nested_files(folder: Path, leave_out: Iterable[Path] = (), made: bool = False) -> dict[str, Path]:
    """The image files under a folder, by their path relative to it without suffix, sorted.

    Links are followed. Passed over are hidden files and folders, alseg's own runs, predictions, figures and, unless
    `made`, exported label images, and the folders `leave_out`. Names are in Unicode's composed form, so that they are
    the same on every system; two files of one name are refused.
    """
    found: dict[str, Path] = {}
    for path in _walked(folder, {place.resolve() for place in leave_out}, (), made=made):
        key = unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if key in found:
            raise UserMistake(f"{found[key]} and {path} have the same name {key}: keep one of the two.")
        if any("\ud800" <= letter <= "\udfff" for letter in key):
            raise UserMistake(f"The name of {path} is not UTF-8: rename it.")
        found[key] = path
    return dict(sorted(found.items()))


def image_like_files(folder: Path) -> list[Path]:
    """The files under a folder that are images by their names, in formats that are not read, too."""
    return sorted(_walked(folder, set(), (), (*SUFFIXES, *UNREAD)))


def _walked(
    folder: Path,
    leave_out: Set[Path],
    above: tuple[Path, ...],
    suffixes: tuple[str, ...] = SUFFIXES,
    made: bool = False,
) -> Iterator[Path]:
    here = folder.resolve()
    if here in above or here in leave_out:  # a link to a folder above would never end
        return
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise UserMistake(f"Cannot read the folder {folder}: {error.strerror}.") from error
    if above and any(_is_own(path) for path in inside if not (made and path.name == MADE)):
        return
    for path in inside:
        if path.is_dir() and not path.name.startswith("."):
            yield from _walked(path, leave_out, (*above, here), suffixes, made)
        elif is_image(path, suffixes):
            yield path


def _is_own(path: Path) -> bool:
    """Whether a file says that alseg wrote the folder in which it lies."""
    if path.name not in OWN or not path.is_file():  # a named pipe would be waited for
        return False
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return all(words in content for words in OWN[path.name])


def is_image(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    """Whether a file's name says that it is an image, and not a hidden one."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


@lru_cache(1)
def codecs() -> str:
    """What decodes images here, such as for a cache of what it gave."""
    libraries = ("jpg", "libjpeg_turbo", "zlib", "libtiff", "webp")
    return f"Pillow {PIL.__version__} {[features.version(name) for name in libraries]}"


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file of a kind, such as PNG, with Pillow's options."""
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def shrunk(picture: Image.Image, longer_side: int, how: Image.Resampling) -> Image.Image:
    """A picture whose longer side has so many pixels at most."""
    factor = min(1.0, longer_side / max(picture.size))
    return picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))), how)


def read_image(file: Path | BinaryIO, called: str | None = None) -> np.ndarray:
    """An image file as a person sees it, uint8 [H, W, 3] RGB; `called` says what it is where it cannot be read.

    EXIF orientation is applied, so (y, x) counts from the corner that is shown upper left. Transparent
    pixels are laid on white. Of 16 bits the upper 8 are kept. Grey and palette images become RGB. Refused
    are 32-bit and several images in one file.
    """
    return _decoded(file, _rgb, called)


def image_array(image: Image.Image) -> np.ndarray:
    """An image that Pillow has opened, as `read_image` gives it."""
    name = getattr(image, "filename", "")
    return _orderly(f"the image {name}" if name else "the image", lambda: _upright(image, _rgb))


def read_mask(file: Path | BinaryIO, called: str | None = None) -> np.ndarray:
    """A mask file of class values, integer [H, W]; a palette's indices, not its colours; `called`: as above."""
    mask = _decoded(file, _mask_pixels, called)
    if mask.ndim != 2:
        what = called or f"the mask {file}"
        raise UserMistake(
            f"{what[0].upper()}{what[1:]} has {mask.shape[2]} channels; it must hold one class value a pixel."
        )
    return mask


def read_mask_and_palette(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """A mask file as stored, and its palette if it has one.

    Values of 1 to 32 bits or palette indices [H, W], or colours [H, W, 3]. The palette is packed RGB by index,
    -1 where it is not opaque.
    """
    return _decoded(path, lambda image, stored: (_mask_pixels(image, stored), _palette(image)))


class LabelImage(NamedTuple):
    """A sparsely labelled image: values [H, W] or colours [H, W, 3], where it is opaque [H, W], and its texts.

    palette: packed RGB by index, -1 where it is not opaque; None where there is none.
    """

    pixels: np.ndarray
    opaque: np.ndarray
    palette: np.ndarray | None
    texts: dict[str, str]


def read_label_image(path: Path) -> LabelImage:
    """A label image's file as stored."""
    return _decoded(path, _label_pixels)


class Stored(NamedTuple):
    """What a file is: its format, and how Pillow calls its samples, such as "RGB;16B"."""

    format: str | None
    samples: str

    @property
    def factor(self) -> int:
        """By which grey samples are made larger: Pillow spreads those of 2 and 4 bits over 0 to 255."""
        return {"L;2": 85, "L;4": 17}.get(self.samples[:3], 1)


T = TypeVar("T")


def _decoded(file: Path | BinaryIO, pixels: Callable[[Image.Image, Stored], T], called: str | None = None) -> T:
    def opened() -> T:
        if isinstance(file, Path) and stat.S_IFMT(file.stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise AlsegError("it is no ordinary file")  # a named pipe would be waited for, and without end
        with Image.open(file) as image:
            return _upright(image, pixels)

    return _orderly(called or file, opened, file)


def _upright(image: Image.Image, pixels: Callable[[Image.Image, Stored], T]) -> T:
    # phones store a second view or a preview behind a JPEG; Pillow calls that MPO
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise AlsegError(f"it holds {image.n_frames} images; keep one image a file")  # type: ignore[attr-defined]
    stored = Stored(image.format, _samples(image))
    if isinstance(image, ImageFile.ImageFile):
        _load(image)
    factor, clear = 255 if image.mode == "1" else stored.factor, image.info.get("transparency")
    if factor > 1 and isinstance(clear, int):  # as the file has it, unlike the samples
        image.info["transparency"] = min(clear * factor, 255)
    if stored.samples.startswith("RGB;16") and clear is not None:  # Pillow keeps 8 bits and looks for 16
        raise AlsegError("it has 16 bits a channel and a transparent colour; save it with 8, or with an alpha channel")
    return pixels(ImageOps.exif_transpose(image), stored)


def _samples(image: Image.Image) -> str:
    """Of an image that is not decoded yet."""
    for tile in getattr(image, "tile", ()):
        return str(tile[3] if isinstance(tile[3], str) else tile[3][0])
    return ""


def _load(image: ImageFile.ImageFile) -> None:
    """Decode a file without its name: Pillow maps a TIFF that has one, and wrongly where it lies on its side."""
    name, image.filename = image.filename, ""
    try:
        image.load()
    finally:
        image.filename = name


def _orderly(called: object, read: Callable[[], T], file: Path | BinaryIO | None = None) -> T:
    try:
        return read()
    # what a decoder raises for a broken file is not limited to OSError: struct.error, KeyError, ...
    except Exception as error:
        raise UserMistake(f"Cannot read {called}: {_reason(file, error)}.") from error


def _reason(file: Path | BinaryIO | None, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError) and file is not None:
        size = file.stat().st_size if isinstance(file, Path) else file.seek(0, 2)
        return "it is empty" if size == 0 else "it is not an image that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)


def _rgb(image: Image.Image, stored: Stored) -> np.ndarray:
    if _is_grey16(image, stored):
        values = np.asarray(image)
        grey = np.where(_opaque16(image, values), values >> 8, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise AlsegError("it has 32 bits a channel; save it with 8 or 16")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return np.asarray(image.convert("RGB"))


def _is_grey16(image: Image.Image, stored: Stored) -> bool:
    # Pillow before 11.3 opens 16-bit grey PNG as 32-bit "I"
    return image.mode.startswith("I;16") or (image.mode == "I" and stored.format == "PNG")


def _opaque16(image: Image.Image, values: np.ndarray) -> np.ndarray:
    """Where grey of 16 bits is not that which is said to be transparent, which Pillow's conversions pass over."""
    clear = image.info.get("transparency")
    return values != clear if isinstance(clear, int) else np.ones(values.shape, bool)


def _mask_pixels(image: Image.Image, stored: Stored) -> np.ndarray:
    if stored.format in ("JPEG", "MPO"):
        raise AlsegError("a mask must not be a JPEG, which changes class values; save masks as PNG")
    if stored.samples.startswith("LA;16"):  # of which Pillow keeps the upper 8
        raise AlsegError("it is grey of 16 bits with an alpha channel; save class values without one, or with 8 bits")
    if image.mode in ("LA", "PA", "RGBA"):
        if image.getchannel("A").getextrema() != (255, 255):
            raise AlsegError("a mask must not be transparent; give void pixels a value or colour of their own")
        image = image.convert("RGB") if image.mode == "RGBA" else image.getchannel(0)
    if image.mode == "F":
        raise AlsegError("a mask must hold whole class values, not fractions")
    values = np.asarray(image)
    return values.astype(np.uint8) if values.dtype == bool else values // stored.factor


def _palette(image: Image.Image) -> np.ndarray | None:
    if image.mode not in ("P", "PA"):
        return None
    image = image.copy()
    image.apply_transparency()
    channels = np.array(image.getpalette("RGBA"), np.int64).reshape(-1, 4)
    *colour, opaque = channels.T
    return np.where(opaque == 255, packed(*colour), -1)


def _label_pixels(image: Image.Image, stored: Stored) -> LabelImage:
    texts = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    opaque, palette = np.ones((image.height, image.width), bool), _palette(image)
    if _is_grey16(image, stored):
        opaque = _opaque16(image, np.asarray(image))
    elif image.has_transparency_data:
        colours = image.convert("RGBA")
        opaque = np.asarray(colours.getchannel("A")) == 255
        if image.mode in ("LA", "PA"):
            image = image.getchannel(0)
        elif image.mode not in ("1", "L", "P"):
            image = colours.convert("RGB")
    return LabelImage(_mask_pixels(image, stored), opaque, palette, texts)
