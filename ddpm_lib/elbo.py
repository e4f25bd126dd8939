"""The bound on -log p_θ(x_0), term by term, and the weight that it puts on a loss (chapters `the_bound`, `l_simple`).

L_vlb = L_T + Σ_{t=2}^T L_t + L_0. Here L_t is the term of the step from t to t-1 (Ho et al. 2020 call it L_{t-1}).
All results are in nats per signal, float64, one for each signal of the batch. The likelihood is that of a
density: a continuous Gaussian decoder at the declared (β_1, σ_1), not bins of an 8-bit picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checks import (
    LARGEST,
    check_signals,
    check_tensor,
    count,
    holds,
    number,
    reals,
    schedule_of,
    step_variance,
    times,
    together,
)
from .diffusion import Prediction, q_sample
from .schedules import Schedule

__all__ = ["L_0", "L_T", "L_t", "Terms", "best_variance", "elbo", "gaussian_kl", "vlb"]

Denoise = Callable[..., Prediction]
Variance = Callable[[Schedule, Tensor, Tensor], Tensor]
"""σ² as a function of (schedule, t, s): `Schedule.beta`, the samplers' `beta_tilde`, `LearnedVariance.given(xt)`."""


class Terms(NamedTuple):
    """The parts of the bound, each (B,), nats per signal.

    `error` is the standard error of L_t + L_0 from the noises (and the times) that were drawn: NaN for one draw.
    """

    L_T: Tensor
    L_t: Tensor
    L_0: Tensor
    error: Tensor
    dim: int

    @property
    def total(self) -> Tensor:
        """L_vlb (B,), an upper bound on -log p_θ(x_0)."""
        return self.L_T + self.L_t + self.L_0

    def bits_per_dim(self) -> Tensor:
        """L_vlb (B,) in bits per dimension: total / (C·L·log 2). May be negative: it is a density."""
        return self.total / (self.dim * math.log(2))


def gaussian_kl(square: Tensor, var_1: Tensor, var_2: Tensor, dim: int) -> Tensor:
    """D_KL(N(m_1, var_1·I) ‖ N(m_2, var_2·I)) in nats, with square = ‖m_1 - m_2‖²: step D11.

    >>> gaussian_kl(torch.tensor(2.0), torch.tensor(1.0), torch.tensor(1.0), dim=3)
    tensor(1.)
    """
    square, var_1, var_2 = together("A square or a variance", square, var_1, var_2)
    if not all(holds((v >= low) & (v <= LARGEST**2)) for v, low in ((square, 0), (var_1, 1e-20), (var_2, 1e-20))):
        raise ValueError("A divergence needs square >= 0 and variances > 0, all of them finite.")
    ratio = var_1 / var_2
    return 0.5 * (square / var_2 + count(dim, "dim") * (ratio - 1 - ratio.log()))


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


def vlb(
    schedule: Schedule, t: Tensor, variance: Variance | Tensor = Schedule.beta, sigma_1: float | None = None
) -> Tensor:
    """What the bound puts in front of ‖x_0 - x̂_0‖², (B,): ᾱ_{t-1}β_t²/(2σ_t²(1-ᾱ_t)²), steps D13 and D17.

    In front of ‖ε - ε̂‖² that is β_t²/(2σ_t²α_t(1-ᾱ_t)): report (50), Ho et al. (12). With σ² = β̃ it is
    ½(SNR_{t-1} - SNR_t). Made for `loss(weight=vlb)`; for another variance fix it with `functools.partial`.

    Args:
        t: (B,), 1…T.
        variance: σ² as a function of (schedule, t, s), or a table (T+1,).
        sigma_1: the decoder's standard deviation, √β_1 where it is not given.

    >>> from ddpm_lib import linear
    >>> t = torch.tensor([1, 10, 100, 500, 1000])
    >>> [f"{w:.5f}" for w in vlb(linear(), t) / linear().snr(t)]
    ['0.50005', '0.07372', '0.01008', '0.00550', '0.01020']
    """
    t = reals(t, "t")
    return _step(schedule, t)[0] / (2 * _sigma2(schedule, t, variance, sigma_1))


def _step(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """‖μ̃ - μ_θ‖²/‖x_0 - x̂_0‖² and β̃ of the step from t to t-1, each (B,)."""
    noise_t, noise_s = (-torch.expm1(schedule.log_alpha_bar(v)) for v in (t, t - 1))
    beta = schedule.beta(t)
    return schedule.alpha_bar(t - 1) * (beta / noise_t) ** 2, noise_s / noise_t * beta


def L_T(x0: Tensor, schedule: Schedule) -> Tensor:
    """D_KL(q(x_T|x_0) ‖ N(0, I)) = ½[ᾱ_T(‖x_0‖² - N) - N·log(1-ᾱ_T)], (B,), N = C·L: step D8, the first term of (38).

    Args:
        x0: (B, C, L).

    >>> from ddpm_lib import linear
    >>> f"{L_T(torch.ones(1, 1, 128), linear()).item():.4e}"
    '2.5830e-03'
    """
    check_signals(x0)
    log_ab = schedule.log_alpha_bar(schedule.T)
    square = log_ab.exp() * x0.double().square().sum((1, 2))
    return gaussian_kl(square, -torch.expm1(log_ab), torch.ones((), dtype=torch.float64), x0[0].numel())


def _square_error(denoiser: Denoise, x0: Tensor, t: Tensor, xt: Tensor) -> Tensor:
    """(x_0 - x̂_0(x_t, t))² of every sample, (B, C, L)."""
    return (x0 - denoiser(xt, t).x0).double().square()


def L_t(denoiser: Denoise, x0: Tensor, t: Tensor | int, eps: Tensor, variance: Any = Schedule.beta) -> Tensor:
    """D_KL(q(x_{t-1}|x_t, x_0) ‖ p_θ(x_{t-1}|x_t)) at x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε, (B,), t ≥ 2: step D11, report (46).

    One draw of the expectation over x_t; its mean over ε ~ N(0, I) is the term of the bound.

    Args:
        denoiser: a `Denoiser` of any parametrisation or an oracle, with a ``schedule``.
        x0, eps: (B, C, L).
        t: 2…T, one number or (B,).
        variance: σ_t² as a function of (schedule, t, s), a table (T+1,), or a `LearnedVariance`.

    Raises:
        ValueError: t < 2, where q(x_0|x_1, x_0) is a point and has no density: that term is `L_0`.
    """
    schedule: Schedule = schedule_of(denoiser)
    t = times(t, check_signals(x0))
    if not (t >= 2).all():
        raise ValueError("L_t is defined for t >= 2; the term of t = 1 is the decoder, L_0.")
    xt = q_sample(x0, t, eps, schedule)
    sigma2 = _sigma2(schedule, t, variance, xt=xt)
    slope2, beta_tilde, sigma2 = (v if v.ndim == 3 else v[:, None, None] for v in (*_step(schedule, t), sigma2))
    return gaussian_kl(slope2 * _square_error(denoiser, x0, t, xt), beta_tilde, sigma2, 1).sum((1, 2))


def L_0(denoiser: Denoise, x0: Tensor, eps: Tensor, sigma_1: float | None = None) -> Tensor:
    """-log N(x_0; x̂_0(x_1), σ_1²·I) at x_1 = √ᾱ_1·x_0 + √β_1·ε, (B,): step D12, the last term of (38).

    Args:
        x0, eps: (B, C, L).
        sigma_1: the decoder's standard deviation, √β_1 where it is not given.
    """
    schedule: Schedule = schedule_of(denoiser)
    t = times(1, check_signals(x0))
    sigma2 = _sigma2(schedule, t, Schedule.beta, sigma_1)
    square = _square_error(denoiser, x0, t, q_sample(x0, t, eps, schedule)).sum((1, 2))
    return 0.5 * (square / sigma2 + x0[0].numel() * (2 * math.pi * sigma2).log())


@torch.no_grad()
def elbo(
    denoiser: Denoise,
    x0: Tensor,
    variance: Any = Schedule.beta,
    sigma_1: float | None = None,
    draws: int = 1,
    every_t: bool = True,
    generator: torch.Generator | None = None,
    eps: Tensor | None = None,
) -> Terms:
    """The bound -log p_θ(x_0) ≤ L_T + Σ_{t≥2} L_t + L_0 of each signal: report (38) with its expectations, step D13.

    The sum over t is exact, or (`every_t` = False) estimated from one random t of 2…T a draw; the mean over the
    noise is estimated from `draws` noises at each t. Both estimates are unbiased and come with a standard error.

    Args:
        denoiser: a `Denoiser` of any parametrisation or an oracle, with a ``schedule``.
        x0: (B, C, L).
        variance: σ_t² for t ≥ 2, as for `L_t`: `beta_tilde`, the table of `best_variance`, a `LearnedVariance`.
        sigma_1: the decoder's standard deviation, √β_1 where it is not given.
        draws: estimates that are averaged; their spread is the standard error.
        every_t: whether each estimate sums over all t.
        generator: a CPU generator.
        eps: noises to use at every t instead of drawing, (draws, B, C, L): ±1 are exact for a linear denoiser.

    >>> from ddpm_lib import Gaussian, linear
    >>> exact = Gaussian(torch.zeros(1, 1).double(), torch.eye(1).double(), linear())
    >>> one = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> f"{elbo(exact, one, eps=torch.stack([one, -one])).total.item():.6f}"  # -log N(1; 0, 1): no gap
    '1.418939'
    """
    check_signals(x0), count(draws, "The number of draws", high=10**6)
    if eps is not None:
        check_tensor(eps, "The table of noises", "draws", *x0.shape)
    schedule: Schedule = schedule_of(denoiser)
    last, parts = schedule.T, []

    def noise(k: int) -> Tensor:
        return torch.randn(x0.shape, generator=generator).to(x0) if eps is None else eps[k].to(x0)

    for k in range(draws if eps is None else len(eps)):
        first = L_0(denoiser, x0, noise(k), sigma_1)
        middle = torch.zeros_like(first)
        if every_t:
            middle = sum((L_t(denoiser, x0, t, noise(k), variance) for t in range(2, last + 1)), middle)
        elif last > 1:
            t_k = torch.randint(2, last + 1, (len(x0),), generator=generator).to(x0.device)
            middle = (last - 1) * L_t(denoiser, x0, t_k, noise(k), variance)
        parts.append(torch.stack([middle, first]))
    all_parts = torch.stack(parts)  # (draws, 2, B)
    spread = all_parts.sum(1).std(0) if len(parts) > 1 else torch.full_like(all_parts[0, 0], math.nan)
    L_rest, L_first = all_parts.mean(0)
    return Terms(L_T(x0, schedule), L_rest, L_first, spread / math.sqrt(len(parts)), x0[0].numel())


@torch.no_grad()
def best_variance(denoiser: Denoise, x0: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The fixed σ_t² with the smallest bound, a table (T+1,): β̃_t + E‖μ̃ - μ_θ‖²/N, step D11; [1] is the best σ_1².

    Args:
        denoiser: a `Denoiser` or an oracle, with a ``schedule``.
        x0: (B, C, L), the signals that the expectation is taken over, each with one noise at each t.
    """
    check_signals(x0)
    schedule: Schedule = schedule_of(denoiser)
    t, square = torch.arange(1, schedule.T + 1), []
    for k in t:
        xt = q_sample(x0, k.to(x0.device), torch.randn(x0.shape, generator=generator).to(x0), schedule)
        square.append(_square_error(denoiser, x0, times(k, x0), xt).mean().cpu())
    slope2, beta_tilde = _step(schedule, t)
    return torch.cat([torch.zeros(1, dtype=torch.float64), beta_tilde + slope2 * torch.stack(square)])
