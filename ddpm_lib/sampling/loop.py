"""From noise to signals: one loop, many steps (chapter `sampling`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..checks import check_signals, count, holds, number, schedule_of
from ..diffusion.denoiser import Prediction
from ..diffusion.schedules import Schedule
from .grids import TILT, even_log_snr
from .steps import Denoise, Step, dpmpp_2m_sde

__all__ = ["Memory", "sample", "walk"]


class Memory:
    """A denoiser that keeps its last answer, for solvers that look back, and counts how often it was asked.

    A large batch is asked in chunks of 4096, so that memory does not grow with it beyond the signals themselves.

    Attributes:
        last: (t, x̂_0) of the last evaluation; None before the first.
        evaluations: their number.
    """

    def __init__(self, denoiser: Denoise, chunk: int = 4096):
        self.denoiser, self.schedule = denoiser, schedule_of(denoiser)
        self.chunk = count(chunk, "A chunk")
        self.last: tuple[float, Tensor] | None = None
        self.evaluations = 0

    def __call__(self, xt: Tensor, t: float) -> Prediction:
        number(t, "t")
        parts = [self.denoiser(x, t) for x in check_signals(xt, "xt").split(self.chunk)]
        prediction = parts[0] if len(parts) == 1 else Prediction(*map(torch.cat, zip(*parts, strict=True)))
        self.last, self.evaluations = (t, prediction.x0), self.evaluations + 1
        return prediction


@torch.no_grad()
def walk(
    denoiser: Denoise, x: Tensor, times: Sequence[float], step: Step, draw: Callable[[], Tensor]
) -> Iterator[Tensor]:
    """The loop: from x at the first of the times to the last, and yield every state. `sample` checks and calls it.

    Args:
        draw: gives the noise of each step, of the shape of x.
    """
    yield x
    memory = Memory(denoiser)
    for t, s in pairwise(times):
        x = step(memory, x, t, s, draw())
        if not holds(torch.isfinite(x)):
            raise FloatingPointError(f"The step from t = {t} to {s} gave NaN or infinity: the denoiser diverges there.")
        yield x


def sample(
    denoiser: Denoise,
    shape: tuple[int, int, int],
    steps: int | Sequence[float] = 20,
    step: Step = dpmpp_2m_sde,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    start: Tensor | None = None,
    rows: slice = slice(None),
) -> Iterator[Tensor]:
    """Walk from x_T ~ N(0, I) to x_0 and yield every state: report (11) with the sampling equation it lacks (D20).

    ``*path, x0 = sample(...)`` keeps the path; ``for x0 in sample(...): pass`` keeps the end only.

    Args:
        denoiser: a `Denoiser` or an oracle, with a ``schedule``.
        shape: (B, C, L).
        steps: their number, spaced over log-SNR as `even_log_snr` does with a tilt of `TILT`; or the times
            themselves, falling from T to 0.
        step: `dpmpp_2m_sde`, `ancestral`, … or your own; fix its options with `functools.partial`.
        generator: a CPU generator: the same noise on every device.
        device: where to run.
        start: (B, C, L), the state at the first of the times; pure noise where it is not given.
        rows: which of the B signals to make: slices that many processes share out make together what one would make.

    Yields:
        steps + 1 tensors (B, C, L), the first is the start, the last is x_0.

    Raises:
        ValueError: fewer than 1 or more than T steps; times that do not fall from at most T to 0.

    >>> from ddpm_lib import Gaussian, linear
    >>> exact = Gaussian(torch.zeros(1, 4), torch.eye(4), linear())
    >>> *path, x0 = sample(exact, (2, 1, 4), steps=10, generator=torch.Generator().manual_seed(0))
    >>> len(path), x0.shape
    (10, torch.Size([2, 1, 4]))
    """
    schedule: Schedule = schedule_of(denoiser)
    if not isinstance(shape, Sequence) or len(shape) != 3:
        raise ValueError(f"Signals have a shape (B, C, L), got {shape!r}.")
    for n in shape:
        count(n, "Each size of the shape (B, C, L)")
    if isinstance(steps, Tensor):
        steps = steps.tolist()
    if isinstance(steps, (int, str)) or not isinstance(steps, Iterable):
        times = even_log_snr(schedule, steps, TILT)
    else:
        times = [number(t, "A time", high=schedule.T) for t in steps]
        falling = all(t > s for t, s in pairwise(times))
        if len(times) < 2 or not falling or times[-1] != 0:  # `number` saw to T
            raise ValueError(f"Times must fall from at most T = {schedule.T} to 0, got {times[:3]} … {times[-3:]}.")

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator)[rows].to(device)  # a signal has the same noise in any slice

    if start is not None and check_signals(start, "start").shape != torch.Size(shape):
        raise ValueError(f"start must have the shape that is asked for, {tuple(shape)}, got {tuple(start.shape)}.")
    if not isinstance(rows, slice) or not range(shape[0])[rows]:
        raise ValueError(f"rows must be a slice that takes some of the {shape[0]} signals, got {rows!r}.")
    # not a generator itself, so that bad input is told at the call and not at the first step
    return walk(denoiser, draw() if start is None else start[rows].to(device), times, step, draw)
