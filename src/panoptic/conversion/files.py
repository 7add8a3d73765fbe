"""Folders of photographs and maps: what belongs together, and whether it can."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Suffixes of photographs, in small letters."""

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = 1
_QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations whose width is the height of the photograph as it is stored."""


def existing_folder(folder: Path | str, option: str) -> Path:
    """The folder with "~" filled in; raises FileNotFoundError, naming the option, if it is none."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"{option}={folder}: no such folder")
    return path


def index_files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """{path within the folder without suffix: file}, in order, through links and folders below; hidden files left out.

    Names that differ only in how Unicode writes an accent are one name, for archives made on macOS.

    Args:
        folder: searched.
        suffixes: ends of file names, compared in small letters.

    Raises:
        ValueError: two files of one name.
    """
    found: dict[str, Path] = {}
    for path in _files_below(folder):
        name = unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
        suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix.lower())), None)
        if suffix is None:
            continue
        key = name[: -len(suffix)]
        if key in found:
            raise ValueError(f"{found[key]} and {path} have one name without suffix; rename one of them")
        found[key] = path
    return found


def _files_below(folder: Path) -> list[Path]:
    """Files and links in a folder and below, each folder once, in order of their names."""
    seen: set[str] = set()
    files: list[Path] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        is_new = os.path.realpath(parent) not in seen
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if is_new and not name.startswith("."))
        files += [Path(parent, name) for name in sorted(names) if is_new and not name.startswith(".")]
    return sorted(files)


def check_pairs(ours: Mapping[str, Path], others: Mapping[str, Path], what: str, other: str) -> None:
    """Raise unless both have the same keys.

    Args:
        ours: {key: file}.
        others: {key: file}.
        what: the first are, such as "map in annotations/".
        other: the same of the others.

    Raises:
        ValueError: none at all, or files without partner, all of them.
    """
    if not ours:
        raise ValueError(f"no {what}; check the folder and the suffix")
    alone = [f"{ours[key]} has no {other}" for key in ours if key not in others]
    alone += [f"{others[key]} has no {what}" for key in others if key not in ours]
    raise_all(alone, f"{len(alone)} files have no partner; add those or remove these")


def raise_all(faults: Iterable[str], summary: str) -> None:
    """Raise ValueError with all faults, one a line, if there are any."""
    lines = list(faults)
    if lines:
        raise ValueError("\n  ".join([f"{summary}:", *lines]))


def check_photograph(path: Path, size: tuple[int, int]) -> None:
    """Raise unless a photograph can be opened and has the size (H, W) of its annotation; its pixels are not decoded.

    Reading ignores a rotation in EXIF data. One that its annotation took into account, or may have, is a fault.

    Raises:
        FileNotFoundError: no such file, or a link that leads nowhere.
        ValueError: no photograph, another size, or a rotation.
    """
    stored, orientation = photograph_header(path)
    turned = (stored[1], stored[0])
    if orientation in _QUARTER_TURNS and stored == size != turned:
        return  # annotated as it is stored
    if orientation != _UPRIGHT and size in (stored, turned):
        raise ValueError(
            f"{path} has EXIF orientation {orientation}, which reading ignores, and is annotated as turned or may be; "
            "store it upright (as `mogrify -auto-orient` does), and convert again"
        )
    if stored != size:
        raise ValueError(f"{path} has size {stored}, but its annotation {size} (height, width)")


def photograph_header(path: Path) -> tuple[tuple[int, int], int]:
    """Size (H, W) as stored, and EXIF orientation 1..8 (1 is upright), without decoding pixels.

    Raises:
        FileNotFoundError: no such file, or a link that leads nowhere.
        ValueError: no photograph.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no photograph {path}, or a link that leads nowhere")
    try:
        with Image.open(path) as photograph:
            width, height = photograph.size
            # Pillow would decode a PNG to look for EXIF data after its pixels
            has_exif = photograph.format != "PNG" or "exif" in photograph.info
            orientation = photograph.getexif().get(_EXIF_ORIENTATION, _UPRIGHT) if has_exif else _UPRIGHT
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no image that can be read ({path.stat().st_size} bytes); fetch it again") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's ways to say that data is missing
        raise ValueError(f"{path} is damaged: {error}; fetch it again") from None
    return (height, width), int(orientation)
