import numpy as np
import pytest
from PIL import Image

from panoptic.data.images import read_image


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
