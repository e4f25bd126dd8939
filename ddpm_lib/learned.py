"""Variances of the reverse step that depend on x_t: a learned one and its loss, and the best there is.

Chapter `variance_and_likelihood`.

The learned one is that of Nichol & Dhariwal 2021, sections 3.1 and 3.3; the numbers of equations are those of their
arXiv version.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_signals, check_tensor, count, noised, number, same_shape, schedule_of, takes, times
from .diffusion import Prediction, q_sample
from .elbo import L_0, L_t, Variance
from .likelihood import posterior_variance
from .schedules import Schedule

__all__ = ["AnalyticVariance", "LearnedVariance", "LossHistory", "bound_at", "hybrid", "interpolated"]


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


class _Answered:
    """A denoiser that has been asked already."""

    def __init__(self, schedule: Schedule, x0: Tensor):
        self.schedule, self.x0 = schedule, x0

    def __call__(self, xt: Tensor, t: Tensor | float) -> Prediction:
        return Prediction(self.x0, self.x0)


def bound_at(
    denoiser: Callable[..., Prediction],
    x0: Tensor,
    t: Tensor | int,
    eps: Tensor,
    variance: Any = Schedule.beta,
    sigma_1: float | None = None,
) -> Tensor:
    """The bound from one t, T·L_t in bits per dimension, (B,): its mean over t uniform on 1…T is L_vlb - L_T.

    L_vlb is a sum over t, and E_t[L_t] a T-th of it. The term of t = 1 is the decoder's, L_0.

    Args:
        denoiser: the mean, with a ``schedule``.
        x0, eps: (B, C, L).
        t: 1…T, one number or (B,), drawn uniformly, or with `draw_times`, whose weights then multiply the result.
        variance: σ_t² for t ≥ 2, as `L_t` takes it.
        sigma_1: the decoder's standard deviation, √β_1 where it is not given.

    >>> from ddpm_lib import Gaussian, linear
    >>> exact, one = Gaussian(torch.zeros(1, 1), torch.eye(1), linear()), torch.ones(1000, 1, 1)
    >>> terms = bound_at(exact, one, torch.arange(1, 1001), one) + bound_at(exact, one, torch.arange(1, 1001), -one)
    >>> f"{terms.mean().item() / 2:.3f} bits"  # -log N(1; 0, 1) = 1.419 nats
    '2.047 bits'
    """
    schedule: Schedule = schedule_of(denoiser)
    t = times(t, check_signals(x0))
    same_shape(x0, eps, "x0 and eps")
    hat = denoiser(q_sample(x0, t, eps, schedule), t).x0
    out = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    for k in ((t == 1).nonzero()[:, 0], (t != 1).nonzero()[:, 0]):
        if len(k):
            said, decoder = _Answered(schedule, hat[k]), bool(t[k[0]] == 1)
            term = L_0(said, x0[k], eps[k], sigma_1) if decoder else L_t(said, x0[k], t[k], eps[k], variance)
            out = out.index_put((k,), term)
    return out * schedule.T / (x0[0].numel() * math.log(2))


def hybrid(
    denoiser: Callable[..., Prediction],
    x0: Tensor,
    t: Tensor | int,
    eps: Tensor,
    variance: Any,
    scale: float = 1e-3,
    sigma_1: float | None = None,
) -> Tensor:
    """L_hybrid = L_simple + λ·L_vlb, eq. (16), of one t each, (B,). The gradient of L_vlb stops at the mean.

    Without the T of `bound_at` the bound would count a thousandth at T = 1000.

    Args:
        denoiser: the mean, which learns from L_simple alone.
        x0, t, eps, sigma_1: as for `bound_at`.
        variance: a `LearnedVariance`, which learns from L_vlb alone, or any that `L_t` takes.
        scale: λ; 0.001 in the paper.
    """
    schedule: Schedule = schedule_of(denoiser)
    said = denoiser(q_sample(x0, t, eps, schedule), t)
    bound = bound_at(_Answered(schedule, said.x0.detach()), x0, t, eps, variance, sigma_1)
    return (eps - said.eps).square().mean((1, 2)) + number(scale, "scale", 0.0) * bound


class LossHistory:
    """How often to draw each t so that an estimate of Σ_t L_t scatters least: p_t ∝ √E[L_t²], eq. (18).

    The mean square is that of the last values of each t, ten in the paper; t is uniform until every t has as many.

    Args:
        T: number of steps.
        keep: values of each t that are kept.

    >>> history = LossHistory(T=3, keep=1)
    >>> history.density() is None
    True
    >>> history.add(torch.tensor([1, 2, 3]), torch.tensor([1.0, -2.0, 3.0]))
    >>> history.density()
    tensor([1., 2., 3.], dtype=torch.float64)
    """

    def __init__(self, T: int, keep: int = 10):
        count(T, "The number of steps T", high=10**6), count(keep, "The number of values to keep", high=1000)
        self.values = torch.zeros(T, keep, dtype=torch.float64)
        self.counts = torch.zeros(T, dtype=torch.long)

    def add(self, t: Tensor, values: Tensor) -> None:
        """Keep L_t of some t in 1…T, each (B,)."""
        values = check_tensor(values.detach().cpu() if isinstance(values, Tensor) else values, "The values", "B")
        t = times(t, values)
        if t.is_floating_point() or not ((t >= 1) & (t <= len(self.counts))).all():
            raise ValueError(f"The values belong to integers t in 1…{len(self.counts)}.")
        for k, value in zip((t - 1).tolist(), values.tolist(), strict=True):
            self.values[k, self.counts[k] % self.values.shape[1]] = value
            self.counts[k] += 1

    def density(self) -> Tensor | None:
        """(T,), what `draw_times` takes; None, which is uniform, until every t has been seen often enough."""
        if int(self.counts.min()) < self.values.shape[1]:
            return None
        root = self.values.square().mean(1).sqrt()
        return root.clamp(min=1e-3 * float(root.mean()) + 1e-30)  # no t is given up for good


ALL = (LearnedVariance, AnalyticVariance)
