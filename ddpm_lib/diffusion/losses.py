"""The loss of training: L_simple, and other weights over t.

Chapters `l_simple`, `training`, `targets_and_weights` and `variance_and_likelihood`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..shapes import Float, Real, Time
from .bound import bound_of
from .denoiser import DenoiserLike
from .forward import q_sample
from .schedules import Schedule, times
from .variances import Variance, beta, sigma2_of, slope2

__all__ = ["flow_matching", "hybrid", "loss", "min_snr", "simple", "truncated", "vlb"]

Weight = Callable[[Schedule, Real[Tensor, "B"]], Float[Tensor, "B"]]
"""(schedule, t) → the weight of ‖x_0 - x̂_0‖²: one meaning for every parametrisation."""


def simple(schedule: Schedule, t: Real[Tensor, "B"]) -> Float[Tensor, "B"]:
    """The weight of L_simple, report (51): SNR_t in front of ‖x_0 - x̂_0‖², which is 1 in front of ‖ε - ε̂‖²."""
    return schedule.snr(t)


def min_snr(schedule: Schedule, t: Real[Tensor, "B"], gamma: float = 5.0) -> Float[Tensor, "B"]:
    """min(SNR_t, γ) in front of ‖x_0 - x̂_0‖²: Hang et al. 2023, min-SNR-γ. With γ = ∞ it is `simple`."""
    return schedule.snr(t).clamp(max=gamma)


def flow_matching(schedule: Schedule, t: Real[Tensor, "B"]) -> Float[Tensor, "B"]:
    """(√SNR_t + 1)² in front of ‖x_0 - x̂_0‖²: ‖u - û‖² of u = ε - x_0 (Lipman et al. 2023, eq. 9).

    For ε̂ and x̂_0 that belong to the same x_t, ε - ε̂ = -√SNR·(x_0 - x̂_0), so u - û = -(√SNR + 1)·(x_0 - x̂_0).
    """
    return (schedule.snr(t).sqrt() + 1).square()


def vlb(
    schedule: Schedule, t: Real[Tensor, "B"], variance: Variance = beta, sigma_1: float | None = None
) -> Float[Tensor, "B"]:
    """What the bound puts in front of ‖x_0 - x̂_0‖²: ᾱ_{t-1}β_t²/(2σ_t²(1-ᾱ_t)²), steps D13 and D17.

    In front of ‖ε - ε̂‖² that is β_t²/(2σ_t²α_t(1-ᾱ_t)): report (50), Ho et al. (12). With σ² = β̃ it is
    ½(SNR_{t-1} - SNR_t). Made for `loss(weight=vlb)`; for another variance fix it with `functools.partial`.

    Args:
        t: 1…T.
        variance: σ² that does not depend on x_t.
        sigma_1: the decoder's standard deviation, √β_1 by default.

    >>> import torch
    >>> from ddpm_lib import linear
    >>> t = torch.tensor([1, 10, 100, 500, 1000])
    >>> [f"{w:.5f}" for w in vlb(linear(), t) / linear().snr(t)]
    ['0.50005', '0.07372', '0.01008', '0.00550', '0.01020']
    """
    return slope2(schedule, t) / (2 * sigma2_of(variance, schedule, t, sigma_1))


def truncated(schedule: Schedule, t: Real[Tensor, "B"]) -> Float[Tensor, "B"]:
    """max(SNR_t, 1) in front of ‖x_0 - x̂_0‖²: Salimans & Ho 2022, sec. 4, eq. 9.

    In few steps much is decided at low SNR, where the weight of L_simple is next to 0.
    """
    return schedule.snr(t).clamp(min=1)


def loss(
    denoiser: DenoiserLike,
    x0: Float[Tensor, "B C L"],
    t: Time,
    eps: Float[Tensor, "B C L"],
    weight: Weight = simple,
    cond: Float[Tensor, "B P"] | None = None,
) -> Float[Tensor, "B"]:
    """L_simple of each signal, ‖ε - ε̂(x_t, t)‖² per sample: report (52), Ho et al. (14).

    Args:
        denoiser: a `Denoiser`, or an exact one.
        t: 1…T: at 0 there is no noise to predict.
        weight: another weight over t, as a function of schedule and t.
        cond: the condition of each signal, NaN where there is none.

    Returns:
        The mean over channels and samples. With `simple` a denoiser with ε̂ = 0 has 1.
    """
    schedule, t = denoiser.schedule, times(t, x0)
    error = (eps - denoiser(q_sample(x0, t, eps, schedule), t, cond).eps).square().mean((1, 2))
    return error if weight is simple else (weight(schedule, t) / schedule.snr(t)).to(error) * error


def hybrid(
    denoiser: DenoiserLike,
    x0: Float[Tensor, "B C L"],
    t: Time,
    eps: Float[Tensor, "B C L"],
    variance: Variance,
    scale: float = 1e-3,
    sigma_1: float | None = None,
) -> Float[Tensor, "B"]:
    """L_hybrid = L_simple + λ·L_vlb, eq. (16), of one t each. The gradient of L_vlb stops at the mean.

    Without the T of `bound_at` the bound would count a thousandth at T = 1000.

    Args:
        denoiser: the mean, which learns from L_simple alone.
        x0, t, eps, sigma_1: as for `bound_at`.
        variance: a `LearnedVariance`, which learns from L_vlb alone, or any that `L_t` takes.
        scale: λ; 0.001 in the paper.
    """
    t = times(t, x0)
    xt = q_sample(x0, t, eps, denoiser.schedule)
    estimate = denoiser(xt, t)
    bound = bound_of(denoiser.schedule, x0, estimate.x0.detach(), xt, t, variance, sigma_1)
    return (eps - estimate.eps).square().mean((1, 2)) + scale * bound


ALL: tuple[Weight, ...] = (simple, min_snr, flow_matching, vlb, truncated)
