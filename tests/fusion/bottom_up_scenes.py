"""Outputs to fuse: random ones, and perfect ones composed from the targets."""

import torch
import torch.nn.functional as F

from panoptic.structures import IGNORE_INDEX, Category, FusionResult, KeypointGraph, PanopticMap, Sample, Segment
from panoptic.targets.keypoints import (
    encode_keypoints,
    expand_disks,
    heatmap_target,
    long_range_target,
    middle_range_target,
    short_range_target,
)
from panoptic.targets.semantic import encode_semantic

CATEGORIES = (
    Category(0, "sky", False),
    Category(1, "cat", True),
    Category(2, "dog", True),
    Category(3, "grass", False),
)


def perfect_outputs(panoptic_map: PanopticMap, graph: KeypointGraph, radius: float) -> dict[str, torch.Tensor]:
    """What a perfect network says: exact where the targets are active, 0 elsewhere; void and crowd look like sky."""
    size = panoptic_map.size
    sample = Sample(torch.zeros(3, *size, dtype=torch.uint8), 1, "drawn.png", panoptic_map, None, size)
    targets = encode_keypoints(sample, categories=CATEGORIES, graph=graph)
    semantic_map = encode_semantic(sample, categories=CATEGORIES).semantic_map.long()
    semantic_map = semantic_map.masked_fill(semantic_map == IGNORE_INDEX, 0)
    owner = expand_disks(targets, radius)
    return {
        "semantic": 20 * F.one_hot(semantic_map, len(CATEGORIES)).movedim(2, 0).float(),
        "heatmap": 40 * heatmap_target(owner) - 20,
        "short_range": short_range_target(targets, owner)[0],
        "middle_range": middle_range_target(targets, owner, graph)[0],
        "long_range": long_range_target(targets)[0],
    }


def exact_segments(truth: PanopticMap, result: FusionResult) -> tuple[int, int]:
    """How many non-crowd segments of the truth come back with the same pixels and category, and how many there are."""
    crowd = [segment.id for segment in truth.segments if segment.is_crowd]
    labelled = ~torch.isin(truth.segment_ids, torch.tensor([0, *crowd]))
    category_of = {segment.id: segment.category_id for segment in result.panoptic_map.segments}
    fused = result.panoptic_map.segment_ids[labelled]
    exact = present = 0
    for segment in truth.segments:
        pixels = truth.segment_ids[labelled] == segment.id
        if pixels.any():
            present += 1
            fused_id = int(fused[pixels][0])
            exact += torch.equal(fused == fused_id, pixels) and category_of[fused_id] == segment.category_id
    return exact, present


def random_outputs(
    seed: int, graph: KeypointGraph, size: tuple[int, int], spread: float = 3.0
) -> dict[str, torch.Tensor]:
    """Normal logits, and offsets with a standard deviation of `spread` pixels."""
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    num_kinds, num_edges = len(graph.keypoints), len(graph.edges)
    return {
        "semantic": torch.randn(len(CATEGORIES), *size, generator=generator),
        "heatmap": 2 * torch.randn(num_kinds, *size, generator=generator),
        "short_range": spread * torch.randn(num_kinds, 2, *size, generator=generator),
        "middle_range": spread * torch.randn(num_edges, 2, *size, generator=generator),
        "long_range": spread * torch.randn(num_kinds, 2, *size, generator=generator),
    }


def thing_shape(kind: int, height: int, width: int) -> torch.Tensor:
    """(height, width) bool: a rectangle, an ellipse or an L, touching all four sides."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    if kind == 0:
        return torch.ones(height, width, dtype=torch.bool)
    if kind == 1:
        return ((2 * y - height + 1) / height) ** 2 + ((2 * x - width + 1) / width) ** 2 <= 1
    return (x < (width + 2) // 3) | (y >= height - (height + 2) // 3)


def scene_map(
    seed: int, *, rows: int, columns: int, cell: tuple[int, int], gap: int, jitter: int = 0, void: bool = True
) -> PanopticMap:
    """Things of random shape and category in the cells of a grid, on stripes of stuff.

    Args:
        seed: printed.
        rows: of cells.
        columns: of cells.
        cell: (height, width) of a cell in pixels.
        gap: pixels between the borders of a cell and its thing, on each side.
        jitter: things move by up to this, and may cover each other.
        void: some stuff is void, and some things are crowds.
    """
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)

    def draw_int(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    size = (rows * cell[0], columns * cell[1])
    ids = torch.ones(size, dtype=torch.int64)
    ids[size[0] // 2 :] = 2
    segments = [Segment(1, 0), Segment(2, 3)]
    if void:
        ids[:, : size[1] // 4] = 0
    for number in range(rows * columns):
        most = (cell[0] - 2 * gap, cell[1] - 2 * gap)
        height, width = draw_int(max(2, most[0] // 2), most[0]), draw_int(max(2, most[1] // 2), most[1])
        top = (number // columns) * cell[0] + gap + draw_int(0, most[0] - height) + draw_int(-jitter, jitter)
        left = (number % columns) * cell[1] + gap + draw_int(0, most[1] - width) + draw_int(-jitter, jitter)
        shape = thing_shape(draw_int(0, 2), height, width)
        top, left = max(0, top), max(0, left)
        region = ids[top : top + height, left : left + width]
        region[shape[: region.shape[0], : region.shape[1]]] = 10 + 3 * number
        is_crowd = void and draw_int(0, 5) == 0
        segments.append(Segment(10 + 3 * number, draw_int(1, 2), is_crowd=is_crowd))
    return PanopticMap(ids, segments)
