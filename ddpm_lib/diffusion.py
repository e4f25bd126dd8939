"""The forward process, its posterior, and what a network predicts.

Chapters `forward_process`, `reverse_process` and `l_simple`.

Shapes: signals (B, C, L); times t (B,), 0 = data, T = noise. Notation of Ho et al. 2020; the numbers in
brackets are the equations of the report.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .checks import check_signals, exact_times, noised, same_shape, times
from .schedules import Schedule

__all__ = [
    "X0",
    "Denoiser",
    "Eps",
    "Normal",
    "Parametrisation",
    "Prediction",
    "U",
    "V",
    "q_posterior",
    "q_sample",
    "q_step",
]  # fmt: skip


class Prediction(NamedTuple):
    """What a denoiser says of x_t: both views of one estimate, x_t = √ᾱ_t·x0 + √(1-ᾱ_t)·eps. Each (B, C, L)."""

    x0: Tensor
    eps: Tensor


class Normal(NamedTuple):
    """N(mean, var·I): mean (B, C, L), var (B, 1, 1)."""

    mean: Tensor
    var: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + √var·noise, report (4)."""
        same_shape(self.mean, noise, "the mean and the noise")
        return self.mean + self.var.sqrt() * noise


def q_step(x_prev: Tensor, t: Tensor | int, eps: Tensor, schedule: Schedule) -> Tensor:
    """One forward step, x_t = √(1-β_t)·x_{t-1} + √β_t·ε_t with fresh ε_t: report (1) and (5).

    Args:
        x_prev, eps: (B, C, L).
        t: 1…T, one number or (B,): the step that is taken, from t-1 to t.
    """
    check_signals(x_prev, "x_prev")
    same_shape(x_prev, eps, "x_prev and eps")
    beta = schedule.beta(exact_times(t, x_prev))
    keep, add = ((1 - beta).sqrt().to(x_prev), beta.sqrt().to(x_prev))
    return keep * x_prev + add * eps


def q_sample(x0: Tensor, t: Tensor | int, eps: Tensor, schedule: Schedule) -> Tensor:
    """The jump x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε: report (9), Ho et al. (4).

    Args:
        x0: (B, C, L).
        eps: (B, C, L), ~ N(0, I).
        t: 0…T, one number or (B,).

    Raises:
        TypeError, ValueError: x0 not floating point, finite and (B, C, L); shapes that differ; t outside 0…T.

    >>> x0 = torch.ones(2, 1, 4)
    >>> from ddpm_lib import linear
    >>> q_sample(x0, torch.tensor([0, 1000]), torch.zeros_like(x0), linear())[:, 0, 0]
    tensor([1.0000, 0.0064])
    """
    check_signals(x0)
    same_shape(x0, eps, "x0 and eps")
    a, s = schedule(times(t, x0), x0.dtype)
    return a * x0 + s * eps


def q_posterior(
    x0: Tensor, xt: Tensor, t: Tensor | float, schedule: Schedule, s: Tensor | float | None = None
) -> Normal:
    """q(x_s | x_t, x_0) = N(μ̃, β̃·I), report (40), (42), (43); Ho et al. (6), (7), for any s < t.

    Args:
        x0, xt: (B, C, L).
        t, s: times, one number or (B,), 0 ≤ s < t; s is t - 1 where it is not given.

    Returns:
        Normal with mean μ̃ (B, C, L) and variance β̃ (B, 1, 1); at s = 0 it is a point mass at x0.
    """
    same_shape(check_signals(x0), xt, "x0 and xt")
    t = exact_times(t, xt)
    s = t - 1 if s is None else exact_times(s, xt)
    if not (s < t).all():
        raise ValueError("The posterior steps back in time: s must be smaller than t.")
    beta, ab_s = schedule.beta(t, s), schedule.alpha_bar(s)
    noise_t, noise_s = (-torch.expm1(schedule.log_alpha_bar(v)) for v in (t, s))  # 1-ᾱ without cancellation
    from_xt = (1 - beta).sqrt() * noise_s / noise_t
    from_x0 = ab_s.sqrt() * beta / noise_t
    from_xt, from_x0, var = (v.to(xt.dtype).to(xt.device) for v in (from_xt, from_x0, noise_s / noise_t * beta))
    return Normal(from_xt * xt + from_x0 * x0, var)


# --- what the network predicts ------------------------------------------------------------------------


class Parametrisation(Protocol):
    """What the network's output means: `target` is what it should be, `predict` turns it into x̂_0 and ε̂."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor: ...

    def predict(self, out: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction: ...


class Eps:
    """The network predicts the noise ε: the report's and Ho et al.'s choice, report (44) put right."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return eps

    def predict(self, out: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction:
        return Prediction(x0=(xt - s * out) / a, eps=out)


class X0:
    """The network predicts the signal x_0."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return x0

    def predict(self, out: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction:
        return Prediction(x0=out, eps=(xt - a * out) / s)


class U:
    """The network predicts u = ε - x_0, the velocity of flow matching (Lipman et al. 2023; Liu et al. 2023)."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return eps - x0

    def predict(self, out: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction:
        return Prediction(x0=(xt - s * out) / (a + s), eps=(xt + a * out) / (a + s))


class V:
    """The network predicts v = √ᾱ_t·ε - √(1-ᾱ_t)·x_0 (Salimans & Ho 2022, sec. 4)."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return a * eps - s * x0

    def predict(self, out: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction:
        return Prediction(x0=a * xt - s * out, eps=s * xt + a * out)


class Denoiser(nn.Module):
    """A network, a schedule and a parametrisation: everything that p_θ is made of.

    Called with noisy signals it returns both views of its estimate, so a sampler never asks what was trained.

    Args:
        network: (x (B, C, L), log_snr (B,), cond (B, P) or None) → (B, C, L).
        schedule: the noise schedule; the network is told log-SNR, so it can be sampled on another grid.
        parametrisation: `Eps()`, `X0()`, `V()`, `U()` or your own.

    >>> from ddpm_lib import linear
    >>> from ddpm_lib import UNet1D
    >>> untrained = Denoiser(UNet1D(), linear(), V())  # an untrained UNet1D returns 0
    >>> untrained(torch.ones(2, 1, 8), torch.tensor([1, 1000])).x0[:, 0, 0].detach()
    tensor([0.9999, 0.0064])
    """

    def __init__(self, network: nn.Module, schedule: Schedule, parametrisation: Parametrisation):
        super().__init__()
        self.network, self.schedule, self.parametrisation = network, schedule, parametrisation

    def forward(self, xt: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Prediction:
        """xt (B, C, L) at times t (B,), 0 < t ≤ T → Prediction of two (B, C, L)."""
        weights = self.network.parameters() if isinstance(self.network, nn.Module) else iter(())
        t, a, s = noised(xt, t, self.schedule, next(weights, None))
        out = self.network(xt, self.schedule.log_snr(t, xt.dtype), cond)
        if out.shape != xt.shape:
            raise ValueError(f"The network must return signals of shape {tuple(xt.shape)}, got {tuple(out.shape)}.")
        return self.parametrisation.predict(out, xt, a, s)


ALL = (Eps, X0, V, U)
