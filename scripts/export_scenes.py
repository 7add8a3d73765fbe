"""Write synthetic scenes as files in COCO's panoptic format, with their overlapping instance masks beside them.

The folder holds images/*.png, panoptic_<split>.json with the folder panoptic_<split>/ of PNGs, and
instances_<split>.json; `panoptic.data.coco.CocoPanoptic` reads it back.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import faster_coco_eval.core.mask as coco_mask
import numpy as np
from rich.progress import track
from torch import Tensor

from panoptic.data.panoptic_writer import PanopticWriter
from panoptic.data.scene_difficulty import DIFFICULTIES
from panoptic.data.scenes import SPLITS, Scenes
from panoptic.structures import Category, Instances


def export_scenes(scenes: Scenes, out: Path) -> None:
    """Write all of `scenes` to the new folder `out`, which appears when it is complete.

    Raises:
        FileExistsError: `out` exists already.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already; remove it or choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        (folder / "images").mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        with PanopticWriter(folder / f"panoptic_{scenes.split}.json", scenes.categories) as writer:
            for index in track(range(len(scenes)), f"drawing {scenes.split}"):
                sample = scenes[index]
                name = Path(sample.file_name).name
                write_image(folder / "images" / name, sample.image)
                assert sample.panoptic_map is not None
                assert sample.instances is not None
                writer.add(sample.panoptic_map, image_id=sample.image_id, image_name=name)
                height, width = sample.size
                images.append({"id": sample.image_id, "file_name": name, "height": height, "width": width})
                annotations += instance_entries(sample.instances, sample.image_id, first_id=len(annotations) + 1)
        content = {"images": images, "annotations": annotations, "categories": thing_entries(scenes.categories)}
        (folder / f"instances_{scenes.split}.json").write_text(json.dumps(content))
        folder.rename(out)


def write_image(path: Path, image: Tensor) -> None:
    """Write (3, H, W) uint8 RGB as a PNG."""
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(image.numpy()[::-1].transpose(1, 2, 0)))
    if not encoded:
        raise ValueError(f"could not encode an image of shape {tuple(image.shape)} for {path}")
    path.write_bytes(data.tobytes())


def instance_entries(instances: Instances, image_id: int | str, first_id: int) -> list[dict[str, Any]]:
    """One entry of COCO's `annotations` per instance, in order; masks as run lengths, `bbox` as x y width height."""
    entries = []
    for number, mask in enumerate(instances.masks.numpy()):
        runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        x1, y1, x2, y2 = instances.boxes[number].tolist()
        entries.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": int(instances.category_ids[number]),
                "segmentation": {"size": list(mask.shape), "counts": runs["counts"].decode("ascii")},
                "area": int(mask.sum()),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": int(instances.is_crowd[number]),
            }
        )
    return entries


def thing_entries(categories: Sequence[Category]) -> list[dict[str, Any]]:
    """The instances JSON's list of categories: the things."""
    return [
        {"id": category.id, "name": category.name, "supercategory": category.group}
        for category in categories
        if category.is_thing
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--length", type=int, default=20, help="number of scenes")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 192), metavar=("HEIGHT", "WIDTH"), help="in pixels")
    parser.add_argument("--difficulty", choices=list(DIFFICULTIES), default="easy")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        height, width = options.size
        scenes = Scenes(options.split, options.length, (height, width), options.difficulty, options.seed)
        export_scenes(scenes, options.out.expanduser())
    except (ValueError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.length} scenes in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
