"""From noise to signals: one loop, many steps (chapter `sampling`).

A step takes x_t to x_s for any 0 ≤ s < t. It is a function (denoiser, xt, t, s, noise) → xs, so a new sampler
is one function, and the loop stays the same. A step that looks back finds the last answer in the denoiser that the
loop hands it, a `Memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .checks import check_signals, count, holds, number, same_shape, schedule_of, step_variance
from .diffusion import Prediction, q_posterior
from .grids import even_log_snr
from .schedules import Schedule

__all__ = [
    "Memory",
    "ancestral",
    "beta",
    "beta_tilde",
    "ddim",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "heun",
    "sample",
    "walk",
]

Denoise = Callable[..., Prediction]
Step = Callable[[Denoise, Tensor, float, float, Tensor], Tensor]

TILT = 0.3
"""Of the grid that `sample` lays out by itself: chapter `grids_and_solvers` compares it with others."""


def _step(denoiser: Denoise, xt: Tensor, t: float, s: float, noise: Tensor) -> Schedule:
    """The schedule, once the arguments of a step have been looked at."""
    schedule: Schedule = schedule_of(denoiser)
    same_shape(check_signals(xt, "xt"), noise, "xt and noise")
    if not number(s, "s", 0.0) < number(t, "t"):
        raise ValueError(f"A step goes back in time: s must be smaller than t, got t = {t} and s = {s}.")
    return schedule


def beta_tilde(schedule: Schedule, t: float, s: float) -> Tensor:
    """σ² = β̃ = (1-ᾱ_s)/(1-ᾱ_t)·β, report (43): right where x_0 is known exactly. A number in float64."""
    beta = schedule.beta(t, s)
    noise_s, noise_t = (-torch.expm1(schedule.log_alpha_bar(v)) for v in (s, t))
    if not holds(noise_t > 0):
        raise ValueError("β̃ is the variance of a step back from t > 0: at 0 there is nothing to go back from.")
    return noise_s / noise_t * beta


def beta(schedule: Schedule, t: float, s: float) -> Tensor:
    """σ² = β = 1 - ᾱ_t/ᾱ_s: right for data of unit power (Ho et al. 2020, sec. 3.2). A number in float64."""
    return schedule.beta(t, s)


def ancestral(denoiser: Denoise, xt: Tensor, t: float, s: float, noise: Tensor, variance: Any = beta_tilde) -> Tensor:
    """x_s = μ̃(x_t, x̂_0) + σ·z: Ho et al. 2020, algorithm 2, for any s < t. The step to s = 0 returns the mean x̂_0.

    Args:
        denoiser: a `Denoiser` or an oracle, with a ``schedule``.
        xt, noise: (B, C, L), noise ~ N(0, I) fresh for this step.
        t, s: 0 ≤ s < t ≤ T.
        variance: σ² as a function of (schedule, t, s), or a `LearnedVariance`.
    """
    schedule = _step(denoiser, xt, t, s, noise)
    mean = q_posterior(denoiser(xt, t).x0, xt, t, schedule, s).mean
    if s == 0:
        return mean
    return mean + step_variance(variance, schedule, t, s, xt).sqrt().to(xt.dtype) * noise


def ddim(denoiser: Denoise, xt: Tensor, t: float, s: float, noise: Tensor, eta: float = 0.0) -> Tensor:
    """x_s = √ᾱ_s·x̂_0 + √(1-ᾱ_s-σ²)·ε̂ + σ·z with σ² = η²·β̃: Song et al. 2021 (DDIM), eq. (12) and (16).

    eta = 0 adds no noise; eta = 1 has the law of `ancestral` with β̃. Arguments as there.
    """
    schedule = _step(denoiser, xt, t, s, noise)
    return _towards(denoiser(xt, t).x0, schedule, xt, t, s, noise, eta)


def _towards(x0: Tensor, schedule: Schedule, xt: Tensor, t: float, s: float, noise: Tensor, eta: float) -> Tensor:
    """DDIM's step for a given estimate of x_0, and the ε̂ that belongs to it."""
    if number(eta, "eta") < 0:
        raise ValueError(f"eta must not be negative, got {eta}.")
    noise_t, noise_s = (-torch.expm1(schedule.log_alpha_bar(v)) for v in (t, s))
    var = eta**2 * beta_tilde(schedule, t, s)
    if var > noise_s:
        raise ValueError(f"eta = {eta} asks for more noise at t = {s} than there is: use eta <= 1.")
    # x_s = a·x̂_0 + keep·x_t + add·z, written so that x_t and x̂_0 are never subtracted
    keep = ((noise_s - var) / noise_t).sqrt()
    a = (1 - noise_s).sqrt() - keep * (1 - noise_t).sqrt()
    a, keep, add = (v.to(xt.dtype) for v in (a, keep, var.sqrt()))
    return a * x0 + keep * xt + add * noise


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


def dpmpp_2m(denoiser: Denoise, xt: Tensor, t: float, s: float, noise: Tensor, eta: float = 0.0) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2: `ddim` towards an x̂_0 halfway ahead.

    x̂_0 moves along a line over λ = log(√ᾱ/√(1-ᾱ)), through its last two values, and counts as it is in the
    middle of the step. The first step, and the one to s = 0 which is infinitely long in λ, take x̂_0 as it is.
    One evaluation a step. Arguments as for `ddim`.
    """
    schedule = _step(denoiser, xt, t, s, noise)
    before: tuple[float, Tensor] | None = getattr(denoiser, "last", None)
    x0 = denoiser(xt, t).x0
    if before is not None and before[0] > t and before[1].shape == x0.shape and s > 0:
        was, now, then = (float(schedule.log_snr(v)) for v in (before[0], t, s))
        x0 = x0 + (x0 - before[1]) * ((then - now) / (now - was) / 2)
    return _towards(x0, schedule, xt, t, s, noise, eta)


def dpmpp_2m_sde(denoiser: Denoise, xt: Tensor, t: float, s: float, noise: Tensor) -> Tensor:
    """SDE-DPM-Solver++(2M) of Lu et al. 2022: `dpmpp_2m` with the noise of `ancestral`, one evaluation a step."""
    return dpmpp_2m(denoiser, xt, t, s, noise, eta=1.0)


def heun(denoiser: Denoise, xt: Tensor, t: float, s: float, noise: Tensor) -> Tensor:
    """Heun's second order step of the probability flow, Karras et al. 2022, algorithm 1: two evaluations a step.

    In x/√ᾱ over σ = √((1-ᾱ)/ᾱ) the flow is dx/dσ = ε̂: go along ε̂(t) to s (`ddim`), then along the mean of
    ε̂(t) and ε̂(s). Since ε̂(s) - ε̂(t) = (x̂_0(t) - x̂_0(s))/σ_s, it is written with x̂_0: where σ is large, steps along
    ε̂ would cancel, and float32 lose all digits. The step to s = 0 is `ddim` alone.
    """
    schedule = _step(denoiser, xt, t, s, noise)
    x0 = denoiser(xt, t).x0
    xs = _towards(x0, schedule, xt, t, s, noise, 0.0)
    if s == 0:
        return xs
    ratio = ((schedule.log_snr(s) - schedule.log_snr(t)) / 2).exp()  # σ_t/σ_s
    turn = schedule.alpha_bar(s).sqrt() * (ratio - 1) / 2
    return xs + turn.to(xt.dtype) * (denoiser(xs, s).x0 - x0)


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


ALL: tuple[Step, ...] = (ancestral, ddim, dpmpp_2m, dpmpp_2m_sde, heun)
