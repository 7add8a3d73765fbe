"""From a source to a target, image by image, with all faults reported together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from panoptic.conversion.contract import AnnotatedImage, Source, Target
from panoptic.conversion.files import raise_all


@dataclass
class Report:
    """What was converted.

    Args:
        images: number of images.
        segments: number of segments.
        notes: {what was done about oddities: (how often, name of the first image)}.
        remarks: of the target.
    """

    images: int = 0
    segments: int = 0
    notes: dict[str, tuple[int, str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def count(self, image: AnnotatedImage) -> None:
        """Add an image."""
        self.images += 1
        self.segments += len(image.panoptic_map.segments)
        for note in image.notes:
            times, first = self.notes.get(note, (0, image.image_name))
            self.notes[note] = (times + 1, first)

    def lines(self) -> list[str]:
        """Sentences for the user."""
        noted = [f"{times} times: {note}, first in {first}" for note, (times, first) in sorted(self.notes.items())]
        return [f"{self.images} images with {self.segments} segments", *self.remarks, *noted]


def convert(source: Source, target: Target, *, num_workers: int, advance: Callable[[], None]) -> Report:
    """Read every image and write it; only a few are in memory at a time.

    Args:
        source: read in order.
        target: closed at the end.
        num_workers: threads that read; the libraries that decode release the interpreter's lock.
        advance: called after each image.

    Raises:
        ValueError: images that could not be converted, all of them; the target is not closed then.
    """
    if num_workers < 1:
        raise ValueError(f"expected at least 1 thread, got num_workers={num_workers}")
    report = Report()
    faults: list[str] = []
    for image in _read(source, num_workers):
        try:
            annotated = image.result()
            target.add(annotated)
            report.count(annotated)
        except (ValueError, OSError) as error:
            faults.append(str(error))
        advance()
    raise_all(faults, f"{len(faults)} of {len(source)} images could not be converted, and nothing was written")
    report.remarks = target.close()
    return report


def _read(source: Source, num_workers: int) -> Iterator[Future[AnnotatedImage]]:
    """The images in order; each of the threads is at work on one of the next."""
    with ThreadPoolExecutor(num_workers, thread_name_prefix="reading") as pool:
        pending: deque[Future[AnnotatedImage]] = deque()
        try:
            for index in range(len(source)):
                pending.append(pool.submit(source.__getitem__, index))
                if len(pending) > num_workers:
                    yield pending.popleft()
            yield from pending
        finally:
            for future in pending:
                future.cancel()
