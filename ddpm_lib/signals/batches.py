"""Batches that are made afresh at every step, each a pure function of (seed, global step) (chapter `morlet_data`).

Resuming a run, any number of worker processes and any number of ranks see the same batches because of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..checks import check_count

__all__ = ["batches", "stream"]


def stream(seed: int, step: int, purpose: int = 0) -> torch.Generator:
    """A CPU generator that depends on (seed, step, purpose) and on nothing else.

    Resuming, any number of workers and any number of ranks draw the same numbers because of it.
    """
    state = np.random.SeedSequence([seed, step, purpose]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)


class _Batches(Dataset[tuple[Tensor | None, ...]]):
    """Item number `step` is the batch of that step: this rank's slice of it."""

    def __init__(self, draw: Callable[[int], tuple[Tensor | None, ...]], rank: int, ranks: int):
        self.draw, self.rank, self.ranks = draw, rank, ranks

    def __getitem__(self, step: int) -> tuple[Tensor | None, ...]:
        batch = self.draw(step)
        rows = [None if x is None else x[self.rank :: self.ranks] for x in batch]
        return getattr(type(batch), "_make", tuple)(rows)  # a NamedTuple keeps its names

    def __getstate__(self) -> dict[str, Any]:
        # How it travels to a worker that is not forked. Python's own pickle sends a function or a class as the name of
        # a module, and one from a notebook, a lambda too, has no module that a worker could import.
        try:
            return {**self.__dict__, "draw": cloudpickle.dumps(self.draw)}
        except Exception as error:  # whatever a user's object answers
            raise TypeError(
                f"What draws the batches cannot be sent to worker processes ({error}): use workers=0, "
                "or keep open files, locks and generators out of it."
            ) from error

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, draw=cloudpickle.loads(state["draw"]))


class _From(Sampler[int]):
    """The steps start, …, steps - 1. Its length stays `steps`, so that a resumed epoch ends where it should."""

    def __init__(self, start: int, steps: int):
        self.start, self.steps = start, steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.steps))

    def __len__(self) -> int:
        return self.steps


class _Loader(DataLoader[tuple[Tensor | None, ...]]):
    """Starts its workers without the main module.

    Python has every worker that is not forked import the file that was started, which a script must be written for and
    a notebook has none of. What these workers draw is sent to them whole, so they need none.
    """

    def __iter__(self) -> Any:
        main = sys.modules["__main__"]
        kept: dict[str, Any] = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
        vars(main).pop("__file__", None)
        main.__spec__ = None
        try:
            return super().__iter__()
        finally:
            vars(main).update(kept)


def batches(
    draw: Callable[[int], tuple[Tensor | None, ...]],
    steps: int,
    *,
    start: int = 0,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
) -> DataLoader[tuple[Tensor | None, ...]]:
    """A loader whose item number `step` is ``draw(step)``, whatever the number of workers or ranks.

    Args:
        draw: step → tuple of tensors with one leading batch size; must depend on `step` alone.
        steps: the number of the last step plus one.
        start: the first step (the global step of a resumed run).
        rank, ranks: this process takes rows rank, rank + ranks, … of every batch.
        workers: processes that draw ahead; 0 draws in this one. Where they are not forked (from Python 3.14 on, and on
            macOS and Windows) each is sent a copy of `draw`, whatever it is made of: a lambda, a class of a notebook.

    Raises:
        TypeError: `draw` cannot be sent to a worker (when the first batch is asked for).

    >>> from ddpm_lib import BenchmarkMorlet
    >>> family = BenchmarkMorlet()
    >>> loader = batches(lambda step: family.sample(4, stream(seed=0, step=step)), steps=3)
    >>> [x0.shape[0] for x0, params in loader]
    [4, 4, 4]
    """
    limits = {"steps": (steps, 1), "start": (start, 0), "ranks": (ranks, 1), "workers": (workers, 0)}
    for name, (n, low) in limits.items():
        check_count(n, name, low)
    check_count(rank, "rank", 0, ranks - 1)
    return _Loader(_Batches(draw, rank, ranks), batch_size=None, sampler=_From(start, steps), num_workers=workers)
