"""The exact answer, E[x_0 | x_t], for Gaussian data (chapter `best_denoiser`).

No denoiser can have a smaller loss than the posterior mean, so its loss is the floor that every figure in
this book is drawn with. Each oracle is called like a `Denoiser`, returns a `Prediction`, and knows the posterior
covariance Cov[x_0 | x_t] too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checks import check_count, check_signals, check_tensor
from ..diffusion.denoiser import Prediction
from ..diffusion.schedules import Schedule
from ..shapes import Float, Real, Time

__all__ = ["Gaussian", "LowRank", "Wiener", "fit_gaussian"]


FULL = 2048
"""Numbers per signal up to which a covariance is a table; beyond, only its greatest directions are kept."""


class LowRank(NamedTuple):
    """A covariance U·Λ·Uᵀ by its greatest directions.

    Attributes:
        basis: U, (C·L, R), orthonormal columns.
        power: the diagonal of Λ, (R,), rising.
    """

    basis: Tensor
    power: Tensor


class Wiener(nn.Module):
    """The best linear denoiser of data with this mean and covariance; exact where the data are Gaussian.

    With x_0 ~ (m, Σ = UΛUᵀ) the estimate is x̂_0 = m + U·√ᾱΛ/(ᾱΛ + 1-ᾱ)·Uᵀ(x_t - √ᾱ·m). Only the
    directions that hold more than 1e-8 of the greatest power are kept, and no more than `rank`: a table of a long
    signal's covariance would be larger than the network beside it. The rest is taken for the mean.

    Args:
        mean: of the signals.
        cov: symmetric and positive semi-definite; or its greatest directions.
        rank: the greatest number of directions.
    """

    mean: Float[Tensor, "C L"]
    basis: Float[Tensor, "N rank"]
    power: Float[Tensor, "rank"]

    def __init__(self, mean: Float[Tensor, "C L"], cov: Float[Tensor, "C*L C*L"] | LowRank, rank: int = 256):
        super().__init__()
        basis, power = cov if isinstance(cov, LowRank) else _directions(mean, cov)
        keep = power > 1e-8 * power.max()
        keep[: -check_count(rank, "rank")] = False  # the greatest come last
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis[:, keep].to(mean.dtype).contiguous())
        self.register_buffer("power", power[keep].to(mean.dtype))

    def forward(self, xt: Float[Tensor, "B C L"], a: Float[Tensor, "#B 1 1"], s: Float[Tensor, "#B 1 1"]) -> Prediction:
        """The estimate, with a = √ᾱ_t and s = √(1-ᾱ_t)."""
        gain = (a * self.power / (a**2 * self.power + s**2)).squeeze(1)
        z = (xt - a * self.mean).flatten(1) @ self.basis  # the coordinates in which the covariance is diagonal
        return Prediction.from_x0(self.mean + ((gain * z) @ self.basis.T).view_as(xt), xt, a, s)

    def covariance(self, a: Float[Tensor, "B 1 1"], s: Float[Tensor, "B 1 1"]) -> Float[Tensor, "B N N"]:
        """Cov[x_0 | x_t]: U·Λ(1-ᾱ)/(ᾱΛ + 1-ᾱ)·Uᵀ, the same for every x_t."""
        return (self.basis * (self.power * s**2 / (a**2 * self.power + s**2))) @ self.basis.T

    def eps_error(self, a: Float[Tensor, "B 1 1"], s: Float[Tensor, "B 1 1"]) -> Float[Tensor, "B 1 1"]:
        """Mean square error of ε̂ per sample: the loss of the best linear denoiser."""
        power = a**2 * self.power
        return (power / (power + s**2)).sum(-1, keepdim=True) / self.mean.numel()


def _directions(mean: Float[Tensor, "C L"], cov: Float[Tensor, "C*L C*L"]) -> LowRank:
    """All directions of a covariance, the greatest last."""
    n = check_tensor(mean, "The mean", "C", "L").numel()
    check_tensor(cov, "The covariance", n, n)
    power, basis = torch.linalg.eigh(cov.double())
    if not (cov - cov.T).abs().max() <= 1e-4 * cov.abs().max() or not power[0] >= -1e-4 * power[-1]:
        raise ValueError("A covariance must be symmetric and positive semi-definite.")
    return LowRank(basis, power)


def fit_gaussian(
    x0: Float[Tensor, "n C L"], rank: int = 256
) -> tuple[Float[Tensor, "C L"], Float[Tensor, "C*L C*L"] | LowRank]:
    """Mean and covariance of signals; the covariance in float64.


    In float32 its small directions would be rounding, and their number would differ between processors. Of signals of
    more than `FULL` numbers the table would not fit into memory: then it is the `LowRank` form, its directions found by
    iterating on a random subspace (Halko et al. 2011), always the same.

    Args:
        rank: directions that are kept of long signals.

    Raises:
        TypeError, ValueError: signals that are not finite and of shape (n, C, L), or only one.
    """
    if len(check_signals(x0, first="n")) < 2:
        raise ValueError("A covariance needs at least 2 signals, got 1.")
    mean, x = x0.mean(0), x0.flatten(1)
    if x.shape[1] <= FULL:
        return mean, torch.cov(x.double().T)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, size, basis = torch.svd_lowrank(x - mean.flatten(), q=min(rank + 64, *x.shape), niter=4)
    return mean, LowRank(basis[:, :rank].flip(1), size[:rank].flip(0).square() / (len(x) - 1))


class Gaussian(nn.Module):
    """The exact denoiser of Gaussian data N(mean, cov).

    >>> from ddpm_lib import linear
    >>> oracle = Gaussian(torch.zeros(1, 4), torch.eye(4), linear())
    >>> oracle(torch.ones(1, 1, 4), 1000).x0[0, 0]  # unit power: E[x0|xt] = √ᾱ·xt
    tensor([0.0064, 0.0064, 0.0064, 0.0064])
    """

    def __init__(self, mean: Float[Tensor, "C L"], cov: Float[Tensor, "C*L C*L"] | LowRank, schedule: Schedule):
        super().__init__()
        self.wiener, self.schedule = Wiener(mean, cov), schedule

    def forward(self, xt: Float[Tensor, "B C L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """The posterior mean, at times 0 < t ≤ T."""
        return self.wiener(xt, *self.schedule.at(t, xt)[1:])

    def covariance(self, xt: Float[Tensor, "B C L"], t: Time) -> Float[Tensor, "B C*L C*L"]:
        """Cov[x_0 | x_t], the same for every x_t."""
        return self.wiener.covariance(*self.schedule.at(t, xt)[1:])

    def floor(self, t: Real[Tensor, "B"]) -> Float[Tensor, "B"]:
        """L*(t) in closed form: the smallest possible loss ‖ε - ε̂‖² per sample."""
        return self.wiener.eps_error(*self.schedule(t, self.wiener.power.dtype)).flatten()


ALL = (Gaussian,)
