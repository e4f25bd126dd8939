"""Many processes with one task: which one this is, a mean over all, how it looks when one dies, a part of the rows.

Lightning starts those that train, and adds their gradients up; each takes its share of every batch (`batches`).
"""

from __future__ import annotations

import re

from torch import Tensor, distributed

__all__ = ["is_lost_peer", "mean_over_processes", "part_slice", "rank_and_size"]


def rank_and_size() -> tuple[int, int]:
    """The number of this process, and how many train together.

    >>> rank_and_size()
    (0, 1)
    """
    together = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)


def mean_over_processes(value: Tensor) -> float:
    """The mean of a number over all processes: of a loss, that over the whole batch, for their shares are equal."""
    ranks = rank_and_size()[1]
    if ranks > 1:
        value = value.detach().clone()
        distributed.all_reduce(value)
        value /= ranks
    return value.item()


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process is gone. NCCL has a class for it; of gloo's there is only the text."""
    gloo = isinstance(error, RuntimeError) and re.search(r"gloo|\bpeer\b", str(error), re.IGNORECASE)
    return isinstance(error, distributed.DistError) or bool(gloo)


def part_slice(n: int, said: str) -> slice:
    """The rows of n that are a process's part: "2/4" is the second of four, which together are all of them.

    >>> [part_slice(10, f"{k}/3") for k in (1, 2, 3)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)]
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", said)
    k, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= k <= parts <= n:
        raise ValueError(f"A part is K/N, such as 2/4, with K from 1 to N and N at most {n}, got {said}.")
    return slice(n * (k - 1) // parts, n * k // parts)
