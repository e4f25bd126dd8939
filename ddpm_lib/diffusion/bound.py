"""The bound on -log p_θ(x_0), term by term (chapter `the_bound`).

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

from ..checks import (
    LARGEST,
    check_signals,
    check_tensor,
    count,
    holds,
    same_shape,
    schedule_of,
    times,
    together,
)
from .denoiser import Prediction
from .forward import q_sample
from .schedules import Schedule
from .variances import _sigma2, _step

__all__ = ["L_0", "L_T", "L_t", "Terms", "best_variance", "bound_at", "elbo", "gaussian_kl"]


Denoise = Callable[..., Prediction]


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
