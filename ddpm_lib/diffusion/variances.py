"""Variances of the reverse step: fixed ones, a learned one, and the best there is.

Chapters `reverse_process` and `variance_and_likelihood`.

A variance is a function (schedule, t, s, xt) → σ² of the step from t to s, in float64: one number, one for each signal,
or one for each sample. Those that depend on x_t need it; the others ignore it.

The learned one is that of Nichol & Dhariwal 2021, section 3.1; the numbers of equations are those of their arXiv
version.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ..checks import check_tensor
from ..shapes import Float, PerSignal, Real, Time
from .denoiser import DenoiserLike, WithCovariance
from .forward import q_sample
from .schedules import Schedule, times

__all__ = [
    "AnalyticVariance",
    "LearnedVariance",
    "TableVariance",
    "Variance",
    "best_variance",
    "beta",
    "beta_tilde",
    "interpolated",
    "posterior_covariance",
    "posterior_variance",
]  # fmt: skip


class Variance(Protocol):
    """σ² of the step from t to s at x_t, in float64."""

    def __call__(self, schedule: Schedule, t: Time, s: Time, xt: Float[Tensor, "B C L"] | None = None) -> PerSignal: ...


def beta(schedule: Schedule, t: Time, s: Time, xt: Float[Tensor, "B C L"] | None = None) -> PerSignal:
    """σ² = β = 1 - ᾱ_t/ᾱ_s: right for data of unit power (Ho et al. 2020, sec. 3.2)."""
    return schedule.beta(t, s)


def beta_tilde(schedule: Schedule, t: Time, s: Time, xt: Float[Tensor, "B C L"] | None = None) -> PerSignal:
    """σ² = β̃ = (1-ᾱ_s)/(1-ᾱ_t)·β, report (43): right where x_0 is known exactly."""
    return schedule.beta_tilde(t, s)


class TableVariance(nn.Module):
    """One σ_t² for each step from t to t - 1, such as the table of `best_variance`.

    Args:
        table: T + 1 values, positive from [1] on; [1] is the decoder's.
    """

    table: Float[Tensor, "T_plus_1"]

    def __init__(self, table: Float[Tensor, "T_plus_1"]):
        super().__init__()
        self.register_buffer("table", check_tensor(table, "A table of variances", "T + 1").double())

    def forward(self, schedule: Schedule, t: Time, s: Time, xt: Float[Tensor, "B C L"] | None = None) -> PerSignal:
        """σ_t² of the step from t to t - 1.

        Raises:
            ValueError: a schedule of another length, or another step.
        """
        if len(self.table) != schedule.T + 1 or (not isinstance(t, Tensor) and t - s != 1):
            raise ValueError(
                f"This table has σ² of the steps from t to t - 1 of a schedule of T = {len(self.table) - 1}, "
                f"got the step from {t} to {s} of T = {schedule.T}."
            )
        t = torch.as_tensor(t)
        return self.table.to(t.device)[t.long()]


def interpolated(schedule: Schedule, t: Time, s: Time, v: Float[Tensor, "B C L"]) -> Float[Tensor, "B C L"]:
    """σ² = exp(v·log β + (1-v)·log β̃) of the step from t to s, eq. (15): β̃ where v is 0, β where it is 1.

    Args:
        t, s: 0 < s < t ≤ T: at s = 0 β̃ is 0 and there is nothing between it and β.
        v: how far each sample is from β̃ to β.

    >>> from ddpm_lib import linear
    >>> half = interpolated(linear(), 2, 1, torch.full((1, 1, 1), 0.5))
    >>> f"{half.item():.4e}, half way to β = {linear().beta(2):.4e}"
    '8.0867e-05, half way to β = 1.1992e-04'
    """
    low, high = _ends(schedule, t, s, v)
    return low * (v.double() * (high / low).log()).exp()


def _ends(
    schedule: Schedule, t: Time, s: Time, x: Float[Tensor, "B C L"]
) -> tuple[Float[Tensor, "B 1 1"], Float[Tensor, "B 1 1"]]:
    """β̃ and β of the step from t to s."""
    t, s = times(t, x), times(s, x)
    return schedule.beta_tilde(t, s)[:, None, None], schedule.beta(t, s)[:, None, None]


def _as_noisy(own: Schedule, other: Schedule, t: Time) -> Time:
    """The time at which one's own schedule is as noisy as the other is at t."""
    return t if own is other else own.at_log_snr(other.log_snr(t))


class LearnedVariance(nn.Module):
    """σ² of every sample, between β̃ and β, interpolated by a network: eq. (15), for any step from t to s > 0.

    The network is given x_t, the denoiser's estimate, and the noise level. v is not kept within 0…1, as in the
    paper. Give it to `elbo`, `L_t` or `ancestral` as their variance. It begins at s = 1: σ_1 is the decoder's.

    Args:
        network: (x (B, 2C, L), log_snr (B,), None) → v (B, C, L), such as a small ``UNet1D(2, 1)``, v starts at 0.
        denoiser: the mean; no gradient reaches it from here.

    >>> from ddpm_lib import Gaussian, UNet1D, linear
    >>> mean = Gaussian(torch.zeros(1, 16), torch.eye(16), linear())
    >>> untrained = LearnedVariance(UNet1D(2, 1, width=8, blocks=1), mean)
    >>> untrained.v(torch.randn(3, 1, 16), 500).abs().max().item()
    0.0
    """

    def __init__(self, network: nn.Module, denoiser: DenoiserLike):
        super().__init__()
        self.schedule, self.network = denoiser.schedule, network
        self._mean = [denoiser]  # in a list, so that its weights are not this module's

    def v(self, xt: Float[Tensor, "B C L"], t: Time) -> Float[Tensor, "B C L"]:
        """The network's output, 0 for β̃ and 1 for β."""
        with torch.no_grad():
            x0 = self._mean[0](xt, t).x0
        out: Tensor = self.network(torch.cat([xt, x0], 1), self.schedule.log_snr(times(t, xt), xt.dtype), None)
        return out

    def forward(
        self, schedule: Schedule, t: Time, s: Time, xt: Float[Tensor, "B C L"] | None = None
    ) -> Float[Tensor, "B C L"]:
        """σ² of every sample."""
        assert xt is not None
        return interpolated(schedule, t, s, self.v(xt, _as_noisy(self.schedule, schedule, t)))


class AnalyticVariance(nn.Module):
    """The σ² of every sample with the smallest bound, (1-ω)β̃ + ωβ, where ω = Var[x_0|x_t]/(1-ᾱ_t) is known.

    It is the variance of x_s given x_t, sample by sample, for any step. Bao et al. 2022, theorem 1, have its mean over
    samples and signals, which `best_variance` estimates. Exact for the exact denoiser; of a network
    `posterior_variance` takes the derivative, which is expensive; where that is negative, a hundredth of β̃ is kept.

    Args:
        denoiser: the mean.

    >>> from ddpm_lib import Gaussian, linear
    >>> exact = Gaussian(torch.zeros(1, 4), torch.eye(4), linear())
    >>> sigma2 = AnalyticVariance(exact)(linear(), 500, 499, torch.ones(1, 1, 4))
    >>> bool(torch.allclose(sigma2, linear().beta(500)))  # unit power: β
    True
    """

    def __init__(self, denoiser: DenoiserLike):
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule

    def forward(
        self, schedule: Schedule, t: Time, s: Time, xt: Float[Tensor, "B C L"] | None = None
    ) -> Float[Tensor, "B C L"]:
        """σ² of every sample."""
        assert xt is not None
        low, high = _ends(schedule, t, s, xt)
        variance = posterior_variance(self.denoiser, xt, _as_noisy(self.schedule, schedule, t)).double()
        omega = variance / schedule.noise(times(t, xt))[:, None, None]
        return (low + omega * (high - low)).clamp(min=low / 100)


@torch.no_grad()
def best_variance(
    denoiser: DenoiserLike, x0: Float[Tensor, "B C L"], generator: torch.Generator | None = None
) -> Float[Tensor, "T_plus_1"]:
    """The fixed σ_t² with the smallest bound, a table for t = 0…T: β̃_t + E‖μ̃ - μ_θ‖²/N, step D11; [1] is the best σ_1².

    Args:
        denoiser: a `Denoiser` or an oracle.
        x0: the signals that the expectation is taken over, each with one noise at each t.
    """
    schedule, square = denoiser.schedule, []
    t = torch.arange(1, schedule.T + 1)
    for k in t.tolist():
        xt = q_sample(x0, k, torch.randn(x0.shape, generator=generator).to(x0), schedule)
        square.append((x0 - denoiser(xt, k).x0).double().square().mean().cpu())
    table = schedule.beta_tilde(t) + slope2(schedule, t) * torch.stack(square)
    return torch.cat([table.new_zeros(1), table])


def slope2(schedule: Schedule, t: Real[Tensor, "B"]) -> Float[Tensor, "B"]:
    """‖μ̃ - μ_θ‖²/‖x_0 - x̂_0‖² of the step from t to t - 1: the square of what (42) puts in front of x_0."""
    return schedule.alpha_bar(t - 1) * (schedule.beta(t) / schedule.noise(t)) ** 2


def per_signal(value: PerSignal) -> Float[Tensor, "B C L"] | Float[Tensor, "B 1 1"] | Float[Tensor, ""]:
    """One number, one for each signal or for each sample, so that it broadcasts with signals."""
    return value[:, None, None] if value.ndim == 1 else value


def sigma2_of(
    variance: Variance,
    schedule: Schedule,
    t: Real[Tensor, "B"],
    sigma_1: float | None = None,
    xt: Float[Tensor, "B C L"] | None = None,
) -> Float[Tensor, "B"] | Float[Tensor, "B C L"]:
    """σ_t² of the step from t to t - 1, of every sample where it depends on x_t; at t = 1 σ_1² of the decoder."""
    sigma2 = variance(schedule, t, t - 1, xt)
    if sigma2.ndim == 3:
        return sigma2
    first = schedule.beta(torch.ones_like(t)) if sigma_1 is None else torch.full_like(sigma2, sigma_1**2)
    return torch.where(t == 1, first, sigma2)


def posterior_covariance(denoiser: DenoiserLike, xt: Float[Tensor, "B C L"], t: Time) -> Float[Tensor, "#B C*L C*L"]:
    """Cov[x_0 | x_t]: a denoiser's own, or by its derivative, (1-ᾱ)/√ᾱ·∂x̂_0/∂x_t (Tweedie's formula).

    One that is no posterior mean has a derivative all the same, and it need be neither symmetric nor positive.
    """
    if isinstance(denoiser, WithCovariance):
        return denoiser.covariance(xt, t)
    t, a, s = denoiser.schedule.at(t, xt)
    slope = xt.new_empty(len(xt), xt[0].numel(), xt[0].numel())
    for time in t.unique():

        def mean(x: Tensor, time: Tensor = time) -> Tensor:
            return denoiser(x[None], time[None]).x0.flatten()

        rows = t == time
        slope[rows] = torch.func.vmap(torch.func.jacrev(mean))(xt[rows]).flatten(2)
    return s**2 / a * slope


@torch.no_grad()
def posterior_variance(
    denoiser: DenoiserLike, xt: Float[Tensor, "B C L"], t: Time, chunk: int = 16
) -> Float[Tensor, "B C L"]:
    """Var[x_0 | x_t] of every sample: the error of a denoiser, from its own derivative.

    The diagonal of `posterior_covariance`, exact: a network is differentiated C·L times.

    Args:
        denoiser: a `Denoiser` or an oracle.
        t: 0 < t ≤ T.
        chunk: signals that are differentiated at once; memory grows with it.

    >>> from ddpm_lib import Gaussian, linear
    >>> exact = Gaussian(torch.zeros(1, 4), 0.25 * torch.eye(4), linear())
    >>> posterior_variance(exact, torch.ones(1, 1, 4), 1000)  # at the end nothing is known: the prior's
    tensor([[[0.2500, 0.2500, 0.2500, 0.2500]]])
    """
    parts = zip(xt.split(chunk), times(t, xt).split(chunk), strict=True)
    covariance = (posterior_covariance(denoiser, x, u) for x, u in parts)
    return torch.cat([cov.diagonal(dim1=1, dim2=2) for cov in covariance]).view(xt.shape)


ALL = (beta, beta_tilde, TableVariance, LearnedVariance, AnalyticVariance)
