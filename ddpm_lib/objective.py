"""The loss of training: L_simple, other weights over t, and how t is drawn.

Chapters `l_simple`, `training` and `targets_and_weights`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .checks import check_signals, check_tensor, count, number, schedule_of, times
from .diffusion import Prediction, q_sample
from .schedules import Schedule

__all__ = ["draw_times", "flow_matching", "loss", "min_snr", "simple"]

Weight = Callable[[Schedule, Tensor], Tensor]
"""(schedule, t (B,)) → the weight (B,) of ‖x_0 - x̂_0‖²: one meaning for every parametrisation."""


def simple(schedule: Schedule, t: Tensor) -> Tensor:
    """The weight of L_simple, report (51): SNR_t in front of ‖x_0 - x̂_0‖², which is 1 in front of ‖ε - ε̂‖²."""
    return schedule.snr(t)


def min_snr(schedule: Schedule, t: Tensor, gamma: float = 5.0) -> Tensor:
    """min(SNR_t, γ) in front of ‖x_0 - x̂_0‖², (B,): Hang et al. 2023, min-SNR-γ. With γ = ∞ it is `simple`."""
    return schedule.snr(t).clamp(max=number(gamma, "gamma", 0.0, math.inf, above=True))


def flow_matching(schedule: Schedule, t: Tensor) -> Tensor:
    """(√SNR_t + 1)² in front of ‖x_0 - x̂_0‖², (B,): ‖u - û‖² of u = ε - x_0 (Lipman et al. 2023, eq. 9).

    For ε̂ and x̂_0 that belong to the same x_t, ε - ε̂ = -√SNR·(x_0 - x̂_0), so u - û = -(√SNR + 1)·(x_0 - x̂_0).
    """
    return (schedule.snr(t).sqrt() + 1).square()


def draw_times(
    n: int, schedule: Schedule, generator: torch.Generator | None = None, density: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Times t in 1…T and the weights that keep a mean over them unbiased: (t (n,), weight (n,)).

    Args:
        density: (T,), how often each t is drawn, up to a factor; uniform where it is not given, and then
            every weight is 1. Otherwise weight = (1/T)/p(t): importance sampling (Nichol & Dhariwal 2021, sec. 3.3).
    """
    count(n, "The number of times")
    if density is None:
        return torch.randint(1, schedule.T + 1, (n,), generator=generator), torch.ones(n)
    if not (check_tensor(density, "The density over t", schedule.T) > 0).all():
        raise ValueError(f"The density over t must be positive, got values from {density.min():.3g}.")
    p = density / density.sum()
    k = torch.multinomial(p, n, replacement=True, generator=generator)
    return k + 1, 1 / (schedule.T * p[k])


def loss(
    denoiser: Callable[..., Prediction],
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    weight: Weight = simple,
    cond: Tensor | None = None,
) -> Tensor:
    """L_simple of each signal, ‖ε - ε̂(x_t, t)‖² a sample: report (52), Ho et al. (14).

    Args:
        denoiser: a `Denoiser`, or an exact one, with a ``schedule``.
        x0, eps: (B, C, L).
        t: (B,), 1…T: 0 has no noise to predict.
        weight: another weight over t, as a function of schedule and t.
        cond: (B, P), what the denoiser is told besides.

    Returns:
        (B,), the mean over channels and samples. With `simple` a denoiser that always says ε̂ = 0 has 1.
    """
    schedule: Schedule = schedule_of(denoiser)
    t = times(t, check_signals(x0))
    if (t <= 0).any():
        raise ValueError(f"The loss needs times in 1…{schedule.T}, got {t.min()}: at 0 there is no noise to predict.")
    error = (eps - denoiser(q_sample(x0, t, eps, schedule), t, cond).eps).square().mean((1, 2))
    if weight is simple:
        return error
    return (weight(schedule, t) / schedule.snr(t)).to(error.dtype) * error


ALL = (min_snr, flow_matching)
