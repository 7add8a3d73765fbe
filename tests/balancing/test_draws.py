"""Seeds of steps."""

import torch

from panoptic.balancing.draws import generator_of, seed_of


def test_steps_and_runs_have_different_seeds():
    seeds = {seed_of(seed, step) for seed in range(20) for step in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_begins_anew():
    first, second = (torch.rand(3, generator=generator_of(5, 7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(3, generator=generator_of(7, 5)))
