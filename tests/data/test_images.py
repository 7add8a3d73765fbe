import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from panoptic.data.images import read_grey16_png, read_image, read_index_png, read_rgb_png


def test_a_rotation_in_the_exif_data_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show it
    Image.new("RGB", (32, 16), (200, 10, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (16, 32, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_every_photograph_becomes_rgb(tmp_path, mode):
    Image.new("RGB", (7, 5), (250, 20, 20)).convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (5, 7, 3)
    with Image.open(tmp_path / "a.png") as expected:
        assert image[0, 0].tolist() == list(expected.convert("RGB").getpixel((0, 0)))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("kept", [0, 1, 3, 0.5, 0.99])
def test_a_truncated_image_is_an_error_that_names_it(tmp_path, suffix, kept):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(
        ValueError, match=rf"truncated or damaged image: .*cut\.{suffix} \(.* bytes\); fetch the file again"
    ):
        read_image(path)


def test_bytes_after_the_end_of_a_jpeg_are_allowed(tmp_path):
    path = tmp_path / "long.jpg"
    Image.new("RGB", (70, 50), (200, 10, 10)).save(path)
    whole = read_image(path)
    path.write_bytes(path.read_bytes() + b"camera's notes")
    assert (read_image(path) == whole).all()


def test_a_file_that_is_no_image_is_an_error_that_names_it(tmp_path):
    (tmp_path / "notes.jpg").write_text("no pixels")
    with pytest.raises(ValueError, match=r"truncated or damaged image: .*notes\.jpg"):
        read_image(tmp_path / "notes.jpg")


def test_a_cmyk_photograph_has_the_colours_that_pillow_gives_it(tmp_path):
    cyan = np.zeros((16, 32, 4), dtype=np.uint8)
    cyan[:, :16] = 200, 30, 60, 20
    Image.fromarray(cyan, mode="CMYK").save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as expected:
        difference = np.asarray(expected.convert("RGB")).astype(int) - read_image(tmp_path / "a.jpg")
    assert np.abs(difference).max() <= 3  # two decoders, two roundings
    assert read_image(tmp_path / "a.jpg")[:, :8].mean(axis=(0, 1)).argmin() == 0  # cyan lacks red


@pytest.mark.parametrize("channels", [1, 3])
def test_of_a_photograph_of_16_bits_the_upper_8_are_kept(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 2**16, (5, 7, channels), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values[..., ::-1])
    expected = np.broadcast_to(values >> 8, (5, 7, 3))
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - expected).max() <= 1  # cut off or rounded


def png_that_says(size, colours, *chunks):
    """A PNG with right checksums whose header gives this (height, width)."""
    header = struct.pack(">IIBBBBB", size[1], size[0], 16 if colours == "grey16" else 8, KINDS[colours], 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return data


KINDS = {"grey": 0, "grey16": 0, "rgb": 2, "palette": 3}


@pytest.mark.parametrize(
    ("read", "colours"),
    [
        (read_image, "rgb"),
        (read_rgb_png, "rgb"),
        (read_grey16_png, "grey16"),
        (read_index_png, "grey"),
        (read_index_png, "palette"),
    ],
)
def test_a_header_of_an_impossible_size_is_an_error_that_names_the_file(tmp_path, read, colours):
    path = tmp_path / "huge.png"
    path.write_bytes(
        png_that_says((90_000, 100_000), colours, *([(b"PLTE", bytes(6))] if colours == "palette" else []))
    )
    with pytest.raises(ValueError, match=r"truncated or damaged image: .*huge\.png \(.* bytes\); fetch the file again"):
        read(path)


def test_a_jpeg_of_an_impossible_size_without_its_end_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "huge.jpg"
    Image.new("RGB", (17, 12)).save(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"\xff\xc0") + 5  # of height and width in the frame's header
    data[place : place + 4] = b"\xff" * 4
    for kept in (len(data), len(data) - 2):
        path.write_bytes(data[:kept])
        with pytest.raises(ValueError, match=r"truncated or damaged image: .*huge\.jpg"):
            read_image(path)


@pytest.mark.parametrize("read", [read_image, read_rgb_png, read_grey16_png, read_index_png])
def test_a_missing_file_and_a_link_to_nowhere_are_named(tmp_path, read):
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path / "link.png", tmp_path / "none.png"):
        message = f"no file {path}, or a link that leads nowhere; add the file, or remove what names it"
        with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
            read(path)
