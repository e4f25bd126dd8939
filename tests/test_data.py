"""A batch is a pure function of (seed, step): for any number of workers and ranks, wherever a run starts."""

import pytest
import torch
from helpers import rng

from ddpm_lib import BenchmarkMorlet, batches, stream

FAMILY = BenchmarkMorlet(length=48)


def draw(step):
    generator = stream(5, step)
    x0, params = FAMILY.sample(7, generator)
    return x0, params, torch.randn(x0.shape, generator=generator)


def equal(one, other):
    return len(one) == len(other) and all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def all_equal(one, other):
    one, other = list(one), list(other)
    return len(one) == len(other) and all(equal(x, y) for x, y in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def plain():
    return [draw(step) for step in range(8)]


@pytest.mark.filterwarnings("ignore:.*worker processes in total.*:UserWarning")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_do_not_change_a_batch(workers, plain):
    torch.manual_seed(workers)  # the global generator has no say
    assert all_equal(batches(draw, 8, workers=workers), plain)
    assert not all_equal(batches(draw, 8, workers=workers), plain[:1] * 8)  # the negative control


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_share_the_rows_of_a_batch(ranks, plain):
    loaders = [batches(draw, 8, rank=rank, ranks=ranks) for rank in range(ranks)]
    for whole, *parts in zip(plain, *loaders, strict=True):
        assert sum(len(part[0]) for part in parts) == 7
        for k, tensor in enumerate(whole):
            joined = torch.empty_like(tensor)
            for rank, part in enumerate(parts):
                joined[rank::ranks] = part[k]
            assert torch.equal(joined, tensor)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 3, 7, 8])
def test_a_run_goes_on_where_it_stopped(start, workers, plain):
    assert all_equal(batches(draw, 8, start=start, workers=workers), plain[start:])


def test_a_resumed_epoch_has_the_length_of_the_whole_one():
    assert len(batches(draw, 8, start=3)) == len(batches(draw, 8)) == 8


def test_no_two_streams_are_alike():
    keys = [(seed, step, purpose) for seed in range(10) for step in range(100) for purpose in (0, 1)]
    first = [torch.rand(1, generator=stream(*key), dtype=torch.float64).item() for key in keys]
    assert len(set(first)) == len(keys)
    assert abs(sum(first) / len(first) - 0.5) < 4.5 / (12 * len(first)) ** 0.5


def test_a_stream_depends_on_its_three_numbers_alone():
    torch.manual_seed(1)
    one = torch.randn(5, generator=stream(3, 4, 1))
    torch.manual_seed(2)
    torch.rand(9, generator=rng())
    assert torch.equal(one, torch.randn(5, generator=stream(3, 4, 1)))
    assert not torch.equal(one, torch.randn(5, generator=stream(3, 4)))
    assert not torch.equal(one, torch.randn(5, generator=stream(4, 3, 1)))
    assert stream(0, 0).device.type == "cpu"
