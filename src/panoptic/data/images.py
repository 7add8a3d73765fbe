"""Decoding of image files: whole or not at all, with the file's name in every error."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a photograph: (H, W, 3) uint8, RGB; a rotation in its EXIF data is ignored, as COCO's annotations expect.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged or not an image.
    """
    pixels = _decode(path, path.read_bytes(), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def read_rgb_png(path: Path) -> NDArray[np.uint8]:
    """Read a PNG of three 8-bit channels without any conversion: (H, W, 3) uint8, in the order blue, green, red.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, or not a PNG of three 8-bit channels.
    """
    return _read_png(path, b"\x08\x02", "three 8-bit channels (RGB)")


def read_grey16_png(path: Path) -> NDArray[np.uint16]:
    """Read a PNG of one 16-bit channel without any conversion: (H, W) uint16.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, or not a PNG of one 16-bit channel.
    """
    return _read_png(path, b"\x10\x00", "one 16-bit channel (grey)")  # type: ignore[return-value]


def _read_png(path: Path, kind: bytes, described: str) -> NDArray[np.uint8]:
    """A PNG of one kind: bit depth and colour type, which the specification (IHDR) has at bytes 24 and 25."""
    data = path.read_bytes()
    if not data.startswith(_PNG_START) or data[24:26] != kind:
        raise ValueError(f"expected a PNG with {described}, got another kind of file: {path}")
    return _decode(path, data, cv2.IMREAD_UNCHANGED)


def _decode(path: Path, data: bytes, flags: int) -> NDArray[np.uint8]:
    """Decode the bytes of a file with OpenCV, which on its own fills what a truncated JPEG lacks with grey."""
    complete = True
    if data.startswith(_PNG_START):
        complete = data.endswith(_PNG_END)
    elif data.startswith(_JPEG_START) and not data.rstrip(b"\x00").endswith(_JPEG_END):
        complete = _pillow_reads(data)  # slow, only for files with something after their end, or without one
    pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags) if complete and data else None
    if pixels is None:
        raise ValueError(f"truncated or damaged image: {path} ({len(data)} bytes); fetch the file again")
    return pixels  # type: ignore[return-value]


def _pillow_reads(data: bytes) -> bool:
    """Whether Pillow, which is strict about missing data, decodes the image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except OSError:
        return False
    return True
