"""Variances of the reverse step: fixed ones, a learned one, and the best there is.

Chapters `reverse_process` and `variance_and_likelihood`.

The learned one is that of Nichol & Dhariwal 2021, section 3.1; the numbers of equations are those of their arXiv
version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import (
    check_signals,
    check_tensor,
    holds,
    noised,
    number,
    same_shape,
    schedule_of,
    step_variance,
    takes,
    times,
)
from .denoiser import Prediction
from .likelihood import posterior_variance
from .schedules import Schedule

__all__ = ["AnalyticVariance", "LearnedVariance", "beta", "beta_tilde", "interpolated"]


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


Variance = Callable[[Schedule, Tensor, Tensor], Tensor]
"""σ² as a function of (schedule, t, s): `Schedule.beta`, the samplers' `beta_tilde`, `LearnedVariance.given(xt)`."""


def _sigma2(schedule: Schedule, t: Tensor, variance: Any, sigma_1: Any = None, xt: Tensor | None = None) -> Tensor:
    """σ_t² in float64, (B,), or (B, C, L) where it depends on x_t; at t = 1 the decoder's σ_1², β_1 if not given."""
    if isinstance(variance, Tensor):
        if t.is_floating_point():
            raise TypeError(f"A table of variances is read at integer t, got {t.dtype}.")
        out = check_tensor(variance, "A table of variances", schedule.T + 1).to(t.device, torch.float64)[t]
    else:
        out = step_variance(variance, schedule, t, t - 1, xt)
    first = schedule.beta(torch.ones_like(t)) if sigma_1 is None else number(sigma_1, "σ_1") ** 2 + 0 * t.double()
    if out.ndim < 3:  # one that depends on x_t is never asked at t = 1
        out = torch.where(t == 1, first, out)
    if not (torch.isfinite(out) & (out > 0)).all():
        raise ValueError("σ² must be positive and finite at every t: σ = 0 puts an infinite weight on the error.")
    return out


def _step(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """‖μ̃ - μ_θ‖²/‖x_0 - x̂_0‖² and β̃ of the step from t to t-1, each (B,)."""
    noise_t, noise_s = (-torch.expm1(schedule.log_alpha_bar(v)) for v in (t, t - 1))
    beta = schedule.beta(t)
    return schedule.alpha_bar(t - 1) * (beta / noise_t) ** 2, noise_s / noise_t * beta


def interpolated(schedule: Schedule, t: Tensor | float, s: Tensor | float, v: Tensor) -> Tensor:
    """σ² = exp(v·log β + (1-v)·log β̃) of the step from t to s, eq. (15): β̃ where v is 0, β where it is 1.

    Args:
        t, s: 0 < s < t ≤ T, one number or (B,): at s = 0 β̃ is 0 and there is nothing between it and β.
        v: (B, C, L); far above 1, where σ² is no longer a sensible number, it is refused.

    >>> from ddpm_lib import linear
    >>> half = interpolated(linear(), 2, 1, torch.full((1, 1, 1), 0.5))
    >>> f"{half.item():.4e}, half way to β = {linear().beta(2):.4e}"
    '8.0867e-05, half way to β = 1.1992e-04'
    """
    beta_tilde, beta = _ends(schedule, t, s, check_signals(v, "v"))
    return check_signals(beta_tilde * (v.double() * (beta / beta_tilde).log()).exp(), "σ² of these v")


def _ends(schedule: Schedule, t: Tensor | float, s: Tensor | float, v: Tensor) -> tuple[Tensor, Tensor]:
    """β̃ and β of the step from t to s, each (B, 1, 1)."""
    t, s = (times(time, v, "cpu") for time in (t, s))
    if not ((s > 0) & (s < t)).all():
        raise ValueError("A learned variance needs 0 < s < t: the step to 0 is the decoder, whose σ_1 is declared.")
    noise_t, noise_s = (-torch.expm1(schedule.log_alpha_bar(time)) for time in (t, s))
    beta = schedule.beta(t, s).to(v.device)[:, None, None]
    return (noise_s / noise_t).to(v.device)[:, None, None] * beta, beta


def _as_noisy(own: Schedule, other: Schedule, t: Tensor | float) -> Tensor | float:
    """The time at which one's own schedule is as noisy as the other is at t."""
    return t if own is other else own.at_log_snr(other.log_snr(t))


class LearnedVariance(nn.Module):
    """σ² of every sample, between β̃ and β as far as a network says so: eq. (15), for any step from t to s.

    The network is told x_t, what the denoiser makes of it, and the noise level. v is not kept within 0…1, as in the
    paper. Give it to `elbo`, `L_t` or `ancestral` as their variance. It begins at s = 1: σ_1 is the decoder's.

    Args:
        network: (x (B, 2C, L), log_snr (B,), None) → v (B, C, L), such as a small ``UNet1D(2, 1)``, v starts at 0.
        denoiser: the mean, with a ``schedule``; no gradient reaches it from here.

    >>> from ddpm_lib import Gaussian, UNet1D, linear
    >>> mean = Gaussian(torch.zeros(1, 16), torch.eye(16), linear())
    >>> untrained = LearnedVariance(UNet1D(2, 1, width=8, blocks=1), mean)
    >>> untrained.v(torch.randn(3, 1, 16), 500).abs().max().item()
    0.0
    """

    def __init__(self, network: nn.Module, denoiser: Callable[..., Prediction]):
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(f"A learned variance needs a network, got {type(network).__name__}.")
        takes(network.forward, 3, "A learned variance needs a network of (x, log_snr, cond)")
        self.schedule: Schedule = schedule_of(denoiser)
        self.network = network
        self._mean = [denoiser]  # in a list, so that its weights are not this module's

    def v(self, xt: Tensor, t: Tensor | float) -> Tensor:
        """xt (B, C, L), t (B,) → v (B, C, L)."""
        t, _, _ = noised(xt, t, self.schedule)
        with torch.no_grad():
            x0 = self._mean[0](xt, t).x0
        out = self.network(torch.cat([xt, x0], 1), self.schedule.log_snr(t, xt.dtype), None)
        same_shape(xt, out, "the signals and v")
        return out

    def given(self, xt: Tensor) -> Variance:
        """σ² (B, C, L) as a function of (schedule, t, s), at this x_t (B, C, L)."""
        return lambda schedule, t, s: interpolated(schedule, t, s, self.v(xt, _as_noisy(self.schedule, schedule, t)))


class AnalyticVariance:
    """The σ² of every sample with the smallest bound, (1-ω)β̃ + ωβ, where ω = Var[x_0|x_t]/(1-ᾱ_t) is known.

    It is the variance of x_s given x_t, sample by sample, for any step. Bao et al. 2022, theorem 1, have its mean over
    samples and signals, which `best_variance` estimates. Exact for the exact denoiser; of a network
    `posterior_variance` takes the derivative, which is dear; where that is negative, a hundredth of β̃ is kept.

    Args:
        denoiser: the mean, with a ``schedule``.

    >>> from ddpm_lib import Gaussian, linear
    >>> exact = Gaussian(torch.zeros(1, 4), torch.eye(4), linear())
    >>> sigma2 = AnalyticVariance(exact).given(torch.ones(1, 1, 4))(linear(), 500, 499)
    >>> bool(torch.allclose(sigma2, linear().beta(500)))  # unit power: β
    True
    """

    def __init__(self, denoiser: Callable[..., Prediction]):
        self.denoiser, self.schedule = denoiser, schedule_of(denoiser)

    def given(self, xt: Tensor) -> Variance:
        """σ² (B, C, L) as a function of (schedule, t, s), at this x_t (B, C, L)."""

        def sigma2(schedule: Schedule, t: Tensor | float, s: Tensor | float) -> Tensor:
            beta_tilde, beta = _ends(schedule, t, s, check_signals(xt, "xt"))
            noise = -torch.expm1(schedule.log_alpha_bar(times(t, xt))).to(xt.device)[:, None, None]
            omega = posterior_variance(self.denoiser, xt, _as_noisy(self.schedule, schedule, t)).double() / noise
            return (beta_tilde + omega * (beta - beta_tilde)).clamp(min=beta_tilde / 100)

        return sigma2


ALL = (LearnedVariance, AnalyticVariance)
