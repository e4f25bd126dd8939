"""The bound on -log p_θ(x_0), term by term (chapter `the_bound`).

L_vlb = L_T + Σ_{t=2}^T L_t + L_0. Here L_t is the term of the step from t to t-1 (Ho et al. 2020 call it L_{t-1}).
All results are in nats per signal, float64, one for each signal of the batch. The likelihood is that of a
density: a continuous Gaussian decoder at the declared (β_1, σ_1), not bins of an 8-bit picture.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_count, check_signals, check_tensor
from ..shapes import Float, Real, Time
from .denoiser import DenoiserLike
from .forward import q_sample
from .schedules import Schedule, times
from .variances import Variance, beta, per_signal, sigma2_of, slope2

__all__ = ["L_0", "L_T", "L_t", "Terms", "bound_at", "elbo", "gaussian_kl"]


class Terms(NamedTuple):
    """The parts of the bound, nats per signal.

    `error` is the standard error of L_t + L_0 from the noises (and the times) that were drawn: NaN for one draw.
    """

    L_T: Float[Tensor, "B"]
    L_t: Float[Tensor, "B"]
    L_0: Float[Tensor, "B"]
    error: Float[Tensor, "B"]
    dim: int

    @property
    def total(self) -> Float[Tensor, "B"]:
        """L_vlb, an upper bound on -log p_θ(x_0)."""
        return self.L_T + self.L_t + self.L_0

    def bits_per_dim(self) -> Float[Tensor, "B"]:
        """L_vlb in bits per dimension: total / (C·L·log 2). May be negative: it is a density."""
        return self.total / (self.dim * math.log(2))


def gaussian_kl(square: Tensor, var_1: Tensor, var_2: Tensor, dim: int) -> Tensor:
    """D_KL(N(m_1, var_1·I) ‖ N(m_2, var_2·I)) in nats, with square = ‖m_1 - m_2‖²: step D11.

    >>> gaussian_kl(torch.tensor(2.0), torch.tensor(1.0), torch.tensor(1.0), dim=3)
    tensor(1.)
    """
    ratio = var_1 / var_2
    return 0.5 * (square / var_2 + dim * (ratio - 1 - ratio.log()))


def L_T(x0: Float[Tensor, "B C L"], schedule: Schedule) -> Float[Tensor, "B"]:
    """D_KL(q(x_T|x_0) ‖ N(0, I)) = ½[ᾱ_T(‖x_0‖² - N) - N·log(1-ᾱ_T)], N = C·L: step D8, the first term of (38).

    >>> from ddpm_lib import linear
    >>> f"{L_T(torch.ones(1, 1, 128), linear()).item():.4e}"
    '2.5830e-03'
    """
    square = schedule.alpha_bar(schedule.T) * x0.double().square().sum((1, 2))
    return gaussian_kl(square, schedule.noise(schedule.T), torch.ones((), dtype=torch.float64), x0[0].numel())


def L_t(
    denoiser: DenoiserLike, x0: Float[Tensor, "B C L"], t: Time, eps: Float[Tensor, "B C L"], variance: Variance = beta
) -> Float[Tensor, "B"]:
    """D_KL(q(x_{t-1}|x_t, x_0) ‖ p_θ(x_{t-1}|x_t)) at x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε, t ≥ 2: step D11, report (46).

    One draw of the expectation over x_t; its mean over ε ~ N(0, I) is the term of the bound. At t = 1 q(x_0|x_1, x_0)
    is a point and has no density: that term is `L_0`.

    Args:
        denoiser: a `Denoiser` of any parametrisation or an oracle.
        t: 2…T.
        variance: σ_t², a `Variance`.
    """
    t = times(t, x0)
    xt = q_sample(x0, t, eps, denoiser.schedule)
    return _kl(denoiser.schedule, x0, denoiser(xt, t).x0, xt, t, variance)


def _kl(
    schedule: Schedule,
    x0: Float[Tensor, "B C L"],
    estimate: Float[Tensor, "B C L"],
    xt: Float[Tensor, "B C L"],
    t: Real[Tensor, "B"],
    variance: Variance,
) -> Float[Tensor, "B"]:
    """`L_t` of an estimate of x_0."""
    found = slope2(schedule, t), schedule.beta_tilde(t), sigma2_of(variance, schedule, t, xt=xt)
    factor, beta_tilde, sigma2 = map(per_signal, found)
    return gaussian_kl(factor * (x0 - estimate).double().square(), beta_tilde, sigma2, 1).sum((1, 2))


def L_0(
    denoiser: DenoiserLike, x0: Float[Tensor, "B C L"], eps: Float[Tensor, "B C L"], sigma_1: float | None = None
) -> Float[Tensor, "B"]:
    """-log N(x_0; x̂_0(x_1), σ_1²·I) at x_1 = √ᾱ_1·x_0 + √β_1·ε: step D12, the last term of (38).

    Args:
        sigma_1: the decoder's standard deviation, √β_1 by default.
    """
    t = times(1, x0)
    return _nll(denoiser.schedule, x0, denoiser(q_sample(x0, t, eps, denoiser.schedule), t).x0, sigma_1)


def _nll(
    schedule: Schedule, x0: Float[Tensor, "B C L"], estimate: Float[Tensor, "B C L"], sigma_1: float | None
) -> Float[Tensor, "B"]:
    """`L_0` of an estimate of x_0."""
    sigma2 = sigma2_of(beta, schedule, times(1, x0), sigma_1)
    square = (x0 - estimate).double().square().sum((1, 2))
    return 0.5 * (square / sigma2 + x0.shape[1:].numel() * (2 * math.pi * sigma2).log())


@torch.no_grad()
def elbo(
    denoiser: DenoiserLike,
    x0: Float[Tensor, "B C L"],
    variance: Variance = beta,
    sigma_1: float | None = None,
    draws: int = 1,
    every_t: bool = True,
    generator: torch.Generator | None = None,
    eps: Float[Tensor, "draws B C L"] | None = None,
) -> Terms:
    """The bound -log p_θ(x_0) ≤ L_T + Σ_{t≥2} L_t + L_0 of each signal: report (38) with its expectations, step D13.

    The sum over t is exact, or (`every_t` = False) estimated from one random t of 2…T a draw; the mean over the
    noise is estimated from `draws` noises at each t. Both estimates are unbiased and come with a standard error.

    Args:
        denoiser: a `Denoiser` of any parametrisation or an oracle.
        x0: the signals.
        variance: σ_t² for t ≥ 2, as for `L_t`. The default, β, is Ho et al.'s first choice; `ancestral` draws with β̃
            by default, so give both the same one where the bound is to be that of the samples.
        sigma_1: the decoder's standard deviation, √β_1 by default.
        draws: estimates that are averaged; their spread is the standard error.
        every_t: whether each estimate sums over all t.
        generator: a CPU generator.
        eps: noises to use at every t instead of drawing: ±1 are exact for a linear denoiser.

    Raises:
        TypeError, ValueError: x0 not floating point, finite and (B, C, L); fewer than one draw; σ_t or σ_1 of 0.

    >>> from ddpm_lib import Gaussian, linear
    >>> exact = Gaussian(torch.zeros(1, 1).double(), torch.eye(1).double(), linear())
    >>> one = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> f"{elbo(exact, one, eps=torch.stack([one, -one])).total.item():.6f}"  # -log N(1; 0, 1): no gap
    '1.418939'
    """
    check_signals(x0), check_count(draws, "The number of draws", high=10**6)
    if eps is not None:
        check_tensor(eps, "The table of noises", "draws", *x0.shape)
    last, parts = denoiser.schedule.T, []

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
    if not torch.isfinite(all_parts).all():
        raise ValueError("The bound is not finite: σ = 0 puts an infinite weight on the error, and x̂_0 must be finite.")
    spread = all_parts.sum(1).std(0) if len(parts) > 1 else torch.full_like(all_parts[0, 0], math.nan)
    L_rest, L_first = all_parts.mean(0)
    return Terms(L_T(x0, denoiser.schedule), L_rest, L_first, spread / math.sqrt(len(parts)), x0[0].numel())


def bound_at(
    denoiser: DenoiserLike,
    x0: Float[Tensor, "B C L"],
    t: Time,
    eps: Float[Tensor, "B C L"],
    variance: Variance = beta,
    sigma_1: float | None = None,
) -> Float[Tensor, "B"]:
    """The bound from one t, T·L_t in bits per dimension: its mean over t uniform on 1…T is L_vlb - L_T.

    L_vlb is a sum over t, and E_t[L_t] a T-th of it. The term of t = 1 is the decoder's, L_0.

    Args:
        denoiser: the mean.
        t: 1…T, drawn uniformly, or with `draw_times`, whose weights then multiply the result.
        variance: σ_t² for t ≥ 2, as `L_t` takes it.
        sigma_1: the decoder's standard deviation, √β_1 by default.

    >>> from ddpm_lib import Gaussian, linear
    >>> exact, one = Gaussian(torch.zeros(1, 1), torch.eye(1), linear()), torch.ones(1000, 1, 1)
    >>> terms = bound_at(exact, one, torch.arange(1, 1001), one) + bound_at(exact, one, torch.arange(1, 1001), -one)
    >>> f"{terms.mean().item() / 2:.3f} bits"  # -log N(1; 0, 1) = 1.419 nats
    '2.047 bits'
    """
    t = times(t, x0)
    xt = q_sample(x0, t, eps, denoiser.schedule)
    return bound_of(denoiser.schedule, x0, denoiser(xt, t).x0, xt, t, variance, sigma_1)


def bound_of(
    schedule: Schedule,
    x0: Float[Tensor, "B C L"],
    estimate: Float[Tensor, "B C L"],
    xt: Float[Tensor, "B C L"],
    t: Real[Tensor, "B"],
    variance: Variance,
    sigma_1: float | None,
) -> Float[Tensor, "B"]:
    """`bound_at` of an estimate of x_0."""
    first, rest = (t == 1).nonzero()[:, 0], (t != 1).nonzero()[:, 0]  # a variance that depends on x_t begins at t = 2
    out = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    out = out.index_put((first,), _nll(schedule, x0[first], estimate[first], sigma_1))
    if len(rest):
        out = out.index_put((rest,), _kl(schedule, x0[rest], estimate[rest], xt[rest], t[rest], variance))
    return out * schedule.T / (x0[0].numel() * math.log(2))
