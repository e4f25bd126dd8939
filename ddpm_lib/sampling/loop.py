"""From noise to signals: one loop, many steps (chapter `sampling`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..checks import check_count, check_number, check_signals
from ..diffusion.denoiser import DenoiserLike, Prediction, WithCovariance, device_of
from ..diffusion.schedules import Schedule, times
from ..diffusion.variances import posterior_covariance
from ..shapes import Float, Time
from .grids import TILT, even_log_snr
from .steps import Step, advance, dpmpp_2m_sde

__all__ = ["Chunked", "Counted", "algorithm_2", "sample", "walk"]

CHUNK = 4096
"""Signals that are evaluated at once: memory does not grow with a batch beyond the signals themselves."""


class _Wrapper(nn.Module):
    """A denoiser around another, with its covariance where it has one."""

    def __init__(self, denoiser: DenoiserLike):
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        if isinstance(denoiser, WithCovariance):  # only then does this have one either
            self.covariance = self._covariance

    def _covariance(self, xt: Float[Tensor, "B C L"], t: Time) -> Float[Tensor, "B C*L C*L"]:
        return posterior_covariance(self.denoiser, xt, t)


class Counted(_Wrapper):
    """A denoiser that counts its evaluations."""

    evaluations = 0

    def forward(self, xt: Float[Tensor, "B C L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        self.evaluations += 1
        return self.denoiser(xt, t, cond)


class Chunked(_Wrapper):
    """A denoiser that evaluates a large batch in chunks."""

    def __init__(self, denoiser: DenoiserLike, chunk: int = CHUNK):
        super().__init__(denoiser)
        self.chunk = chunk

    def forward(self, xt: Float[Tensor, "B C L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        conditions = xt.split(self.chunk) if cond is None else cond.split(self.chunk)
        parts = zip(xt.split(self.chunk), times(t, xt).split(self.chunk), conditions, strict=True)
        found = [self.denoiser(x, u, None if cond is None else c) for x, u, c in parts]
        return Prediction(*map(torch.cat, zip(*found, strict=True)))

    def _covariance(self, xt: Float[Tensor, "B C L"], t: Time) -> Float[Tensor, "B C*L C*L"]:
        parts = zip(xt.split(self.chunk), times(t, xt).split(self.chunk), strict=True)
        return torch.cat([posterior_covariance(self.denoiser, x, u) for x, u in parts])


@torch.no_grad()
def walk(
    denoiser: DenoiserLike,
    x: Float[Tensor, "B C L"],
    visited: Sequence[float],
    step: Step,
    draw: Callable[[], Float[Tensor, "B C L"]],
    check_finite: bool = True,
) -> Iterator[Float[Tensor, "B C L"]]:
    """The loop: from x at the first of the times to the last, and yield every state. `sample` checks and calls it.

    Args:
        draw: gives the noise of each step.
    """
    if len(x) > CHUNK:
        denoiser = Chunked(denoiser)
    past = None
    yield x
    for t, s in pairwise(visited):
        x, past = advance(step, denoiser, x, t, s, draw(), past)
        if check_finite and not torch.isfinite(x).all():
            raise FloatingPointError(f"The step from t = {t} to {s} gave NaN or infinity: the denoiser diverges there.")
        yield x


@torch.no_grad()
def algorithm_2(
    denoiser: DenoiserLike, shape: tuple[int, int, int], generator: torch.Generator | None = None
) -> Float[Tensor, "B C L"]:
    """Sampling as Ho et al. 2020 print it, algorithm 2, with σ² = β̃. `sample` does it faster.

    >>> from ddpm_lib import Gaussian, linear
    >>> algorithm_2(Gaussian(torch.zeros(1, 4), torch.eye(4), linear(50)), (2, 1, 4)).shape
    torch.Size([2, 1, 4])
    """
    schedule, device = denoiser.schedule, device_of(denoiser)
    x = torch.randn(shape, generator=generator).to(device)  # 1: x_T ~ N(0, I)
    for t in range(schedule.T, 0, -1):  # 2
        z = torch.randn(shape, generator=generator).to(device) if t > 1 else torch.zeros_like(x)  # 3
        eps = denoiser(x, t).eps
        alpha, beta, noise, sigma2 = (
            float(v) for v in (1 - schedule.beta(t), schedule.beta(t), schedule.noise(t), schedule.beta_tilde(t))
        )
        x = (x - beta / noise**0.5 * eps) / alpha**0.5 + sigma2**0.5 * z  # 4: report (11) put right
    return x  # 6


def sample(
    denoiser: DenoiserLike,
    shape: tuple[int, int, int],
    steps: int | Sequence[float] = 20,
    step: Step = dpmpp_2m_sde,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    start: Float[Tensor, "B C L"] | None = None,
    rows: slice = slice(None),
    check_finite: bool = True,
) -> Iterator[Float[Tensor, "B C L"]]:
    """Walk from x_T ~ N(0, I) to x_0 and yield every state: report (11) with the sampling equation it lacks (D20).

    ``*path, x0 = sample(...)`` keeps the path; ``for x0 in sample(...): pass`` keeps the end only.

    Args:
        denoiser: a `Denoiser` or an oracle.
        shape: (B, C, L).
        steps: their number, spaced over log-SNR as `even_log_snr` does with a tilt of `TILT`; or the times
            themselves, falling from T to 0.
        step: `dpmpp_2m_sde`, `ancestral`, … or your own; fix its options with `functools.partial`.
        generator: a CPU generator: the same noise on every device.
        device: where to run; by default where the denoiser is.
        start: the state at the first of the times; pure noise by default.
        rows: which of the B signals to make: slices that many processes share out make together what one would make.
        check_finite: whether to look after every step if all is finite, for which a GPU has to be waited for.

    Yields:
        steps + 1 states, the first is the start, the last is x_0.

    Raises:
        ValueError: fewer than 1 or more than T steps; times that do not fall from at most T to 0.
        FloatingPointError: a step gave NaN or infinity.

    >>> from ddpm_lib import Gaussian, linear
    >>> exact = Gaussian(torch.zeros(1, 4), torch.eye(4), linear())
    >>> *path, x0 = sample(exact, (2, 1, 4), steps=10, generator=torch.Generator().manual_seed(0))
    >>> len(path), x0.shape
    (10, torch.Size([2, 1, 4]))
    """
    size, visited = _shape(shape), _times(denoiser.schedule, steps)
    if start is not None and check_signals(start, "start").shape != size:
        raise ValueError(f"start must have the shape of the samples, {tuple(shape)}, got {tuple(start.shape)}.")
    if not isinstance(rows, slice) or not range(shape[0])[rows]:
        raise ValueError(f"rows must be a slice that takes some of the {shape[0]} signals, got {rows!r}.")
    place = device_of(denoiser) if device is None else torch.device(device)

    def draw() -> Tensor:
        return torch.randn(size, generator=generator)[rows].to(place)  # a signal has the same noise in any slice

    # not a generator itself, so that bad input raises at the call and not at the first step
    return walk(denoiser, draw() if start is None else start[rows].to(place), visited, step, draw, check_finite)


def _shape(shape: Sequence[int]) -> torch.Size:
    if not isinstance(shape, Sequence) or len(shape) != 3:
        raise ValueError(f"Signals have a shape (B, C, L), got {shape!r}.")
    return torch.Size([check_count(n, "Each size of the shape (B, C, L)") for n in shape])


def _times(schedule: Schedule, steps: int | Sequence[float]) -> list[float]:
    """The times of so many steps, or those that are given."""
    steps = steps.tolist() if isinstance(steps, Tensor) else steps
    if isinstance(steps, (int, str)) or not isinstance(steps, Iterable):
        return even_log_snr(schedule, steps, TILT)
    given = [check_number(t, "A time", high=schedule.T) for t in steps]
    if len(given) < 2 or not all(t > s for t, s in pairwise(given)) or given[-1] != 0:
        raise ValueError(f"Times must fall from at most T = {schedule.T} to 0, got {given[:3]} … {given[-3:]}.")
    return given
