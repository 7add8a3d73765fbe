"""PQ, PC and mIoU by loops over pixels and segments, in fractions, rule by rule; slow and obvious."""

from fractions import Fraction

import numpy as np
import torch

from panoptic.structures import PanopticMap, Segment

HALF = Fraction(1, 2)


class PanopticOracle:
    """Sums over images; every list has one entry per category."""

    def __init__(self, num_categories):
        self.num_categories = num_categories
        self.iou = [Fraction(0)] * num_categories
        self.tp = [0] * num_categories
        self.fp = [0] * num_categories
        self.fn = [0] * num_categories
        self.covered = [Fraction(0)] * num_categories
        self.area = [0] * num_categories
        self.covered_share = [Fraction(0)] * num_categories
        self.area_share = [Fraction(0)] * num_categories
        self.right_pixels = [0] * num_categories
        self.wrong_pixels = [0] * num_categories
        self.missed_pixels = [0] * num_categories

    def add(self, prediction, target):
        self._match(prediction, target)
        self._cover(prediction, target)
        self._classify(prediction, target)

    def _match(self, prediction, target):
        """The official panoptic quality."""
        predicted_pixels, target_pixels = _pixels_by_id(prediction), _pixels_by_id(target)
        void = target_pixels[0]
        matched_predictions, matched_targets = set(), set()
        for p in prediction.segments:
            for t in target.segments:
                if t.is_crowd or p.category_id != t.category_id:
                    continue
                both = predicted_pixels[p.id] & target_pixels[t.id]
                union = (predicted_pixels[p.id] | target_pixels[t.id]) - void
                if both and Fraction(len(both), len(union)) > HALF:
                    self.iou[p.category_id] += Fraction(len(both), len(union))
                    self.tp[p.category_id] += 1
                    matched_predictions.add(p.id)
                    matched_targets.add(t.id)
        for t in target.segments:
            if t.id not in matched_targets and not t.is_crowd:
                self.fn[t.category_id] += 1
        for p in prediction.segments:
            if p.id in matched_predictions:
                continue
            ignored = set(void)
            for t in target.segments:
                if t.is_crowd and t.category_id == p.category_id:
                    ignored |= target_pixels[t.id]
            inside = len(predicted_pixels[p.id] & ignored)
            area = len(predicted_pixels[p.id])
            if area == 0 or Fraction(inside, area) <= HALF:
                self.fp[p.category_id] += 1

    def _cover(self, prediction, target):
        """Parsing covering."""
        predicted_pixels, target_pixels = _pixels_by_id(prediction), _pixels_by_id(target)
        dropped = set(target_pixels[0])
        for t in target.segments:
            if t.is_crowd:
                dropped |= target_pixels[t.id]
        image_size = sum(len(row) for row in target.segment_ids.tolist())
        for t in target.segments:
            region = target_pixels[t.id]
            if t.is_crowd or not region:
                continue
            best = Fraction(0)
            for p in prediction.segments:
                if p.category_id == t.category_id:
                    candidate = predicted_pixels[p.id] - dropped
                    best = max(best, Fraction(len(region & candidate), len(region | candidate)))
            self.covered[t.category_id] += len(region) * best
            self.area[t.category_id] += len(region)
            self.covered_share[t.category_id] += len(region) * best / image_size
            self.area_share[t.category_id] += Fraction(len(region), image_size)

    def _classify(self, prediction, target):
        """Semantic IoU."""
        predicted_category = {segment.id: segment.category_id for segment in prediction.segments}
        target_category = {segment.id: segment.category_id for segment in target.segments}
        for predicted_row, target_row in zip(prediction.segment_ids.tolist(), target.segment_ids.tolist(), strict=True):
            for predicted_id, target_id in zip(predicted_row, target_row, strict=True):
                if target_id == 0:
                    continue
                wanted = target_category[target_id]
                got = predicted_category.get(predicted_id)
                if got == wanted:
                    self.right_pixels[wanted] += 1
                    continue
                self.missed_pixels[wanted] += 1
                if got is not None:
                    self.wrong_pixels[got] += 1

    def quality(self):
        """{category_id: (pq, sq, rq)} of the categories with a segment."""
        found = {}
        for c in range(self.num_categories):
            weight = self.tp[c] + HALF * self.fp[c] + HALF * self.fn[c]
            if weight > 0:
                sq = self.iou[c] / self.tp[c] if self.tp[c] else Fraction(0)
                found[c] = (self.iou[c] / weight, sq, self.tp[c] / weight)
        return found

    def covering(self, normalize_by_image_size=False):
        """{category_id: pc} of the categories with target area."""
        covered, area = self.covered, self.area
        if normalize_by_image_size:
            covered, area = self.covered_share, self.area_share
        return {c: covered[c] / area[c] for c in range(self.num_categories) if area[c]}

    def semantic(self):
        """{category_id: iou} of the categories in either map."""
        found = {}
        for c in range(self.num_categories):
            pixels = self.right_pixels[c] + self.wrong_pixels[c] + self.missed_pixels[c]
            if pixels:
                found[c] = Fraction(self.right_pixels[c], pixels)
        return found

    def means(self, categories, normalize_by_image_size=False):
        """The numbers of the three metrics' `compute`; None where no category takes part."""
        means = {"miou": _mean(list(self.semantic().values()))}
        groups = {"": None, "_things": True, "_stuff": False}
        for suffix, kind in groups.items():
            chosen = {category.id for category in categories if kind is None or category.is_thing == kind}
            for number, name in enumerate(("pq", "sq", "rq")):
                means[name + suffix] = _mean([v[number] for c, v in self.quality().items() if c in chosen])
            covering = self.covering(normalize_by_image_size)
            means["pc" + suffix] = _mean([v for c, v in covering.items() if c in chosen])
        return means


def _mean(values):
    return float(sum(values) / len(values)) if values else None


def _pixels_by_id(panoptic_map):
    """{segment id: set of (y, x)}, with 0 for void."""
    pixels = {0: set()} | {segment.id: set() for segment in panoptic_map.segments}
    for y, row in enumerate(panoptic_map.segment_ids.tolist()):
        for x, segment_id in enumerate(row):
            pixels[segment_id].add((y, x))
    return pixels


def random_pair(generator, num_categories, num_segments=9, height=11, width=17):
    """A target of random rectangles with void, crowd and entries without a pixel, and a prediction that resembles it.

    Segment ids are random, up to 2^24 - 1, and have nothing to do with each other.
    """
    target = generator.integers(0, num_segments + 1, size=(height, width)) * (generator.random((height, width)) < 0.1)
    for number in range(num_segments + 3):
        y, x = generator.integers(0, height), generator.integers(0, width)
        dy, dx = generator.integers(1, height // 2 + 2), generator.integers(1, width // 2 + 2)
        target[y : y + dy, x : x + dx] = number % (num_segments + 1)
    prediction = np.roll(target, generator.integers(-1, 2), axis=1)
    noise = generator.random((height, width)) < 0.15
    prediction = np.where(noise, generator.integers(0, num_segments + 1, size=(height, width)), prediction)
    category_ids = generator.integers(0, num_categories, size=num_segments)
    changed = generator.random(num_segments) < 0.2
    predicted_category_ids = np.where(changed, generator.integers(0, num_categories, size=num_segments), category_ids)
    is_crowd = generator.random(num_segments) < 0.25
    return (
        _with_random_ids(generator, prediction, predicted_category_ids, np.zeros(num_segments, dtype=bool)),
        _with_random_ids(generator, target, category_ids, is_crowd),
    )


def _with_random_ids(generator, numbers, category_ids, is_crowd):
    ids = generator.choice(np.arange(1, 2**24), size=len(category_ids), replace=False)
    segments = [Segment(int(i), int(c), bool(k)) for i, c, k in zip(ids, category_ids, is_crowd, strict=True)]
    return PanopticMap(torch.from_numpy(np.concatenate([[0], ids])[numbers]), segments)
