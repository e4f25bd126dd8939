"""Steps of samplers (chapters `sampling` and `grids_and_solvers`).

A step takes x_t to x_s for any 0 ≤ s < t. It is a function (denoiser, xt, t, s, noise) → xs, so a new sampler
is one function, and the loop stays the same. A step that looks back finds the last answer in the denoiser that the
loop hands it, a `Memory`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checks import check_signals, number, same_shape, schedule_of, step_variance
from ..diffusion.denoiser import Prediction
from ..diffusion.forward import q_posterior
from ..diffusion.schedules import Schedule
from ..diffusion.variances import beta_tilde

__all__ = ["ancestral", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "heun"]


Denoise = Callable[..., Prediction]


Step = Callable[[Denoise, Tensor, float, float, Tensor], Tensor]


def _step(denoiser: Denoise, xt: Tensor, t: float, s: float, noise: Tensor) -> Schedule:
    """The schedule, once the arguments of a step have been looked at."""
    schedule: Schedule = schedule_of(denoiser)
    same_shape(check_signals(xt, "xt"), noise, "xt and noise")
    if not number(s, "s", 0.0) < number(t, "t"):
        raise ValueError(f"A step goes back in time: s must be smaller than t, got t = {t} and s = {s}.")
    return schedule


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


ALL: tuple[Step, ...] = (ancestral, ddim, dpmpp_2m, dpmpp_2m_sde, heun)
