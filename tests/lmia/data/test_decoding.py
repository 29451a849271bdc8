"""The same picture in another form is the same picture, or is refused by its name."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lmia.data.decoding import SUFFIXES, count_frames, decode
from lmia.specs import RequestError

DRAW = np.random.default_rng(7)
GREY = DRAW.integers(0, 256, (9, 12), dtype=np.uint8)
COLOUR = DRAW.integers(0, 256, (9, 12, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(COLOUR).resize((64, 48), Image.Resampling.BICUBIC))


def saved(image: Image.Image, form: str, **more) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **more)
    return sink.getvalue()


@given(st.sampled_from(["PNG", "TIFF", "PPM"]), st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_sixteen_bit_grey_is_what_eight_bit_grey_is(form, low, high):
    grey = np.clip(GREY, *sorted((low, high)))
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    assert np.array_equal(decode(saved(wide, form), "wide"), decode(saved(Image.fromarray(grey), form), "narrow"))


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_of_either_byte_order(order):
    name = "I;16" if order == "<" else "I;16B"
    image = Image.frombytes(name, GREY.shape[::-1], (GREY.astype(np.uint16) * 257).astype(f"{order}u2").tobytes())
    assert np.array_equal(decode(saved(image, "TIFF"), "x")[..., 0], GREY)


def test_sixteen_bit_colour_png_is_what_eight_bit_colour_is():
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    high, wide, _ = COLOUR.shape
    rows = b"".join(b"\0" + (row.astype(np.uint16) * 257).astype(">u2").tobytes() for row in COLOUR)
    header = struct.pack(">IIBBBBB", wide, high, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(decode(png, "x"), COLOUR)


@pytest.mark.parametrize("values", [GREY.astype(np.int32) * 257, GREY.astype(np.float32) / 255])
def test_numbers_that_name_no_white_are_refused_by_name(values):
    with pytest.raises(RequestError, match=r"'face.tif' cannot be read.*8 or 16 bit"):
        decode(saved(Image.fromarray(values), "TIFF"), "face.tif")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_that_has_colours_of_eight_bit_is_read(mode):
    image = Image.fromarray(SMOOTH).convert(mode)
    got = decode(saved(image, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"), mode)
    assert got.dtype == np.uint8 and got.shape == SMOOTH.shape
    assert abs(got.mean() - SMOOTH.mean()) < 25


@pytest.mark.parametrize(
    ("form", "most"), [("AVIF", 12), ("HEIF", 12), ("WEBP", 12), ("JPEG", 12), ("JPEG2000", 0), ("GIF", 30), ("TGA", 0)]
)
def test_formats_that_phones_browsers_and_trainers_write(form, most):
    import pillow_heif

    pillow_heif.register_heif_opener()
    got = decode(saved(Image.fromarray(SMOOTH), form), form)
    assert np.abs(got.astype(int) - SMOOTH).mean() <= most


def test_known_endings_are_those_of_formats_that_can_be_read():
    import pillow_heif

    pillow_heif.register_heif_opener()
    known = Image.registered_extensions()
    assert {suffix for suffix in SUFFIXES if suffix not in known} == set()
    assert {suffix for suffix in SUFFIXES if known[suffix] not in Image.OPEN} <= {".mpo"}  # which the JPEG reader opens


def test_a_picture_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    got = decode(saved(Image.fromarray(COLOUR), "PNG", exif=exif), "x")
    assert np.array_equal(got, np.rot90(COLOUR, -1))


def test_further_frames_are_counted_except_where_they_are_the_same_picture():
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    moving = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert count_frames(moving) == 2
    assert count_frames(saved(frames[0], "PNG")) == 1
    assert count_frames(b"nothing") == 1
    assert np.array_equal(decode(moving, "x")[..., 0], GREY)


@given(st.binary(max_size=200), st.integers(0, 200))
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_refused_by_name_whatever_they_are(junk, at):
    whole = saved(Image.fromarray(COLOUR), "PNG")
    for data in (junk, whole[:at], whole[:at] + junk + whole[at + len(junk) :]):
        try:
            decode(data, "face.png")
        except RequestError as error:
            assert "'face.png'" in str(error) and "0x" not in str(error)
