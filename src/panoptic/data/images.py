"""Decoding of image files: whole or not at all, with the file's name in every error."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from panoptic.data.faults import DataError, Kind, MissingFileError, is_recording, read_bytes, report_each, warn

WRITTEN_OTHERWISE = "there is one whose accents Unicode writes otherwise (NFC, NFD); rename it"
"""Advice for a file that seems to be there."""

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"

_PNG_DEPTH, _PNG_COLOURS, _PNG_HEADER = 24, 25, 26
"""Bytes of a PNG's header (IHDR): where it has the bits per value and the kind of colours, and how many to read."""

_PNG_KINDS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
"""Names of the specification's kinds of colours."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read a photograph: (H, W, 3) uint8, RGB; a rotation in its EXIF data is ignored, as COCO's annotations expect.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged or not an image.
    """
    data = read_bytes(path)
    pixels = _decode(path, data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if is_recording() and data.startswith((_JPEG_START, _PNG_START)):
        _warn_if_turned(path, data)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _warn_if_turned(path: Path, data: bytes) -> None:
    """Warn of a photograph that other programmes show turned, by which its annotation may have been made."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, Image.DecompressionBombError):  # OpenCV read it, and only its EXIF data are wanted
        return
    if orientation != 1:
        message = f"{path} is to be shown turned (EXIF orientation {orientation}), but is read as it is stored"
        warn(DataError(message, kind=Kind.TURNED, file=path))


def read_rgb_png(path: Path) -> NDArray[np.uint8]:
    """Read a PNG of three 8-bit channels without any conversion: (H, W, 3) uint8, in the order blue, green, red.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, or not a PNG of three 8-bit channels.
    """
    return _decode_png(path, read_bytes(path), b"\x08\x02", "three 8-bit channels (RGB)")


def read_grey16_png(path: Path) -> NDArray[np.uint16]:
    """Read a PNG of one 16-bit channel without any conversion: (H, W) uint16.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, or not a PNG of one 16-bit channel.
    """
    data = read_bytes(path)
    return _decode_png(path, data, b"\x10\x00", "one 16-bit channel (grey)")  # type: ignore[return-value]


def read_index_png(path: Path) -> NDArray[np.uint8]:
    """Read a PNG of palette indices, or of one 8-bit channel, without any conversion: (H, W) uint8.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, or a PNG of another kind, such as one that was saved as RGB.
    """
    data = read_bytes(path)
    if data.startswith(_PNG_START) and data[_PNG_COLOURS:_PNG_HEADER] == b"\x03":
        return _palette_indices(path, data)
    return _decode_png(path, data, b"\x08\x00", "palette indices, or one 8-bit channel (grey)")


def _palette_indices(path: Path, data: bytes) -> NDArray[np.uint8]:
    """(H, W) uint8 of a PNG with a palette, of which OpenCV would give the colours."""
    if _PNG_END not in data:  # Pillow does not mind
        raise _damaged(path, data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's ways to say that it is damaged
        raise _damaged(path, data) from error


def _damaged(path: Path, data: bytes) -> DataError:
    message = f"truncated or damaged image: {path} ({len(data)} bytes); fetch the file again"
    return DataError(message, kind=Kind.UNREADABLE, file=path)


def _decode_png(path: Path, data: bytes, kind: bytes, described: str) -> NDArray[np.uint8]:
    """Decode a PNG that must be of one kind: the header's bit depth and kind of colours."""
    is_png = data.startswith(_PNG_START)
    if len(data) < _PNG_HEADER and (is_png or _PNG_START.startswith(data)):
        raise _damaged(path, data)
    if not is_png or data[_PNG_DEPTH:_PNG_HEADER] != kind:
        found = f"one of {data[_PNG_DEPTH]} bits, {_PNG_KINDS.get(data[_PNG_COLOURS])}" if is_png else "no PNG"
        message = f"expected a PNG with {described}, got {found}: {path}; use the original, converting loses its values"
        raise DataError(message, kind=Kind.UNREADABLE, file=path)
    return _decode(path, data, cv2.IMREAD_UNCHANGED)


def _decode(path: Path, data: bytes, flags: int) -> NDArray[np.uint8]:
    """Decode the bytes of a file with OpenCV, which on its own fills what a truncated JPEG lacks with grey."""
    complete = True
    if data.startswith(_PNG_START):
        complete = data.endswith(_PNG_END)
    elif data.startswith(_JPEG_START) and not data.rstrip(b"\x00").endswith(_JPEG_END):
        complete = _pillow_reads(data)  # slow, only for files with something after their end, or without one
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags) if complete and data else None
    except cv2.error as error:  # of a header that gives a size beyond OpenCV's limit
        raise _damaged(path, data) from error
    if pixels is None:
        raise _damaged(path, data)
    return pixels  # type: ignore[return-value]


def _pillow_reads(data: bytes) -> bool:
    """Whether Pillow, which is strict about missing data, decodes the image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, Image.DecompressionBombError):
        return False
    return True


def is_written_otherwise(name: str, names: Iterable[str]) -> bool:
    """Whether a name is among others but for how Unicode writes accents, which archives made on macOS change."""
    return unicodedata.normalize("NFC", name) in {unicodedata.normalize("NFC", other) for other in names}


def check_images_present(paths: Sequence[Path], listed_in: Path) -> None:
    """Raise FileNotFoundError unless every image is there.

    Args:
        paths: of the images.
        listed_in: the file that names them, for errors.
    """
    present = {entry for folder in {path.parent for path in paths} if folder.is_dir() for entry in folder.iterdir()}
    missing = [path for path in paths if path not in present]
    if missing:
        counted = f"{len(missing)} of {len(paths)} images of {listed_in} are missing, the first is {missing[0]}"
        is_there = is_written_otherwise(str(missing[0]), map(str, present))
        message = f"{counted}; {WRITTEN_OTHERWISE if is_there else 'check the option image_folder'}"
        error = MissingFileError(message, kind=Kind.MISSING_FILE)
        report_each(error, ((path, f"no image {path}, which {listed_in} lists") for path in missing))
