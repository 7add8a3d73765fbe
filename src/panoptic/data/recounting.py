"""Areas and boxes of a panoptic JSON counted anew from its PNGs, into a new file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from panoptic.data.extents import measure_segments
from panoptic.data.panoptic_format import PanopticFile, read_panoptic_png, write_atomically


def write_recounted(file: PanopticFile, target: Path) -> int:
    """Write a copy of the JSON in which every segment has the area and the box that its PNG gives.

    Args:
        file: with no other faults than areas and boxes.
        target: the new JSON; nothing is overwritten.

    Returns:
        The number of segments that changed.

    Raises:
        FileExistsError: the target is there already.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already, and nothing is overwritten; choose another fix=")
    content = json.loads(file.path.read_bytes())
    changed = sum(
        _recount(entry["segments_info"], file.png_folder / entry["file_name"]) for entry in content["annotations"]
    )
    write_atomically(target, json.dumps(content).encode())
    return changed


def _recount(infos: list[dict[str, Any]], png: Path) -> int:
    """Change the entries of one image; the number of those that were others before."""
    extents = measure_segments(read_panoptic_png(png).numpy(), [info["id"] for info in infos])
    changed = 0
    for info, area, (x1, y1, x2, y2) in zip(infos, extents.areas.tolist(), extents.boxes.tolist(), strict=True):
        counted = {"area": area, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        changed += any(info.get(key) != value for key, value in counted.items())
        info.update(counted)
    return changed
