"""The likelihood of signals under the probability flow, with the exact divergence (chapter `variance_and_likelihood`).

The flow carries x_0 to x_T without chance: over η = log(√(1-ᾱ)/√ᾱ) it is dx/dη = √(1-ᾱ)·(ε̂ - √(1-ᾱ)·x). How much
it spreads out on the way is a trace: the divergence is N·ᾱ·(1 - ω), with ω the mean over the N samples of
Var[x_0|x_t]/(1-ᾱ), which the derivative of the denoiser knows. So log p(x_0) = log N(x_T; 0, I) + N·∫ᾱ(1 - ω)dη.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_count, check_number, check_signals
from ..shapes import Float
from .denoiser import DenoiserLike
from .variances import posterior_variance

__all__ = ["Likelihood", "log_likelihood"]


class Likelihood(NamedTuple):
    """log p(x_0) of signals in nats, and how far a grid of half as many steps is from it."""

    nats: Float[Tensor, "B"]
    error: Float[Tensor, "B"]
    dim: int

    def bits_per_dim(self) -> Float[Tensor, "B"]:
        """-log p(x_0) in bits per dimension: -nats/(C·L·log 2), like `Terms.bits_per_dim`."""
        return -self.nats / (self.dim * math.log(2))


def log_likelihood(
    denoiser: DenoiserLike,
    x0: Float[Tensor, "B C L"],
    steps: int = 32,
    first: float = 1.0,
    variance: Callable[[Float[Tensor, "B C L"], float], Float[Tensor, "B C L"]] | None = None,
) -> Likelihood:
    """log p(x_0) under the probability flow: Song et al. 2021 (score-based), eq. (39), along a grid even in log-SNR.

    The path takes steps of the classical Runge-Kutta method. The divergence along it, one a step, is summed by the
    trapezoidal rule with corrected ends: both have errors of fourth order, and the rule is better than that where
    the divergence fades out at both ends. From 0 to `first`, where there is no noise for the denoiser to remove, it is
    continued along a line. In the second grid, whose distance is the `error`, that stretch is twice as long and the
    steps are too.

    The data must have a density: clean wavelets have none, and their log-likelihood grows without end as `first`
    falls.

    Args:
        denoiser: a `Denoiser` or an oracle.
        x0: the signals.
        steps: even, 12 at least.
        first: the smallest time at which the denoiser is evaluated, above 0 and well below T. Its noise should be small
            against that in the data.
        variance: (xt, t) → Var[x_0|x_t] where something else than `posterior_variance` is to be trusted.

    >>> from ddpm_lib import Gaussian, linear
    >>> exact = Gaussian(torch.zeros(1, 1).double(), torch.eye(1).double(), linear())
    >>> f"{log_likelihood(exact, torch.ones(1, 1, 1).double()).nats.item():.4f}"  # log N(1; 0, 1)
    '-1.4189'
    """
    schedule = denoiser.schedule
    check_signals(x0)
    if check_count(steps, "steps", 12, 10**5) % 2:
        raise ValueError(f"steps must be even, got {steps}: there is a second grid of half as many.")
    ends = torch.tensor([check_number(first, "first", 1e-9, schedule.T), schedule.T], dtype=torch.float64)
    low, high = (-schedule.log_snr(ends) / 2).tolist()  # η at `first` and at T
    if high - low < 1:
        raise ValueError(f"The flow must go from little noise to much: first = {first} lies too near to T.")
    variance = variance or partial(posterior_variance, denoiser)
    starts = {steps: low, steps // 2: low + math.log(2) / 2}  # twice the variance of the noise
    grids = [torch.linspace(at, high, n + 1, dtype=torch.float64) for n, at in starts.items()]
    fine, coarse = (_flow(denoiser, x0, variance, eta) for eta in grids)
    return Likelihood(fine, (fine - coarse).abs(), x0[0].numel())


@torch.no_grad()
def _flow(
    denoiser: DenoiserLike,
    x0: Float[Tensor, "B C L"],
    variance: Callable[[Float[Tensor, "B C L"], float], Float[Tensor, "B C L"]],
    eta: Float[Tensor, "K"],
) -> Float[Tensor, "B"]:
    """log p(x_0) in float64 along an even grid over η = -½ log SNR."""
    schedule = denoiser.schedule
    size, step = x0[0].numel(), float(eta[1] - eta[0])
    nodes, middles = (schedule.at_log_snr(-2 * z).tolist() for z in (eta, (eta[1:] + eta[:-1]) / 2))

    def speed(x: Float[Tensor, "B C L"], t: float) -> Float[Tensor, "B C L"]:
        """dx/dη."""
        s = schedule(torch.tensor([t]), x.dtype)[1].to(x.device)
        return s * (denoiser(x, t).eps - s * x)

    def growth(x: Float[Tensor, "B C L"], t: float) -> Float[Tensor, "B"]:
        """The divergence of `speed`."""
        ab = schedule.alpha_bar(t)
        omega = variance(x, t).double().mean((1, 2)) / schedule.noise(t)
        return size * ab * (1 - omega)

    # from u = 0, u = (1-ᾱ)/ᾱ, to the first node: y = x/√ᾱ has dy/du = ε̂/2√u, which is smooth there; in the middle
    # of the stretch it is what the line through the first two nodes says, and so is the divergence over u
    t, later = nodes[:2]
    apart = math.expm1(2 * step)  # of their u, in units of the first
    ab = schedule.alpha_bar(t)

    def move(y: Float[Tensor, "B C L"], t: float) -> Float[Tensor, "B C L"]:
        a, s = (z.to(y) for z in schedule(torch.tensor([t]), torch.float64))
        return denoiser(a * y, t).eps * (math.exp(eta[0]) ** 2 / 2 / (s / a))

    half = x0 + move(x0, t) / 2
    one = move(half, t)
    x = ab.sqrt().to(x0) * (x0 + one + (one - move(half, later)) / (2 * apart))
    grown = [growth(x, t)]
    for t, middle, later in zip(nodes, middles, nodes[1:], strict=False):
        k1 = speed(x, t)
        k2 = speed(x + step / 2 * k1, middle)
        k3 = speed(x + step / 2 * k2, middle)
        x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + speed(x + step * k3, later))
        grown.append(growth(x, later))
    if not torch.isfinite(x).all():
        raise FloatingPointError("The flow left all bounds: its estimates are not those of a signal.")
    bend = (grown[1] / (1 + apart) - grown[0]) / apart
    start = 0.5 * (grown[0] - 0.5 * bend) + size / 2 * ((1 - ab) + ab.log())
    weights = torch.ones(len(grown), dtype=torch.float64)
    weights[:3] = torch.tensor([3 / 8, 7 / 6, 23 / 24])  # Gregory's ends; Simpson's 1-4-2 would ripple
    weights[-3:] = weights[:3].flip(0)
    along = step * sum(w * g for w, g in zip(weights.tolist(), grown, strict=True))
    end = -0.5 * (x.double().square().sum((1, 2)) + size * math.log(2 * math.pi))
    return end + along + start


ALL = (log_likelihood,)
