"""Signals that were measured with noise: what the best denoiser of them is, and clean signals from it.

Chapter `noisy_data`.

A noisy signal y = x_0 + σ·n that is noised further, x_t = √ᾱ_t·y + √(1-ᾱ_t)·ε, is a clean signal with noise of
variance v = ᾱ_t·σ² + 1-ᾱ_t. Everything here follows from that one line.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..checks import check_number
from ..diffusion.denoiser import DenoiserLike, Prediction
from ..diffusion.schedules import times
from ..diffusion.variances import posterior_covariance
from ..shapes import Float, Real, Time
from .family import FamilyOracle

__all__ = ["Cleaned", "NoisyOracle"]


class NoisyOracle(nn.Module):
    """The exact denoiser of `Noisy` signals, E[y | x_t], from the exact denoiser of the clean ones.

    x_t scaled to the size that the forward process gives a clean signal at the noise v tells E[x_0|x_t]; of the noise
    x_t - √ᾱ·x_0 the share (1-ᾱ)/v is the process's own.

    Args:
        oracle: of the clean family.
        sigma: standard deviation of the noise in the data.
    """

    def __init__(self, oracle: DenoiserLike, sigma: float):
        super().__init__()
        self.oracle, self.schedule = oracle, oracle.schedule
        self.sigma = check_number(sigma, "The noise of data", 0.0, 1e6)

    def _alone(
        self, xt: Float[Tensor, "B C L"], t: Real[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B C L"], Float[Tensor, "B"], Float[Tensor, "B 1 1"]]:
        """x_t at the size that the forward process gives a clean signal, the time of that; v."""
        ab = self.schedule.alpha_bar(t)
        v = ab * self.sigma**2 + 1 - ab
        time = self.schedule.at_log_snr((ab / v).log())
        v, size = (z.to(xt)[:, None, None] for z in (v, (ab + v).rsqrt()))
        return size * xt, time, v

    def forward(self, xt: Float[Tensor, "B C L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """The estimate of the noisy signal, at times 0 < t ≤ T."""
        t, a, s = self.schedule.at(t, xt)
        alone, time, v = self._alone(xt, t)
        x0 = self.oracle(alone, time).x0
        return Prediction.from_eps((xt - a * x0) * s / v, xt, a, s)

    def covariance(self, xt: Float[Tensor, "B C L"], t: Time) -> Float[Tensor, "B C*L C*L"]:
        """Cov[y | x_t]: ((1-ᾱ)/v)²·Cov[x_0|x_t] + σ²(1-ᾱ)/v·I."""
        t, _, s = self.schedule.at(t, xt)
        alone, time, v = self._alone(xt, t)
        clean = posterior_covariance(self.oracle, alone, time)
        return (s**2 / v) ** 2 * clean + self.sigma**2 * s**2 / v * torch.eye(clean.shape[-1]).to(clean)

    def log_density(self, xt: Float[Tensor, "B 1 L"], t: Time = 0) -> Float[Tensor, "B"]:
        """log p(x_t) in nats; at t = 0 that of the noisy signals themselves. Needs the oracle of a family.

        Raises:
            TypeError: the denoiser of the clean signals is a network or another oracle.
            ValueError: clean signals, which have no density: a noise of 0 at t = 0.
        """
        t = times(t, xt)
        if not isinstance(self.oracle, FamilyOracle):
            raise TypeError("Only the exact denoiser of a family knows the density, not a network or another oracle.")
        if self.sigma == 0 and not (t > 0).all():
            raise ValueError("Clean signals have no density: give a noise sigma > 0, or times above 0.")
        alone, time, v = self._alone(xt, t)
        evidence = self.oracle.with_evidence(alone, time, tails=3)[1]
        size = -0.5 * (self.schedule.alpha_bar(t) + v.flatten()).log()
        return evidence + (xt[0].numel() * size).to(evidence)


class Cleaned(nn.Module):
    """What a denoiser of `Noisy` signals knows of the clean ones: E[x_0 | x_t], where x_t is noisier than the data.

    The inverse of `NoisyOracle`. Both noises are Gaussian, so the distribution of x_t and its score do not depend on
    which of them is the data's. In x = x_t/√ᾱ_t, with τ² = (1-ᾱ_t)/ᾱ_t and the denoiser's answer ŷ at the noise
    √(τ²-σ²), Tweedie's formula taken twice gives x̂_0 = x + τ²/(τ²-σ²)·(ŷ - x) (Daras et al. 2024). Below τ = σ a
    denoiser of these data has seen nothing, and an error says so: end the steps of a sampler at `end`, from where one
    leads to the mean.

    An error of the network's ε̂ comes out τ²/√(τ²-σ²) times as large in x̂_0, least at τ = √2·σ.

    Args:
        denoiser: trained on signals y = x_0 + σ·n.
        sigma: standard deviation of the noise in the data.
        ratio: τ/σ at `end`, above 1. An exact denoiser may go nearer to 1.

    Attributes:
        end: the time at which the noise over the signal, √(1-ᾱ)/√ᾱ, is `ratio` times the data's; at least 1.
    """

    def __init__(self, denoiser: DenoiserLike, sigma: float, ratio: float = math.sqrt(2)):
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.sigma = check_number(sigma, "The noise of data", 0.0, 1e6)
        check_number(ratio, "ratio", 1.0, 1e6, above=True)
        self.end = max(1.0, float(self.schedule.at_log_snr(-2 * math.log(ratio * sigma)))) if sigma else 1.0

    def forward(self, xt: Float[Tensor, "B C L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """The estimate of a clean signal that is noised to t.

        Raises:
            ValueError: times at which x_t is less noisy than the data.
        """
        t, a, s = self.schedule.at(t, xt)
        ab = self.schedule.alpha_bar(t)
        left = (1 - ab) / ab - self.sigma**2  # noise over signal, squared, that the process adds to the noisy signal
        if not (left > 0).all():
            raise ValueError(
                f"These data hold noise of {self.sigma:g}: a denoiser of them has seen nothing below that. "
                f"Take times from {self.end:.0f} on."
            )
        inner = self.schedule.at_log_snr(-left.log())
        ab_inner = 1 / (1 + left)
        scale = (ab_inner / ab).sqrt().to(xt)[:, None, None]
        eps = self.denoiser(scale * xt, inner, cond).eps
        # the process's noise is the share (1-ᾱ)/v of all of it
        whole = eps * ((1 - ab) / ab / left).sqrt().to(xt)[:, None, None]
        return Prediction.from_eps(whole, xt, a, s)
