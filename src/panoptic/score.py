"""Score two files in COCO's panoptic format, from any software: `panoptic score TRUTH.json PREDICTION.json`."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panoptic.data.panoptic_entries import ImageId
    from panoptic.data.panoptic_format import PanopticFile
    from panoptic.metrics.functional import CategorySums

# The imports within functions take seconds; without them `--help` and a wrong argument answer at once.


def score_files(truth: PanopticFile, prediction: PanopticFile, *, num_workers: int) -> Iterator[CategorySums]:
    """What each image of the truth adds, in the order of the truth's file, whatever the number of threads.

    Threads suffice: decoding a PNG and counting pixels both release the interpreter's lock.

    Args:
        truth: every annotation in it is scored.
        prediction: read with the truth's categories; images that the truth lacks are not looked at.
        num_workers: threads.

    Raises:
        ValueError: an image without prediction, a size that differs, or a PNG that cannot be read or does not agree
            with its JSON.
        FileNotFoundError: a PNG is missing.
    """
    missing = [image_id for image_id in truth.annotations if image_id not in prediction.annotations]
    if missing:
        raise ValueError(
            f"{prediction.path} has no prediction of image {missing[0]}, which {truth.path} lists "
            f"({len(missing)} of {len(truth.annotations)} images are without prediction)"
        )
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            yield from pool.map(partial(_score_image, truth, prediction), truth.annotations)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _score_image(truth: PanopticFile, prediction: PanopticFile, image_id: ImageId) -> CategorySums:
    """What one image adds."""
    from panoptic.data.panoptic_format import read_panoptic_map
    from panoptic.metrics.functional import sum_image

    maps = []
    for file in (truth, prediction):
        png = file.png_folder / file.annotations[image_id].png_name
        try:
            maps.append(read_panoptic_map(file, file.annotations[image_id]))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"image {image_id} has no PNG {png}, which {file.path} lists") from error
        except ValueError as error:
            raise ValueError(f"image {image_id}: {error}") from error
        if maps[-1].size != maps[0].size:
            raise ValueError(
                f"image {image_id}: {png} has size {maps[-1].size}, but the truth has {maps[0].size} (height, width); "
                "write predictions at the original size"
            )
    return sum_image(maps[1], maps[0], num_categories=len(truth.categories))


def summarize(
    total: CategorySums, truth: PanopticFile, *, normalize_by_image_size: bool = False
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The qualities of a data set as fractions (`pq`, `pq_things`, .., `miou`), and one row per category."""
    from panoptic.metrics.rows import join_category_rows
    from panoptic.metrics.summaries import (
        covering_means,
        covering_rows,
        quality_means,
        quality_rows,
        semantic_means,
        semantic_rows,
    )

    categories = truth.categories
    means = quality_means(total, categories)
    means |= covering_means(total, categories, normalize_by_image_size=normalize_by_image_size)
    means |= semantic_means(total)
    rows = join_category_rows(
        quality_rows(total, categories),
        covering_rows(total, categories, normalize_by_image_size=normalize_by_image_size),
        semantic_rows(total, categories),
    )
    return {name: value.item() for name, value in means.items()}, rows


def write_report(destination: str, values: dict[str, float], rows: Sequence[dict[str, Any]], num_images: int) -> None:
    """Write the numbers as JSON to a file, or to standard output for "-"; nan becomes null."""

    def plain(row: dict[str, Any]) -> dict[str, Any]:
        return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in row.items()}

    report = {"num_images": num_images, **plain(values), "per_category": [plain(row) for row in rows]}
    text = json.dumps(report, indent=1, allow_nan=False)
    if destination == "-":
        print(text)
    else:
        Path(destination).write_text(text + "\n", encoding="utf-8")


def _run(arguments: argparse.Namespace) -> None:
    """Read, score with a progress bar, and report."""
    from rich.console import Console
    from rich.progress import track

    from panoptic.analysis.tables import category_table, quality_table
    from panoptic.data.panoptic_format import read_panoptic_json
    from panoptic.metrics.functional import CategorySums

    if arguments.json not in (None, "-") and Path(arguments.json).exists():
        raise FileExistsError(f"--json {arguments.json} exists, and results are never overwritten; choose another")
    if arguments.json not in (None, "-") and not Path(arguments.json).absolute().parent.is_dir():
        raise FileNotFoundError(f"--json {arguments.json}: no such folder; make it first")
    messages = Console(stderr=True, markup=False, highlight=False)
    truth = read_panoptic_json(arguments.truth, arguments.truth_folder)
    if not truth.annotations:
        raise ValueError(f"{truth.path} has no annotations, so there is nothing to score")
    prediction = read_panoptic_json(arguments.prediction, arguments.prediction_folder, truth.categories)
    surplus = len(prediction.annotations.keys() - truth.annotations.keys())
    if surplus:
        messages.print(f"{surplus} images of {prediction.path} are not in {truth.path} and are left out")
    total = CategorySums.zeros(len(truth.categories))
    images = score_files(truth, prediction, num_workers=arguments.workers)
    num_images = len(truth.annotations)
    for image in track(images, "scoring", total=num_images, console=messages, transient=True):
        total = total + image
    values, rows = summarize(total, truth, normalize_by_image_size=arguments.normalize_by_image_size)
    # the JSON of `--json -` has standard output for itself
    tables = messages if arguments.json == "-" else Console(width=None if sys.stdout.isatty() else 120)
    tables.print(quality_table(values, title=f"{prediction.path.name}, {num_images} images, percent"))
    tables.print(category_table(rows, title="per category, percent"))
    if arguments.json is not None:
        write_report(arguments.json, values, rows, num_images)


def _positive(text: str) -> int:
    """A number of workers."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def _parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="panoptic score", description=__doc__)
    parser.add_argument("truth", type=Path, metavar="TRUTH.json", help="ground truth, COCO panoptic format")
    parser.add_argument("prediction", type=Path, metavar="PREDICTION.json", help="its `categories` are not needed")
    beside = "the folder beside the JSON that has its name"
    parser.add_argument("--truth-folder", type=Path, metavar="FOLDER", help=f"PNGs of the truth; default: {beside}")
    parser.add_argument("--prediction-folder", type=Path, metavar="FOLDER", help=f"PNGs predicted; default: {beside}")
    parser.add_argument("--json", metavar="FILE", help='also write the numbers, as fractions; "-" is standard output')
    parser.add_argument("--workers", type=_positive, default=os.cpu_count() or 1, help="threads; default: all cores")
    parser.add_argument(
        "--normalize-by-image-size",
        action="store_true",
        help="weigh segments in PC by their share of the image, as in DeeperLab's published numbers",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `panoptic score`; 0 if the files could be scored, 1 with a message on stderr if they could not."""
    arguments = _parser().parse_args(argv)
    try:
        _run(arguments)
    except (OSError, ValueError) as error:
        print(f"panoptic score: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
