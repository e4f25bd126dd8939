"""A batch is a pure function of (seed, step): for any number of workers and ranks, wherever a run starts."""

import multiprocessing
import subprocess
import sys
import threading
from typing import NamedTuple

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


@pytest.fixture(params=multiprocessing.get_all_start_methods())
def method(request):
    """How processes start: by fork on Linux up to Python 3.13, forkserver from 3.14 on, spawn on macOS and Windows."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
def test_a_function_without_a_name_reaches_a_worker(method, plain):
    assert all_equal(batches(lambda step: draw(step), 8, workers=1), plain)


@pytest.mark.filterwarnings("ignore:Got pickle error:UserWarning")
def test_what_cannot_be_sent_is_told(method):
    lock = threading.Lock()
    loader = batches(lambda step: (torch.zeros(1), lock)[:1], 1, workers=1)
    if method == "fork":  # nothing has to be sent
        assert len(list(loader)) == 1
    else:
        with pytest.raises(TypeError, match=r"cannot be sent to worker processes \(.*lock.*\): use workers=0, or keep"):
            list(loader)


SCRIPT = """
import multiprocessing, sys, torch
multiprocessing.set_start_method("{}", force=True)
from ddpm_lib import Family, Recipe, UNet1D, fit

class Ramp(Family):
    def formula(self, x, slope):
        return slope * x

recipe = Recipe(Ramp(dict(slope=(-1.0, 1.0)), 16, (-1.0, 1.0)), network=lambda f, s: UNet1D(width=8, blocks=1),
                density=lambda network, schedule: None, steps=2, batch=4)
one, two = (fit(recipe, workers=workers).losses for workers in (0, 2))
print(torch.equal(one, two), globals().get("__file__"), __spec__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["notebook", "script"])
def test_a_family_of_one_s_own_trains_with_workers(kind, method, tmp_path):
    """Like a notebook's, the main module of ``python -c`` is no file; a script's would be run by every worker."""
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.format(method))
    command = [file] if kind == "script" else ["-c", SCRIPT.format(method)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.stdout == f"True {file if kind == 'script' else None} None\n", done.stderr


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


class Named(NamedTuple):
    """A batch with names, one of which holds nothing."""

    x0: torch.Tensor
    cond: torch.Tensor | None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_keeps_its_names_and_what_is_none(workers, plain):
    for step, part in enumerate(batches(lambda step: Named(draw(step)[0], None), 2, rank=1, ranks=2, workers=workers)):
        assert isinstance(part, Named) and part.cond is None
        assert torch.equal(part.x0, plain[step][0][1::2])


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
