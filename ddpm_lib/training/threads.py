"""How many threads a run uses: fewer while other programs take the cores (chapter `training`)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from ..checks import check_count

__all__ = ["Threads"]


WINDOW, TRIAL = (20, 0.5), (5, 0.25)  # at least so many steps and seconds


BUSY, FREE = 0.85, 0.95  # shares of the cores that a run got


LONGEST = 32  # windows between two trials that changed nothing


class Threads:
    """Inside it a run has torch's threads, and fewer while other programs take the cores.

    The threads that share an operation wait for each other at its end. When one of them loses its core to another
    program, all wait, hundreds of times a step: beside two busy programs on two cores, two threads take twice as long
    as one. So a run looks, window by window, how much of its cores it got: CPU time over elapsed time. Where that is
    little it tries half as many threads, where they were all its own it tries twice as many; the faster number stays.

    Args:
        fixed: keep to this number of threads, whatever the others do; with it a run is equal to the bit.
        clock, used: seconds that have passed, and seconds of the cores that this process had.

    >>> with Threads() as threads:
    ...     for step in range(3):
    ...         threads.step()  # after each step
    """

    def __init__(
        self,
        fixed: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
        used: Callable[[], float] = time.process_time,
    ):
        self.fixed = None if fixed is None else check_count(fixed, "The number of threads", 1, 10_000)
        self.clock, self.used = clock, used

    def __enter__(self) -> Threads:
        self.most = self.n = torch.get_num_threads()
        self.pace: float | None = None  # seconds a step before the trial that is under way
        self.wait, self.patience = 0, 1
        self._take(self.n if self.fixed is None else self.fixed)
        return self

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.most)

    def step(self) -> None:
        """Say that a step has ended."""
        self.steps += 1
        elapsed = self.clock() - self.began
        steps, seconds = WINDOW if self.pace is None else TRIAL
        if self.fixed is not None or self.steps < steps or elapsed < seconds:
            return
        pace, share = elapsed / self.steps, (self.used() - self.had) / (elapsed * self.n)
        if self.pace is not None:
            self._end_trial(better=pace < 0.95 * self.pace)
        elif self.wait:
            self.wait -= 1
            self._take(self.n)
        elif share < BUSY and self.n > 1:
            self._try(self.n // 2, pace)
        elif share > FREE and self.n < self.most:
            self._try(min(2 * self.n, self.most), pace)
        else:
            self._take(self.n)

    def _take(self, n: int) -> None:
        """Use n threads, and begin a window."""
        if n != self.n:
            torch.set_num_threads(n)
        self.n, self.steps = n, 0
        self.began, self.had = self.clock(), self.used()

    def _try(self, n: int, pace: float) -> None:
        self.pace, self.before = pace, self.n
        self._take(n)

    def _end_trial(self, better: bool) -> None:
        if better:
            why = "other programs use the cores" if self.n < self.before else "the cores are free again"
            text = "%d of %d threads from here on: %s. The last digits depend on it; to fix the number: threads=%d."
            logging.getLogger("ddpm_lib").info(text, self.n, self.most, why, self.most)
        self.pace, self.wait = None, 0 if better else self.patience
        self.patience = 1 if better else min(2 * self.patience, LONGEST)
        self._take(self.n if better else self.before)
