"""Reading every sample of a data set as training will, for all of its faults at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import DataLoader, Dataset

from panoptic.data.contents import ImageContents, SplitContents, contents_of
from panoptic.data.faults import DataError, Finding, Kind, recorded_faults, warn
from panoptic.data.loading import SampleDataset, worker_init_fn


@dataclass(frozen=True)
class CheckedImage:
    """What reading one sample gave.

    Args:
        contents: None where it could not be read.
        findings: faults and warnings.
    """

    contents: ImageContents | None
    findings: list[Finding]


@dataclass(frozen=True, eq=False)
class _Checker(Dataset[CheckedImage]):
    """The samples of a data set as plain numbers and findings, cheap to send from a worker."""

    samples: SampleDataset

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> CheckedImage:
        contents = None
        with recorded_faults() as findings:
            try:
                contents = contents_of(self.samples[index], index, self.samples.categories)
            except Exception as error:
                error.add_note(f"while reading sample {index}, counted from 0")
                raise
            if contents.has_truth and not contents.pixels:
                message = f"image {contents.file_name} has no labelled pixel, all of it is void"
                warn(DataError(message, kind=Kind.ALL_VOID, file=contents.file_name))
        return CheckedImage(contents, [_with_sample(finding, index) for finding in findings])


def _with_sample(finding: Finding, index: int) -> Finding:
    """The finding, with the number of its sample where it does not know its file."""
    if finding.file is not None:
        return finding
    return replace(finding, message=f"sample {index}, counted from 0: {finding.message}")


def _as_is(image: Any) -> Any:
    """In the place of the loader's own conversion to tensors."""
    return image


class SplitCheck:
    """One split: open it, read its images, and see what was found.

    Args:
        name: "train" and so on.
        opened: makes the data set; that it cannot be made is a finding too.
    """

    def __init__(self, name: str, opened: Callable[[], SampleDataset]) -> None:
        self.name = name
        self.samples: SampleDataset | None = None
        with recorded_faults() as self.findings:
            self.samples = opened()
        self.contents = SplitContents([] if self.samples is None else self.samples.categories)
        self._missing = {finding.file for finding in self.findings if finding.kind == Kind.MISSING_FILE}

    @property
    def num_images(self) -> int:
        """Samples; 0 where the split could not be opened."""
        return 0 if self.samples is None else len(self.samples)

    @property
    def errors(self) -> list[Finding]:
        """What training would stop at."""
        return [finding for finding in self.findings if finding.is_error]

    @property
    def warnings(self) -> list[Finding]:
        """What training does not stop at."""
        return [finding for finding in self.findings if not finding.is_error]

    def read(self, num_workers: int) -> Iterator[None]:
        """Read every image in order, one per step; few are in memory at any time.

        Args:
            num_workers: processes that read; 0 reads in this one.
        """
        if self.samples is None:
            return
        images = DataLoader(
            _Checker(self.samples),
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_as_is,
            worker_init_fn=worker_init_fn,
        )
        for image in images:
            self._add(image)
            yield
        self.findings += self._unused_categories()

    def _add(self, image: CheckedImage) -> None:
        """Count one image; that a file is missing is said once."""
        self.findings += [f for f in image.findings if f.kind != Kind.MISSING_FILE or f.file not in self._missing]
        if image.contents is not None:
            has_error = any(finding.is_error for finding in image.findings)
            self.contents.add(image.contents, is_example=not has_error)

    def _unused_categories(self) -> list[Finding]:
        """Warnings of categories that the split has nothing of."""
        findings = []
        for kind, is_thing, counts, what in (
            (Kind.NO_INSTANCES, True, self.contents.instances, "things have no instance"),
            (Kind.NO_PIXELS, False, self.contents.pixels, "categories of stuff have no pixel"),
        ):
            names = [c.name for c in self.contents.categories if c.is_thing == is_thing and counts[c.id] == 0]
            if names and self.contents.num_labelled:
                message = f"{len(names)} {what} in {self.name}: {', '.join(names)}"
                findings.append(Finding(kind.value, None, message, is_error=False))
        return findings

    def as_dict(self) -> dict[str, Any]:
        """Everything for machines."""
        return {
            "opened": self.samples is not None,
            "images": self.num_images,
            **self.contents.as_dict(),
            "errors": [vars(finding) for finding in self.errors],
            "warnings": [vars(finding) for finding in self.warnings],
        }


def compare_categories(checks: list[SplitCheck]) -> list[Finding]:
    """Errors of splits whose categories are not those of the first split that could be opened."""
    opened = [check for check in checks if check.samples is not None]
    findings = []
    for check in opened[1:]:
        first, ours = opened[0].contents.categories, check.contents.categories
        if ours != first:
            differing = sorted({c.name for c in set(first) ^ set(ours)})
            message = f"categories of {check.name} are not those of {opened[0].name}; these differ: {differing}"
            findings.append(Finding(Kind.CATEGORIES_DIFFER.value, None, message))
    return findings
