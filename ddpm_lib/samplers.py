"""From noise to signals: one loop, many steps (chapter 10).

A step takes x_t to x_s for any 0 ≤ s < t. It is a function (denoiser, xt, t, s, noise) → xs, so a new sampler
is one function, and the loop stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .checks import check_signals
from .diffusion import Prediction, q_posterior
from .schedules import Schedule

__all__ = ["ancestral", "beta", "beta_tilde", "ddim", "even_log_snr", "even_steps", "sample"]

Denoise = Callable[..., Prediction]
Step = Callable[[Denoise, Tensor, float, float, Tensor], Tensor]
Variance = Callable[[Schedule, float, float], Tensor]


def beta_tilde(schedule: Schedule, t: float, s: float) -> Tensor:
    """σ² = β̃ = (1-ᾱ_s)/(1-ᾱ_t)·β, report (43): right where x_0 is known exactly. A number in float64."""
    noise_s, noise_t = (-torch.expm1(schedule.log_alpha_bar(v)) for v in (s, t))
    return noise_s / noise_t * schedule.beta(t, s)


def beta(schedule: Schedule, t: float, s: float) -> Tensor:
    """σ² = β = 1 - ᾱ_t/ᾱ_s: right for data of unit power (Ho et al. 2020, sec. 3.2). A number in float64."""
    return schedule.beta(t, s)


def ancestral(
    denoiser: Denoise, xt: Tensor, t: float, s: float, noise: Tensor, variance: Variance = beta_tilde
) -> Tensor:
    """x_s = μ̃(x_t, x̂_0) + σ·z: Ho et al. 2020, algorithm 2, for any s < t. The step to s = 0 returns the mean x̂_0.

    Args:
        denoiser: a `Denoiser` or an oracle, with a ``schedule``.
        xt, noise: (B, C, L), noise ~ N(0, I) fresh for this step.
        t, s: 0 ≤ s < t ≤ T.
        variance: σ² as a function of (schedule, t, s).
    """
    schedule: Schedule = denoiser.schedule  # type: ignore[attr-defined]
    mean = q_posterior(denoiser(xt, t).x0, xt, t, schedule, s).mean
    if s == 0:
        return mean
    return mean + variance(schedule, t, s).sqrt().to(xt.dtype) * noise


def ddim(denoiser: Denoise, xt: Tensor, t: float, s: float, noise: Tensor, eta: float = 0.0) -> Tensor:
    """x_s = √ᾱ_s·x̂_0 + √(1-ᾱ_s-σ²)·ε̂ + σ·z with σ² = η²·β̃: Song et al. 2021 (DDIM), eq. (12) and (16).

    eta = 0 adds no noise; eta = 1 has the law of `ancestral` with β̃. Arguments as there.
    """
    if eta < 0:
        raise ValueError(f"eta must not be negative, got {eta}.")
    schedule: Schedule = denoiser.schedule  # type: ignore[attr-defined]
    x0, eps = denoiser(xt, t)
    noise_s = -torch.expm1(schedule.log_alpha_bar(s))
    var = eta**2 * beta_tilde(schedule, t, s)
    if var > noise_s:
        raise ValueError(f"eta = {eta} asks for more noise at t = {s} than there is: use eta <= 1.")
    a, kept, added = (v.sqrt().to(xt.dtype) for v in (1 - noise_s, noise_s - var, var))
    return a * x0 + kept * eps + added * noise


def even_steps(schedule: Schedule, steps: int) -> list[float]:
    """Times T > … > 0 at equal distances, rounded to whole steps: steps + 1 of them."""
    return [float(t) for t in torch.linspace(schedule.T, 0, _checked(steps, schedule) + 1).round()]


def even_log_snr(schedule: Schedule, steps: int) -> list[float]:
    """Times T > … > 1 at equal distances in log-SNR (real numbers), then 0: steps + 1 of them."""
    ends = schedule.log_snr(torch.tensor([schedule.T, 1]))
    grid = torch.linspace(ends[0].item(), ends[1].item(), _checked(steps, schedule), dtype=torch.float64)
    return [float(schedule.T), *schedule.at_log_snr(grid[1:]).tolist(), 0.0]


def _checked(steps: int, schedule: Schedule) -> int:
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= schedule.T:
        raise ValueError(f"The number of sampling steps must be an integer from 1 to T = {schedule.T}, got {steps!r}.")
    return steps


@torch.no_grad()
def _path(denoiser: Denoise, x: Tensor, times: list[float], step: Step, draw: Callable[[], Tensor]) -> Iterator[Tensor]:
    yield x
    for t, s in pairwise(times):
        x = step(denoiser, x, t, s, draw())
        yield x


def sample(
    denoiser: Denoise,
    shape: tuple[int, int, int],
    steps: int | Sequence[float] | None = None,
    step: Step = ancestral,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    start: Tensor | None = None,
) -> Iterator[Tensor]:
    """Walk from x_T ~ N(0, I) to x_0 and yield every state: report (11) with the sampling equation it lacks (D20).

    ``*path, x0 = sample(...)`` keeps the path; ``for x0 in sample(...): pass`` keeps the end only.

    Args:
        denoiser: a `Denoiser` or an oracle, with a ``schedule``.
        shape: (B, C, L).
        steps: their number, evenly spaced over t; or the times themselves, falling from T to 0; all T where
            it is not given.
        step: `ancestral`, `ddim` or your own; fix its options with `functools.partial`.
        generator: a CPU generator: the same noise on every device.
        device: where to run.
        start: (B, C, L), the state at the first of the times; pure noise where it is not given.

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
    schedule: Schedule = denoiser.schedule  # type: ignore[attr-defined]
    if steps is None or isinstance(steps, int):
        times = even_steps(schedule, schedule.T if steps is None else steps)
    else:
        times = [float(t) for t in steps]
        falling = all(t > s for t, s in pairwise(times))
        if len(times) < 2 or not falling or times[0] > schedule.T or times[-1] != 0:
            raise ValueError(f"Times must fall from at most T = {schedule.T} to 0, got {times[:3]} … {times[-3:]}.")

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    if start is not None and check_signals(start, "start").shape != torch.Size(shape):
        raise ValueError(f"start must have the shape that is asked for, {tuple(shape)}, got {tuple(start.shape)}.")
    # not a generator itself, so that bad input is told at the call and not at the first step
    return _path(denoiser, draw() if start is None else start.to(device), times, step, draw)


ALL: tuple[Step, ...] = (ancestral, ddim)
