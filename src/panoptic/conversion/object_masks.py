"""One PNG for each object, as in the Data Science Bowl 2018: `<image>/images/*` and `<image>/masks/*.png`."""

from __future__ import annotations

from pathlib import Path

from panoptic.conversion.contract import AnnotatedImage, ObjectMask
from panoptic.conversion.files import PHOTOGRAPHS, check_photograph, existing_folder, index_files, raise_all
from panoptic.conversion.objects import area_of, encode, paint_objects
from panoptic.data.images import read_index_png
from panoptic.structures import VOID, Category, PanopticMap, Segment

EMPTY_MASKS = "masks without a pixel were left out"


class ObjectMasks:
    """Folders of one image each, by index, in the order of their names, which are the image ids.

    Masks are 8-bit PNGs, where what is not 0 is the object; they are painted in the order of their names, later over
    earlier. Segment ids count them.

    Args:
        folder: with one folder for each image.
        category: name of the objects' category.
        background: name of a category of stuff for all other pixels; None leaves them void.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no image, or an image folder without exactly one photograph or without the folder `masks`, all of
            them.
    """

    def __init__(self, folder: Path | str, category: str, background: str | None = None) -> None:
        self.image_folder = existing_folder(folder, "from.folder")
        self.categories = [Category(0, category, is_thing=True, dataset_category_id=1)]
        if background is not None:
            self.categories.append(Category(1, background, is_thing=False, dataset_category_id=2))
        found = sorted(path for path in self.image_folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not found:
            raise ValueError(f"no folder in {self.image_folder}; expected one for each image")
        self._photographs = {path: list(index_files(path / "images", PHOTOGRAPHS).values()) for path in found}
        faults = [
            f"expected one photograph in {path / 'images'}, found {len(photographs)}"
            for path, photographs in self._photographs.items()
            if len(photographs) != 1
        ]
        faults += [f"no folder {path / 'masks'}" for path in found if not (path / "masks").is_dir()]
        raise_all(faults, f"{len(faults)} folders are not as expected")
        self._folders = found

    def __len__(self) -> int:
        return len(self._folders)

    def __getitem__(self, index: int) -> AnnotatedImage:
        folder = self._folders[index]
        (photograph,) = self._photographs[folder]
        paths = list(index_files(folder / "masks", [".png"]).values())
        if not paths:
            raise ValueError(f"no PNG in {folder / 'masks'}; expected one for each object")
        masks = {path: encode(read_index_png(path) > 0) for path in paths}
        sizes = {tuple(runs["size"]) for runs in masks.values()}
        if len(sizes) > 1:
            raise ValueError(f"expected masks of one size in {folder / 'masks'}, got {sorted(sizes)} (height, width)")
        ((height, width),) = sizes
        check_photograph(photograph, (height, width))
        objects = [ObjectMask(0, runs) for runs in masks.values() if area_of(runs)]
        panoptic_map = paint_objects(objects, self.categories, (height, width))
        if len(self.categories) > 1:
            panoptic_map = _with_background(panoptic_map, 1, len(objects) + 1)
        return AnnotatedImage(
            image_id=folder.name,
            image_name=photograph.relative_to(self.image_folder).as_posix(),
            panoptic_map=panoptic_map,
            objects=objects,
            notes=(EMPTY_MASKS,) * (len(masks) - len(objects)),
        )


def _with_background(panoptic_map: PanopticMap, category_id: int, segment_id: int) -> PanopticMap:
    """The same map with its void as one segment of stuff."""
    is_void = panoptic_map.segment_ids == VOID
    if not is_void.any():
        return panoptic_map
    background = Segment(segment_id, category_id, area=int(is_void.sum()))
    return PanopticMap(panoptic_map.segment_ids.masked_fill(is_void, segment_id), [*panoptic_map.segments, background])
