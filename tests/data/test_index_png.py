import re

import numpy as np
import pytest
from PIL import Image

from panoptic.data.images import read_index_png

VALUES = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)


def with_palette(values, colours=256):
    image = Image.fromarray(values)
    image.putpalette([channel for value in range(colours) for channel in (255 - value, value, 7)])
    return image


def test_indices_of_a_palette_come_back_not_its_colours(tmp_path):
    with_palette(VALUES).save(tmp_path / "a.png")
    assert np.array_equal(read_index_png(tmp_path / "a.png"), VALUES)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_indices_may_have_fewer_bits(tmp_path, bits):
    values = VALUES % 2**bits
    with_palette(values, 2**bits).save(tmp_path / "a.png", bits=bits)
    assert (tmp_path / "a.png").read_bytes()[24] == bits
    assert np.array_equal(read_index_png(tmp_path / "a.png"), values)


def test_grey_values_come_back(tmp_path):
    Image.fromarray(VALUES).save(tmp_path / "a.png")
    assert np.array_equal(read_index_png(tmp_path / "a.png"), VALUES)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "one of 8 bits, RGB"),
        ("RGBA", "one of 8 bits, RGB with alpha"),
        ("LA", "one of 8 bits, grey with alpha"),
        ("1", "one of 1 bits, grey"),
        ("I;16", "one of 16 bits, grey"),
    ],
)
def test_another_kind_of_png_is_an_error_that_names_it_and_what_it_is(tmp_path, mode, kind):
    Image.new(mode, (7, 5)).save(tmp_path / "other.png")
    expected = f"expected a PNG with palette indices, or one 8-bit channel (grey), got {kind}: "
    with pytest.raises(ValueError, match=re.escape(expected) + r".*other\.png; use the original, converting loses its"):
        read_index_png(tmp_path / "other.png")


def test_a_photograph_is_an_error_that_names_it(tmp_path):
    Image.new("L", (7, 5)).save(tmp_path / "photo.jpg")
    with pytest.raises(ValueError, match=r"expected a PNG with palette indices.*, got no PNG: .*photo\.jpg"):
        read_index_png(tmp_path / "photo.jpg")


@pytest.mark.parametrize("kept", [0, 1, 25, 26, 40, 0.5, 0.99, -13, -1])
def test_a_truncated_palette_png_is_an_error_that_names_it(tmp_path, kept):
    path = tmp_path / "cut.png"
    with_palette(VALUES).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(ValueError, match=r"truncated or damaged image: .*cut\.png \(.* bytes\); fetch the file again"):
        read_index_png(path)


def test_damaged_pixels_of_a_palette_png_are_an_error(tmp_path):
    path = tmp_path / "hit.png"
    with_palette(VALUES).save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 40] ^= 64
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"truncated or damaged image: .*hit\.png"):
        read_index_png(path)
