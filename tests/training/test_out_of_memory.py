"""Errors of memory in real trainings end with what to lower; other errors pass."""

import pytest
import torch
from tiny_training import compose, data_and_module, plain_trainer

from panoptic.training.out_of_memory import MemoryExceededError, saying_what_to_lower

pytestmark = pytest.mark.slow

MESSAGES = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines"),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "numpy": MemoryError("Unable to allocate 8.00 EiB for an array"),
    "bare": MemoryError(),
}


def raising(error):
    def step(batch, batch_idx):
        raise error

    return step


def fail_with(step, *overrides, processes=1):
    """The text of the error of a training whose step is replaced, and its cause."""
    data, module = data_and_module(*overrides)
    module.training_step = step
    with (
        pytest.raises(MemoryExceededError) as caught,
        saying_what_to_lower(compose(*overrides), processes),
    ):
        plain_trainer().fit(module, datamodule=data)
    return str(caught.value), caught.value.__cause__


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_every_error_of_memory_names_the_keys_with_their_values(kind):
    text, cause = fail_with(raising(MESSAGES[kind]), "data.train.length=8", "data.batch_size=8")
    assert cause is MESSAGES[kind]
    assert text.startswith(f"out of memory ({(str(cause) or 'MemoryError').splitlines()[0]}); lower one of these:\n")
    assert "data.batch_size=4 trainer.accumulate_grad_batches=2, now 8 and 1" in text
    assert "data.train_transform.size, the crop in pixels, now [48, 64]" in text
    assert "trainer.precision=bf16-mixed, now auto" in text
    assert "data.eval_transform.longest_side in pixels if it happened in validation, now the size of the images" in text


def test_a_real_allocation_that_is_too_large_is_explained():
    text, cause = fail_with(lambda batch, batch_idx: torch.empty(2**59, dtype=torch.float32))
    assert type(cause) is RuntimeError
    assert "tried to allocate 2305843009213693952 bytes" in text
    assert "data.batch_size=" not in text  # now 2


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("memory"), KeyError("memory")])
def test_other_errors_pass_as_they_are(error):
    data, module = data_and_module()
    module.training_step = raising(error)
    with pytest.raises(type(error)) as caught, saying_what_to_lower(compose()):
        plain_trainer().fit(module, datamodule=data)
    assert caught.value is error


def test_what_is_lowest_already_is_not_named():
    overrides = ["data.batch_size=1", "trainer.precision=bf16-mixed", "data.num_workers=0"]
    text, _ = fail_with(raising(MemoryError("full")), *overrides)
    assert not any(key in text for key in ("batch_size", "precision", "num_workers"))
    overrides = ["data.batch_size=1", "data.num_workers=2", "+data.eval_batch_size=3"]
    with pytest.raises(MemoryExceededError) as caught, saying_what_to_lower(compose(*overrides)):
        raise MemoryError("full")
    assert "data.num_workers if it was the computer's own memory, now 2" in str(caught.value)
    assert "data.eval_batch_size=1 if it happened in validation, now 3" in str(caught.value)


@pytest.mark.parametrize(
    ("batch_size", "accumulated", "processes", "advised"),
    [(8, 1, 1, (4, 2)), (24, 3, 4, (12, 6)), (40, 1, 4, (20, 2)), (9, 2, 1, (3, 6)), (7, 1, 1, None), (8, 1, 4, None)],
)
def test_the_batch_that_is_advised_divides_and_keeps_the_images_per_step(batch_size, accumulated, processes, advised):
    config = compose(f"data.batch_size={batch_size}", f"trainer.accumulate_grad_batches={accumulated}")
    with pytest.raises(MemoryExceededError) as caught, saying_what_to_lower(config, processes):
        raise MemoryError("full")
    if advised is None:
        assert "data.batch_size" not in str(caught.value)
    else:
        smaller, more = advised
        assert smaller * more == batch_size * accumulated
        assert f"data.batch_size={smaller} trainer.accumulate_grad_batches={more}, now" in str(caught.value)
