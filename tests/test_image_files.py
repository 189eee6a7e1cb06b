"""Reading image files: as a person sees them, or one sentence that names the file."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alseg.errors import UserMistake
from alseg.imagefiles import image_array, read_image, read_label_image, read_mask, read_mask_and_palette

ORIENTATION = 0x0112


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    """Smooth, so that lossy formats keep it about."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 30, x * 25, 200 - x * 10 - y * 10], -1).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.webp", "a.tif", "a.TIFF"])
def test_formats(tmp_path, name):
    Image.fromarray(picture(48, 64).clip(0, 255)).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert (image.dtype, image.shape) == (np.uint8, (48, 64, 3))
    lossless = Path(name).suffix.lower() in (".png", ".tif", ".tiff")
    if lossless:
        assert (image == picture(48, 64)).all()


def test_bits_and_channels(tmp_path):
    colours, grey = Image.fromarray(picture()), Image.fromarray(picture()[..., 0])
    three = np.repeat(picture()[..., :1], 3, 2)
    sixteen = picture()[..., 0].astype(np.uint16) * 256 + 200
    for name, image, expected in (
        ("grey.png", grey, three),
        ("grey.tif", grey, three),
        ("palette.png", colours.quantize(48, dither=Image.Dither.NONE), None),
        ("bilevel.png", grey.point(lambda v: 255 * (v > 80)).convert("1"), None),
        ("sixteen.png", Image.fromarray(sixteen), three),
        ("sixteen.tif", Image.fromarray(sixteen), three),
        ("cmyk.jpg", colours.convert("CMYK"), None),
    ):
        image.save(tmp_path / name)
        read = read_image(tmp_path / name)
        assert (read.dtype, read.shape) == (np.uint8, (6, 8, 3)), name
        if expected is not None:
            assert (read == expected).all(), name
    assert abs(read_image(tmp_path / "palette.png").astype(int) - picture()).max() <= 40
    assert set(np.unique(read_image(tmp_path / "bilevel.png"))) == {0, 255}


def write_png(path: Path, width: int, bits: int, colour: int, rows: list[bytes], more: bytes = b"") -> None:
    """A PNG of a kind that Pillow reads but does not write.

    colour: 0 is grey, 2 RGB, 4 grey with alpha. more: what is transparent.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    clear = chunk(b"tRNS", more) if more else b""
    chunks = chunk(b"IHDR", header) + clear + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def test_16_bit_colours_keep_the_upper_8(tmp_path):
    rows = [(line.astype(">u2") * 256 + 99).astype(">u2").tobytes() for line in picture()]
    write_png(tmp_path / "a.png", 8, 16, 2, rows)
    assert (read_image(tmp_path / "a.png") == picture()).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_masks_of_few_bits_hold_their_values_and_images_their_greys(tmp_path, bits):
    path, most = tmp_path / "a.png", 2**bits - 1
    values = np.random.default_rng(bits).integers(0, most, (5, 16), endpoint=True)
    digits = values[..., None] >> np.arange(bits)[::-1] & 1
    write_png(path, 16, bits, 0, [np.packbits(row).tobytes() for row in digits])
    assert np.array_equal(read_mask(path), values)
    assert np.array_equal(read_mask(io.BytesIO(path.read_bytes())), values)
    assert np.array_equal(read_mask_and_palette(path)[0], values)
    assert np.array_equal(read_label_image(path).pixels, values)
    assert np.array_equal(read_image(path)[..., 0], values * 255 // most)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_of_few_bits_too_the_grey_that_is_said_to_be_is_transparent(tmp_path, bits):
    path, most = tmp_path / "a.png", 2**bits - 1
    values = np.arange(16).repeat(5).reshape(5, 16) % (most + 1)
    digits = values[..., None] >> np.arange(bits)[::-1] & 1
    rows = [np.packbits(row).tobytes() for row in digits]
    for clear in (0, 1, most):
        write_png(path, 16, bits, 0, rows, struct.pack(">H", clear))
        found = read_label_image(path)
        assert np.array_equal(found.opaque, values != clear), clear
        assert np.array_equal(found.pixels[found.opaque], values[found.opaque])
        assert np.array_equal(read_image(path)[..., 0], np.where(values == clear, 255, values * 255 // most))


def test_of_16_bits_too_what_is_transparent_is_so_or_refused(tmp_path):
    path, values = tmp_path / "a.png", np.array([[1, 2, 258], [514, 2, 0xFFFF]], np.uint16)
    for clear in (1, 2):
        Image.fromarray(values).save(path, transparency=clear)
        found = read_label_image(path)
        assert np.array_equal(found.pixels, values) and np.array_equal(found.opaque, values != clear)
        assert np.array_equal(read_image(path)[..., 2], np.where(values == clear, 255, values >> 8))
        assert np.array_equal(read_mask(path), values)
    write_png(path, 2, 16, 4, [struct.pack(">4H", 1, 0xFFFF, 258, 0xFFFF)])
    assert read_image(path)[..., 0].tolist() == [[0, 1]]
    for read in (read_mask, read_mask_and_palette, read_label_image):
        with pytest.raises(UserMistake, match="16 bits with an alpha channel"):
            read(path)
    write_png(path, 1, 16, 2, [struct.pack(">3H", 256, 0, 0)], struct.pack(">3H", 256, 0, 0))
    with pytest.raises(UserMistake, match="16 bits a channel and a transparent colour"):
        read_image(path)


def test_what_is_transparent_is_laid_on_white(tmp_path):
    pixels = np.concatenate([picture(), np.full((6, 8, 1), 255, np.uint8)], -1)
    pixels[0, 0], pixels[1, 1] = (10, 20, 30, 0), (0, 0, 0, 102)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[1, 1].tolist() == [153, 153, 153]
    assert (image[2:] == picture()[2:]).all()
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([200, 0, 0, 0, 0, 200])
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png").tolist() == [[[255, 255, 255], [0, 0, 200]], [[0, 0, 200], [255, 255, 255]]]
    with warnings.catch_warnings(action="error"):
        palette.save(tmp_path / "p.png", transparency=b"\x00\xff")
        assert read_image(tmp_path / "p.png")[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_exif_orientation_is_applied(tmp_path, name, orientation):
    """A label at (y, x) is where a person sees it, not where the camera's sensor had it."""
    seen = np.zeros((24, 40, 3), np.uint8)
    seen[:8, :8] = 255  # upper left, on screen
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }[orientation](seen)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / name, exif=exif)
    image = read_image(tmp_path / name)
    assert image.shape == (24, 40, 3)
    assert image[2:6, 2:6].mean() > 240
    assert image[12:].mean() < 5
    assert image[:, 20:].mean() < 5
    if not name.endswith("jpg"):
        Image.fromarray(np.ascontiguousarray(stored[..., 0])).save(tmp_path / "mask.png", exif=exif)
        assert (read_mask(tmp_path / "mask.png") == seen[..., 0]).all()


def encoded(kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(48, 64)).save(file, kind, **options)
    return file.getvalue()


def refused(path: Path) -> str:
    with pytest.raises(UserMistake) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_tiff_on_its_side_is_read_the_same_whether_compressed_or_not(tmp_path, mode, orientation):
    exif, plain, packed = Image.Exif(), tmp_path / "plain.tif", tmp_path / "packed.tif"
    exif[ORIENTATION] = orientation
    grey = Image.fromarray(picture(4, 6)[..., 0])
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256) if mode == "I;16" else grey.convert(mode)
    image.save(plain, exif=exif)
    image.save(packed, exif=exif, compression="tiff_lzw")
    expected = read_image(packed)
    assert expected.shape == (6, 4, 3)
    assert np.array_equal(read_image(plain), expected)
    with Image.open(plain) as opened:
        assert np.array_equal(image_array(opened), expected)
        assert opened.filename == str(plain)
    if mode in ("L", "P", "I;16"):
        assert np.array_equal(read_mask(plain), read_mask(packed))


def test_files_that_are_no_images(tmp_path, monkeypatch):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone.png")
    assert "it is empty" in refused(tmp_path / "empty.png")
    assert "not an image" in refused(tmp_path / "text.png")
    assert "No such file" in refused(tmp_path / "dangling.png")
    assert "directory" in refused(tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
def test_truncated_files(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    data = encoded(kind)
    for share in (0.02, 0.5, 0.8):
        path.write_bytes(data[: int(len(data) * share)])
        refused(path)


def test_a_decompression_bomb_is_refused_and_a_large_photograph_is_no_warning(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert "400000000 pixels" in refused(path)
    Image.new("1", (400, 300)).save(path)
    reads = (
        "import sys, warnings; from pathlib import Path; from PIL import Image; Image.MAX_IMAGE_PIXELS = 100_000\n"
        "if len(sys.argv) > 2: warnings.filterwarnings('always', category=Image.DecompressionBombWarning)\n"
        "from alseg.imagefiles import read_image; print(read_image(Path(sys.argv[1])).shape)"
    )
    for more, warned in ((), False), (("asked",), True):  # whoever asks for the warning gets it
        words = [sys.executable, "-c", reads, path, *more]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout == "(300, 400, 3)\n" and ("DecompressionBombWarning" in done.stderr) == warned


def test_several_images_in_one_file_and_32_bits_are_refused(tmp_path):
    pages = [Image.fromarray(picture()) for _ in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert "holds 3 images" in refused(tmp_path / "pages.tif")
    pages[1] = Image.fromarray(255 - picture())
    pages[0].save(tmp_path / "moving.webp", save_all=True, append_images=pages[1:2])
    assert "holds 2 images" in refused(tmp_path / "moving.webp")
    for number, pixels in enumerate((picture()[..., 0].astype(np.float32), picture()[..., 0].astype(np.int32))):
        Image.fromarray(pixels).save(tmp_path / f"{number}.tif")
        assert "32 bits" in refused(tmp_path / f"{number}.tif")


def test_a_phones_jpeg_with_a_preview_behind_it_is_read(tmp_path):
    image = Image.fromarray(picture(48, 64))
    image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[image.resize((8, 6))])
    assert read_image(tmp_path / "a.jpg").shape == (48, 64, 3)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["png", "jpeg", "webp", "tiff"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, kind, changes):
    """Whatever a decoder raises for broken bytes, it ends as one sentence."""
    data = bytearray(encoded(kind))
    for place, value in changes:
        data[int(place * len(data))] = value
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(data)
    with warnings.catch_warnings(action="ignore"):
        try:
            image = read_image(path)
        except UserMistake:
            return
    assert image.dtype == np.uint8
    assert image.ndim == 3
