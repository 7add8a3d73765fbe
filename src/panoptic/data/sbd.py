"""SBD, the Semantic Boundaries Dataset (Hariharan et al., 2011): its annotations, MATLAB files in `cls` and `inst`."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from panoptic.data.faults import DataError, Kind, MissingFileError


def read_sbd_classes(path: Path) -> NDArray[np.uint8]:
    """`GTcls.Segmentation` of a file of `cls`: (H, W) uint8, 0 background, 1..20 the classes of PASCAL VOC.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, or without that field.
    """
    return _read_map(path, "GTcls", _read_struct(path, "GTcls", ("Segmentation",)))


def read_sbd_objects(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`GTinst` of a file of `inst`: classes (H, W) uint8 as `read_sbd_classes`, and objects (H, W) uint8, 0 background.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, without the fields `Segmentation` and `Categories`, or an object without class.
    """
    fields = _read_struct(path, "GTinst", ("Segmentation", "Categories"))
    objects = _read_map(path, "GTinst", fields)
    classes = np.asarray(fields["Categories"]).reshape(-1)
    if objects.max() > len(classes):
        message = f"expected a class for each object in GTinst.Categories of {path}, got {len(classes)} classes "
        message += f"for object {objects.max()}"
        raise DataError(message, kind=Kind.FORMAT, file=path)
    return np.concatenate([[0], classes]).astype(np.uint8)[objects], objects


def _read_map(path: Path, name: str, fields: dict[str, Any]) -> NDArray[np.uint8]:
    """The field `Segmentation`, which must be (H, W) uint8."""
    segmentation = np.asarray(fields["Segmentation"])
    if segmentation.ndim != 2 or segmentation.dtype != np.uint8 or not segmentation.size:
        message = f"expected {name}.Segmentation of {path} as (H, W) uint8, got {segmentation.shape} "
        message += str(segmentation.dtype)
        raise DataError(message, kind=Kind.FORMAT, file=path)
    return segmentation


def _read_struct(path: Path, name: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """{field: its value} of a structure in a MATLAB file."""
    if not path.is_file():
        message = f"no file {path}, or a link that leads nowhere; expected an annotation of SBD"
        raise MissingFileError(message, kind=Kind.MISSING_FILE, file=path)
    try:
        content = loadmat(path, variable_names=[name])
    except (ValueError, TypeError, IndexError, NotImplementedError, OSError, MatReadError, zlib.error) as error:
        message = f"truncated or damaged MATLAB file: {path} ({error}); fetch the file again"
        raise DataError(message, kind=Kind.UNREADABLE, file=path) from error
    structure = content.get(name)
    if structure is None or structure.dtype.names is None or structure.size != 1:
        message = f"expected one structure {name} in {path}, found none; use SBD's own files"
        raise DataError(message, kind=Kind.FORMAT, file=path)
    lacking = [field for field in fields if field not in structure.dtype.names]
    if lacking:
        message = f"{name} in {path} lacks {lacking}, it has {list(structure.dtype.names)}; use SBD's own files"
        raise DataError(message, kind=Kind.FORMAT, file=path)
    return {field: structure[field].item() for field in fields}
