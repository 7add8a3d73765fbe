import pytest

from panoptic.data.samplers import EvalSampler, TrainSampler, sample_seed


def global_batches(length, world_size, *, seed=3, epoch=0, global_batch=6):
    """The samples of each step, over all processes, in the order of the ranks."""
    per_process = global_batch // world_size
    keys = []
    for rank in range(world_size):
        sampler = TrainSampler(length, seed=seed, batch_size=per_process, rank=rank, world_size=world_size)
        sampler.set_epoch(epoch)
        keys.append(list(sampler))
        assert len(keys[-1]) == len(sampler)
    steps = len(keys[0]) // per_process
    return [
        [key for mine in keys for key in mine[step * per_process : (step + 1) * per_process]] for step in range(steps)
    ]


def test_an_epoch_has_every_sample_at_most_once_and_drops_the_incomplete_batch():
    (first, second, third) = global_batches(20, 1)
    seen = [index for _, index in first + second + third]
    assert len(set(seen)) == 18
    assert set(seen) < set(range(20))


@pytest.mark.parametrize("world_size", [2, 3])
def test_global_order_is_the_same_for_any_number_of_processes(world_size):
    assert global_batches(20, world_size) == global_batches(20, 1)


def test_order_depends_on_seed_and_epoch_alone():
    assert global_batches(20, 1) == global_batches(20, 1)
    assert global_batches(20, 1, seed=4) != global_batches(20, 1)
    indices = [[index for _, index in batch] for batch in global_batches(20, 1)]
    assert [[index for _, index in batch] for batch in global_batches(20, 1, epoch=1)] != indices


def test_keys_carry_the_epoch():
    assert {epoch for batch in global_batches(20, 1, epoch=7) for epoch, _ in batch} == {7}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_loaded_state_goes_on_with_the_very_next_sample(world_size):
    whole = global_batches(20, 1, epoch=2)
    for rank in range(world_size):
        per_process = 6 // world_size
        sampler = TrainSampler(20, seed=3, batch_size=per_process, rank=rank, world_size=world_size)
        sampler.load_state_dict({"epoch": 2, "consumed": 12})
        assert list(sampler) == whole[2][rank * per_process : (rank + 1) * per_process]
        assert sampler.state_dict() == {"epoch": 2, "consumed": 12}


def test_setting_the_epoch_that_is_loaded_keeps_the_position():
    sampler = TrainSampler(20, seed=3, batch_size=6)
    sampler.load_state_dict({"epoch": 2, "consumed": 12})
    sampler.set_epoch(2)
    assert len(list(sampler)) == 6
    sampler.set_epoch(3)
    assert len(list(sampler)) == 18


def test_length_is_that_of_a_whole_epoch_also_after_loading():
    sampler = TrainSampler(20, seed=3, batch_size=6)
    sampler.load_state_dict({"epoch": 2, "consumed": 12})
    assert len(sampler) == 18


def test_exactly_one_global_batch_is_enough():
    assert len(list(TrainSampler(6, seed=0, batch_size=3, rank=1, world_size=2))) == 3


def test_fewer_samples_than_a_global_batch_are_an_error():
    with pytest.raises(
        ValueError, match="expected at least one batch of 6 images, got a train set of 5; use a smaller"
    ):
        TrainSampler(5, seed=0, batch_size=3, rank=1, world_size=2)


@pytest.mark.parametrize("consumed", [-6, 7, 24])
def test_a_position_that_is_not_between_two_batches_is_an_error(consumed):
    with pytest.raises(ValueError, match=f"expected a multiple of the batch size 6 within 20 images, got {consumed}"):
        TrainSampler(20, seed=0, batch_size=3, world_size=2).load_state_dict({"epoch": 0, "consumed": consumed})


@pytest.mark.parametrize(("rank", "batch_size"), [(-1, 2), (3, 2), (0, 0)])
def test_a_rank_outside_the_world_or_an_empty_batch_is_an_error(rank, batch_size):
    with pytest.raises(ValueError, match="expected 0 <= rank < world_size and batch_size >= 1, got"):
        TrainSampler(20, seed=0, batch_size=batch_size, rank=rank, world_size=3)


def test_a_rank_outside_the_world_is_an_error_in_evaluation():
    with pytest.raises(ValueError, match="expected 0 <= rank < world_size, got 2 and 2"):
        EvalSampler(20, 2, 2)


def test_seeds_of_samples_differ_by_seed_epoch_and_index():
    seeds = {sample_seed(seed, epoch, index) for seed in range(5) for epoch in range(5) for index in range(20)}
    assert len(seeds) == 500
    assert sample_seed(1, 2, 3) == sample_seed(1, 2, 3)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 11])
def test_evaluation_reads_every_sample_once(world_size):
    samplers = [EvalSampler(10, rank=rank, world_size=world_size) for rank in range(world_size)]
    keys = [key for sampler in samplers for key in sampler]
    assert keys == [(0, index) for index in range(10)]
    lengths = [len(sampler) for sampler in samplers]
    assert sum(lengths) == 10
    assert max(lengths) - min(lengths) <= 1


def test_evaluation_of_one_process_is_in_order():
    assert [index for _, index in EvalSampler(4)] == [0, 1, 2, 3]
