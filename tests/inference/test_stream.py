"""Prediction on a stream against one image after another: the same results, order, bounds and errors."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn import draw

from panoptic.inference.stream import StageTimes, predict_stream

PATHS = [Path(f"{number}.jpg") for number in range(9)]
WAIT = 20  # seconds, only for a test that fails


class StubPredictor:
    """Steps that do nothing but what a test puts before them, and count the images that are held at a time."""

    device = torch.device("cpu")

    def __init__(self, before=lambda stage, path: None):
        self.before = before
        self.lock = threading.Lock()
        self.held = self.most_held = 0
        self.threads = {}

    def begin(self, stage, path):
        with self.lock:
            self.threads.setdefault(stage, set()).add(threading.current_thread().name)
        self.before(stage, path)

    def prepare(self, image):
        with self.lock:
            self.held += 1
            self.most_held = max(self.most_held, self.held)
        self.begin("reading", image)
        return SimpleNamespace(path=image, photograph=torch.zeros(3, 5, 7, dtype=torch.uint8))

    def forward(self, prepared):
        self.begin("network", prepared.path)
        return {"path": prepared.path}

    def fuse(self, outputs, prepared):
        assert outputs["path"] == prepared.path
        self.begin("fusion", prepared.path)
        return draw("aab", first_id=int(prepared.path.stem) + 1)

    def written(self, number, path, panoptic_map):
        self.begin("writing", path)
        with self.lock:
            self.held -= 1


def run(predictor, paths=PATHS, *, draw=lambda *_: None, write=None, **options):
    """Everything that was written, and the times."""
    written = []

    def remember(number, path, panoptic_map):
        predictor.written(number, path, panoptic_map)
        written.append((number, path, panoptic_map.segments[0].id))

    *_, times = predict_stream(predictor, paths, draw=draw, write=write or remember, **options)
    return written, times


@pytest.mark.parametrize("fusion_threads", [1, 2, 5])
def test_files_are_written_in_order_however_long_each_takes(fusion_threads):
    seed = int(time.time())
    print("seed", seed)
    delays = np.random.default_rng(seed).uniform(0, 0.01, (4, len(PATHS)))
    stages = ["reading", "network", "fusion", "writing"]
    stub = StubPredictor(lambda stage, path: time.sleep(delays[stages.index(stage), int(path.stem)]))
    written, times = run(stub, fusion_threads=fusion_threads)
    assert written == [(number, path, number + 1) for number, path in enumerate(PATHS)]
    assert times.images == len(PATHS)


def test_the_stages_work_at_the_same_time():
    """Each stage waits for the earlier one of the next image: done one after another, that would never come."""
    reached = {(stage, path): threading.Event() for stage in ("reading", "network", "fusion") for path in PATHS}
    later = {"network": "reading", "fusion": "network", "writing": "fusion"}

    def before(stage, path):
        if (stage, path) in reached:
            reached[stage, path].set()
        following = Path(f"{int(path.stem) + 1}.jpg")
        if stage in later and following in PATHS:
            assert reached[later[stage], following].wait(WAIT), f"{stage} of {path} was alone"

    written, _ = run(StubPredictor(before))
    assert len(written) == len(PATHS)


def test_several_threads_fuse_at_the_same_time():
    together = threading.Barrier(3)
    stub = StubPredictor(lambda stage, path: stage == "fusion" and together.wait(WAIT))
    written, times = run(stub, fusion_threads=3)
    assert len(written) == len(PATHS)
    assert times.threads == {"reading": 1, "network": 1, "fusion": 3, "writing": 1}
    assert {stage: len(names) for stage, names in stub.threads.items()} == times.threads


@pytest.mark.parametrize("slow", ["network", "fusion", "writing"])
def test_the_images_held_do_not_grow_with_their_number(slow):
    stub = StubPredictor(lambda stage, path: time.sleep(0.002 if stage == slow else 0))
    run(stub, [Path(f"{number}.jpg") for number in range(60)], fusion_threads=2)
    assert 1 < stub.most_held <= 8  # 3 read, 3 fused, 2 written at most
    assert stub.held == 0


def test_drawing_gets_photograph_and_map_of_each_file():
    drawn = []
    run(StubPredictor(), draw=lambda path, photograph, panoptic_map: drawn.append((path, photograph.shape)))
    assert sorted(drawn) == [(path, (3, 5, 7)) for path in PATHS]


@pytest.mark.parametrize("failing", ["reading", "network", "fusion", "writing"])
def test_an_error_of_a_stage_is_raised_and_ends_the_others(failing):
    def before(stage, path):
        if (stage, path) == (failing, PATHS[4]):
            raise ValueError(f"{path} is damaged")

    stub = StubPredictor(before)
    written = []
    with pytest.raises(ValueError, match=r"4\.jpg is damaged"):
        run(stub, write=lambda number, path, panoptic_map: written.append(stub.written(number, path, panoptic_map)))
    assert len(written) <= 5  # the one after a failed writing may be under way
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("reading", "fusion", "writing"))]


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_ending_early_waits_for_what_is_under_way_and_begins_nothing_more(error):
    stub = StubPredictor(lambda stage, path: time.sleep(0.01))
    stream = predict_stream(stub, PATHS, draw=lambda *_: None, write=stub.written)
    next(stream)
    if error is GeneratorExit:
        stream.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            stream.throw(error)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("reading", "fusion", "writing"))]
    assert stub.most_held < len(PATHS)


def test_no_thread_for_fusion_is_refused():
    with pytest.raises(ValueError, match="expected at least 1 thread for fusion, got fusion_threads=0"):
        next(predict_stream(StubPredictor(), PATHS, draw=lambda *_: None, write=lambda *_: None, fusion_threads=0))


def test_times_are_those_of_the_stages():
    stub = StubPredictor(lambda stage, path: time.sleep(0.02 if stage == "network" else 0))
    _, times = run(stub, PATHS[:5])
    assert 5 * 0.02 <= times.busy["network"] <= times.elapsed
    assert times.busy["network"] > max(times.busy[stage] for stage in ("reading", "writing"))


def test_the_summary_says_images_per_second_and_shares():
    times = StageTimes({"reading": 1, "network": 1, "fusion": 2, "writing": 1})
    assert times.summary() == "no images"
    times.images, times.elapsed = 10, 4.0
    times.busy.update(reading=0.4, network=3.6, fusion=4.0, writing=0.2)
    # fusion: 4 of 2 x 4 seconds
    assert times.summary() == (
        "2.50 images per second; at work: reading 10%, network 90%, fusion 50% of 2 threads, writing 5%"
    )


def test_maps_equal_those_of_one_image_after_another(random_predictor, photographs):
    expected = [random_predictor(path) for path in photographs]
    assert max(len(panoptic_map.segments) for panoptic_map in expected) > 2
    assert any(segment.score is not None for panoptic_map in expected for segment in panoptic_map.segments)
    found = []

    def write(*arguments):
        found.append(arguments)

    list(predict_stream(random_predictor, photographs, draw=lambda *_: None, write=write, fusion_threads=3))
    assert [(number, path) for number, path, _ in found] == list(enumerate(photographs))
    for (_, _, ours), theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.segment_ids, theirs.segment_ids)
        assert ours.segments == theirs.segments
