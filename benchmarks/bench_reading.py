"""Images per second that one worker reads of each format, beside the plain decoding of the same files.

Run with `python benchmarks/bench_reading.py`; half a minute. Files of 480 x 640 pixels are written to a temporary
folder: photographs as JPEG (of Cityscapes as PNG), ground truth of 60 things on four bands of stuff. Plain is
`cv2.imread` of the photograph and Pillow's decoding of each PNG of ground truth; of COCO's instances, the drawing of
each polygon by faster-coco-eval. Times are the processor's, of one thread with warm files: what else the machine does
changes them little.
"""

import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import faster_coco_eval.core.mask as coco_mask
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from panoptic.data.cityscapes import Cityscapes
from panoptic.data.cityscapes_semantic import CityscapesSemantic
from panoptic.data.coco import CocoPanoptic
from panoptic.data.coco_instances import CocoInstances
from panoptic.data.coco_stuff import CocoStuff
from panoptic.data.loading import worker_init_fn
from panoptic.data.mapillary import MapillaryVistas
from panoptic.data.voc import VOC2012

SIZE = (480, 640)
NUM_IMAGES = 4
NUM_THINGS = 60
ROUNDS = 11
BAR = 1.5
"""A format may take this many times as long as its plain decoding."""

PERSON, ROAD, BUILDING, VEGETATION, SKY = 24, 7, 11, 21, 23
"""Cityscapes' label ids."""


def ellipse(number, seed):
    """((x, y), (half axes), angle) of one thing."""
    rng = np.random.default_rng((seed, number))
    return (
        tuple(rng.integers((0, 0), SIZE[::-1]).tolist()),
        tuple(rng.integers(8, 45, 2).tolist()),
        int(rng.integers(180)),
    )


def number_map(seed):
    """(H, W) uint8: 0..3 bands of stuff, 4.. things, some covered by later ones."""
    canvas = np.repeat((4 * np.arange(SIZE[0]) // SIZE[0])[:, None], SIZE[1], axis=1).astype(np.uint8)
    for number in range(NUM_THINGS):
        centre, axes, angle = ellipse(number, seed)
        cv2.ellipse(canvas, centre, axes, angle, 0, 360, 4 + number, thickness=-1)
    return canvas


def photograph(seed):
    """(H, W, 3) uint8 with the detail of a photograph: noise of several sizes."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((*SIZE, 3), dtype=np.float32)
    for step, strength in ((64, 60), (16, 30), (4, 15), (1, 5)):
        noise = rng.normal(0, strength, (SIZE[0] // step + 1, SIZE[1] // step + 1, 3)).astype(np.float32)
        picture += cv2.resize(noise, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + 128, 0, 255).astype(np.uint8)


def write_pairs(photographs, truths, suffix, values_of):
    """Write a photograph `<n>` + suffix and a PNG of ground truth for each pair of paths, and return the pairs."""
    pairs = []
    for number in range(NUM_IMAGES):
        pair = photographs / f"{number:06}{suffix}", truths[0] / f"{number:06}{truths[1]}"
        for path in pair:
            path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(pair[0]), photograph(number))
        values = values_of[number_map(number)]
        Image.fromarray(values).save(pair[1])
        pairs.append(pair)
    return pairs


def coco_panoptic(root):
    """COCO panoptic format: a JSON and PNGs of three channels."""
    ids = np.arange(4 + NUM_THINGS) * 70001 + 1
    channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    pairs = write_pairs(root / "images", (root / "panoptic", ".png"), ".jpg", channels)
    categories = [{"id": n + 1, "name": f"category {n}", "isthing": int(n >= 4)} for n in range(5)]
    images, annotations = [], []
    for number, (image, png) in enumerate(pairs):
        infos = []
        for value, area in enumerate(np.bincount(number_map(number).ravel()).tolist()):
            if area:
                infos.append({"id": int(ids[value]), "category_id": min(value, 4) + 1, "iscrowd": 0, "area": area})
        images.append({"id": number, "file_name": image.name, "height": SIZE[0], "width": SIZE[1]})
        annotations.append({"image_id": number, "file_name": png.name, "segments_info": infos})
    path = root / "panoptic.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return CocoPanoptic(path, root / "images"), pairs


def cityscapes_values(things):
    """(64,) values of `number_map`: labels of stuff, and of each thing what `things` says of its number."""
    return np.array([SKY, BUILDING, VEGETATION, ROAD, *(things(number) for number in range(NUM_THINGS))])


def cityscapes(root):
    """Cityscapes' instance ids of 16 bits."""
    values = cityscapes_values(lambda number: 1000 * PERSON + number).astype(np.uint16)
    truths = root / "gtFine" / "val" / "ulm", "_gtFine_instanceIds.png"
    pairs = write_pairs(root / "leftImg8bit" / "val" / "ulm", truths, "_leftImg8bit.png", values)
    return Cityscapes(root, "val"), pairs


def cityscapes_semantic(root):
    """Cityscapes' label ids of 8 bits."""
    values = cityscapes_values(lambda number: PERSON).astype(np.uint8)
    truths = root / "gtFine" / "val" / "ulm", "_gtFine_labelIds.png"
    pairs = write_pairs(root / "leftImg8bit" / "val" / "ulm", truths, "_leftImg8bit.png", values)
    return CityscapesSemantic(root, "val"), pairs


def mapillary(root):
    """Mapillary's instances of 16 bits."""
    labels = [
        {"name": f"group--label-{n}", "readable": f"label {n}", "instances": n == 4, "evaluate": True, "color": [n] * 3}
        for n in range(5)
    ]
    root.mkdir()
    (root / "config.json").write_text(json.dumps({"labels": labels}))
    values = np.array([0, 256, 512, 768, *(1024 + number for number in range(NUM_THINGS))], dtype=np.uint16)
    folder = root / "validation"
    pairs = write_pairs(folder / "images", (folder / "instances", ".png"), ".jpg", values)
    return MapillaryVistas(root, "validation"), pairs


def coco_stuff(root):
    """COCO-Stuff's maps of 8 bits."""
    values = np.array([105, 95, 168, 148, *(number % 11 for number in range(NUM_THINGS))], dtype=np.uint8)
    pairs = write_pairs(root / "images", (root / "maps", ".png"), ".jpg", values)
    return CocoStuff(root / "images", root / "maps"), pairs


def voc(root, labels):
    """VOC's palette PNGs; with `labels="panoptic"` those of objects too."""
    values = np.array([0, 0, 0, 0, *(1 + number % 20 for number in range(NUM_THINGS))], dtype=np.uint8)
    pairs = write_pairs(root / "JPEGImages", (root / "SegmentationClass", ".png"), ".jpg", values)
    numbers = np.array([0, 0, 0, 0, *range(1, NUM_THINGS + 1)], dtype=np.uint8)
    others = write_pairs(root / "JPEGImages", (root / "SegmentationObject", ".png"), ".jpg", numbers)
    for path in [*(root / "SegmentationClass").iterdir(), *(root / "SegmentationObject").iterdir()]:
        with Image.open(path) as image:
            palette = image.convert("L")
        palette.putpalette(list(range(256)) * 3)
        palette.save(path)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("".join(f"{pair[0].stem}\n" for pair in pairs))
    if labels == "panoptic":
        pairs = [(*pair, other[1]) for pair, other in zip(pairs, others, strict=True)]
    return VOC2012(root, "val", labels=labels), pairs


def coco_instances(root):
    """COCO's instances format; in place of PNGs the polygons."""
    (root / "images").mkdir(parents=True)
    images, annotations, pairs = [], [], []
    for number in range(NUM_IMAGES):
        path = root / "images" / f"{number:06}.jpg"
        cv2.imwrite(str(path), photograph(number))
        images.append({"id": number, "file_name": path.name, "height": SIZE[0], "width": SIZE[1]})
        polygons = []
        for thing in range(NUM_THINGS):
            points = cv2.ellipse2Poly(*ellipse(thing, number), 0, 360, 15)
            polygons.append([points.clip((0, 0), SIZE[::-1]).ravel().tolist()])
            entry = {"id": len(annotations), "image_id": number, "category_id": 1 + thing % 5, "iscrowd": 0}
            annotations.append({**entry, "segmentation": polygons[-1]})
        pairs.append((path, polygons))
    categories = [{"id": 1 + n, "name": f"category {n}"} for n in range(5)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    return CocoInstances(root / "instances.json", root / "images"), pairs


FORMATS = {
    "COCO panoptic": coco_panoptic,
    "COCO-Stuff": coco_stuff,
    "Cityscapes, instance ids": cityscapes,
    "Cityscapes, label ids": cityscapes_semantic,
    "Mapillary, instances": mapillary,
    "VOC, classes": partial(voc, labels="semantic"),
    "VOC, classes and objects": partial(voc, labels="panoptic"),
    "COCO instances, 60 polygons": coco_instances,
}


def decode(image, *truths):
    """The plain way; what is no path is a list of polygons."""
    cv2.imread(str(image))
    for truth in truths:
        if isinstance(truth, Path):
            with Image.open(truth) as png:
                np.asarray(png)
        else:
            for polygons in truth:
                coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *SIZE)))


def milliseconds(work):
    """Of the processor, for one image."""
    start = time.process_time()
    for number in range(NUM_IMAGES):
        work(number)
    return 1000 * (time.process_time() - start) / NUM_IMAGES


def main():
    """Print the ratios and whether they pass; the exit status is 1 if one does not."""
    worker_init_fn(0)
    table = Table("format", "plain (ms)", "read (ms)", "images / s", "ratio", "bar", "", title="reading 480 x 640")
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, write) in enumerate(FORMATS.items()):
            dataset, pairs = write(Path(folder) / str(number))
            rounds = []
            for _ in range(ROUNDS + 1):  # the first one compiles
                plain = milliseconds(lambda index: decode(*pairs[index]))  # noqa: B023, called before the next format
                rounds.append((plain, milliseconds(dataset.__getitem__)))
            plain, read = (statistics.median(times) for times in zip(*rounds[1:], strict=True))
            ratio = statistics.median(theirs / ours for ours, theirs in rounds[1:])
            passed &= ratio <= BAR
            verdict = "[green]pass" if ratio <= BAR else "[red]fail"
            times = f"{plain:.2f}", f"{read:.2f}", f"{1000 / read:.0f}"
            table.add_row(name, *times, f"{ratio:.2f}", f"<= {BAR:.2f}", verdict)
    Console().print(table)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
