"""Denoisers that wrap a denoiser: signals that agree with a measurement, without training anything.

Known is y = A·x_0 + σ·n: samples that are missing, a low-pass version, every fourth sample. Wanted are draws of x_0
given y. `Guided` is a denoiser like any other, so every sampler takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import check_signals, times
from .diffusion import Denoiser, Prediction
from .networks import LinearSkip
from .quadrature import FamilyOracle
from .schedules import Schedule
from .signals import Family

__all__ = ["Guided", "LinearCovariance", "Measurement", "posterior_given"]


@dataclass(frozen=True)
class Measurement:
    """y = A·x_0 + σ·n: what an instrument says of a signal.

    Args:
        matrix: A, (M, L), no row zero everywhere.
        sigma: standard deviation of its noise, at least 0.01.

    Raises:
        ValueError: nothing is measured, a matrix that is not finite, a noise that is too small or not finite.

    >>> seen = Measurement.samples(torch.arange(128) % 4 == 0, sigma=0.05)
    >>> seen(torch.ones(2, 1, 128)).shape
    torch.Size([2, 32])
    """

    matrix: Tensor
    sigma: float

    def __post_init__(self) -> None:
        a = self.matrix
        if a.ndim != 2 or not len(a) or not torch.isfinite(a).all() or not (a != 0).any(1).all():
            raise ValueError(
                "A measurement needs a finite matrix (M, L) with M >= 1 and no row of zeros, "
                f"got shape {tuple(a.shape)}: with nothing measured there is nothing to agree with."
            )
        if not 0.01 <= self.sigma < float("inf"):
            raise ValueError(f"The noise of a measurement must be at least 0.01 and finite, got {self.sigma}.")

    @classmethod
    def samples(cls, mask: Tensor, sigma: float) -> Measurement:
        """The samples where mask (L,) is True; the others are missing."""
        if mask.ndim != 1 or mask.dtype != torch.bool:
            raise TypeError(f"A mask must be boolean and of shape (L,), got {mask.dtype} and {tuple(mask.shape)}.")
        return cls(torch.eye(len(mask))[mask], sigma)

    @classmethod
    def low_pass(cls, length: int, width: float, sigma: float, stride: int = 1) -> Measurement:
        """Gaussian means of `width` samples around every `stride`-th sample; at the ends of what is there."""
        at = torch.arange(length, dtype=torch.float32)
        weight = torch.exp(-((at[::stride, None] - at) ** 2) / (2 * width**2))
        return cls(weight / weight.sum(1, keepdim=True), sigma)

    def __call__(self, x0: Tensor) -> Tensor:
        """A·x_0 of signals (B, 1, L): (B, M), without noise."""
        if check_signals(x0).shape[1:] != (1, self.matrix.shape[1]):
            raise ValueError(f"This measures signals of shape (1, {self.matrix.shape[1]}), got {tuple(x0.shape[1:])}.")
        return x0[:, 0] @ self.matrix.to(x0).T

    def observe(self, x0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """y (B, M): A·x_0 with noise."""
        clean = self(x0)
        return clean + self.sigma * torch.randn(clean.shape, generator=generator).to(clean)


def white(schedule: Schedule, t: Tensor, power: float = 0.08) -> Tensor:
    """Variance of x_0 given x_t, a sample, if the signals were white noise of this power: S(1-ᾱ)/(ᾱS + 1-ᾱ)."""
    ab = schedule.alpha_bar(t)
    return power * (1 - ab) / (ab * power + 1 - ab)


class Guided:
    """A denoiser that knows a measurement: E[x_0 | x_t, y] to second order.

    If x_0 given x_t were normal with mean x̂_0 and covariance C, then, given y as well, its mean would be

        x̂_0 + C·Aᵀ·(A·C·Aᵀ + σ²)⁻¹·(y - A·x̂_0),

    Kalman's update. An oracle knows C (its ``covariance``), and `LinearCovariance` guesses it. For a network
    C·v = (1-ᾱ)/√ᾱ·(∂x̂_0/∂x_t)ᵀ·v (Tweedie's formula, once more), and A·C·Aᵀ is taken for r_t²·A·Aᵀ: that is ΠGDM (Song
    et al. 2023). Exact for Gaussian data and an oracle; for all else an approximation that is good where the posterior
    is narrow.

    Args:
        denoiser: a `Denoiser` or an oracle.
        measurement: A and σ.
        y: (B, M), one row for every signal that will be sampled, at most 4096 (the chunk of `Memory`).
        variance: r_t² of (schedule, t (B,)), for networks.
    """

    def __init__(
        self,
        denoiser: Callable[..., Prediction],
        measurement: Measurement,
        y: Tensor,
        variance: Callable[[Schedule, Tensor], Tensor] = white,
    ):
        if y.ndim != 2 or y.shape[1] != len(measurement.matrix) or not torch.isfinite(y).all():
            raise ValueError(
                f"y must be finite and of shape (B, {len(measurement.matrix)}), one row a signal, got {tuple(y.shape)}."
            )
        self.denoiser, self.schedule = denoiser, denoiser.schedule  # type: ignore[attr-defined]
        self.measurement, self.y, self.variance = measurement, y, variance

    def __call__(self, xt: Tensor, t: Tensor | float) -> Prediction:
        """xt (B, 1, L), B as in y → Prediction."""
        if len(xt) != len(self.y):
            raise ValueError(f"There are {len(self.y)} measurements for {len(xt)} signals: give one for each.")
        t = times(t, xt)
        a, s = self.schedule(t, xt.dtype)
        matrix, noise = self.measurement.matrix.to(xt), self.measurement.sigma**2 * torch.eye(len(self.y[0])).to(xt)
        if hasattr(self.denoiser, "covariance"):
            x0, cov = self.denoiser(xt, t).x0, self.denoiser.covariance(xt, t)
            across = cov @ matrix.T  # C·Aᵀ, (B, L, M)
            z = torch.linalg.solve(matrix @ across + noise, self._missed(x0)[..., None])
            x0 = x0 + (across @ z).mT
        else:
            with torch.enable_grad():
                leaf = xt.detach().requires_grad_()
                x0 = self.denoiser(leaf, t).x0
                r2 = self.variance(self.schedule, t).to(xt)[:, None, None]
                z = torch.linalg.solve(r2 * matrix @ matrix.T + noise, self._missed(x0.detach())[..., None])
                (pull,) = torch.autograd.grad(x0, leaf, (matrix.T @ z).mT)
            x0 = x0.detach() + s**2 / a * pull
        return Prediction(x0, (xt - a * x0) / s)

    def _missed(self, x0: Tensor) -> Tensor:
        return self.y.to(x0) - self.measurement(x0)


class LinearCovariance:
    """A trained denoiser that borrows its posterior covariance from its linear skip: U·Λ(1-ᾱ)/(ᾱΛ + 1-ᾱ)·Uᵀ.

    With it `Guided` needs no gradient. An approximation: the covariance is that of Gaussian data, the same for every
    x_t; it knows the directions in which signals vary, but not which of them this signal has decided on.

    Args:
        denoiser: a `Denoiser` whose network is a `LinearSkip`.
    """

    def __init__(self, denoiser: Denoiser):
        if not isinstance(denoiser.network, LinearSkip):
            raise ValueError(f"Only a LinearSkip knows a covariance, got {type(denoiser.network).__name__}.")
        self.denoiser, self.schedule, self.wiener = denoiser, denoiser.schedule, denoiser.network.wiener

    def __call__(self, xt: Tensor, t: Tensor | float) -> Prediction:
        """xt (B, C, L), t (B,) → Prediction."""
        prediction: Prediction = self.denoiser(xt, t)
        return prediction

    def covariance(self, xt: Tensor, t: Tensor | float) -> Tensor:
        """Cov[x_0 | x_t] of Gaussian data with the same mean and covariance, (B, C·L, C·L)."""
        a, s = self.schedule(times(t, xt), xt.dtype)
        power, basis = self.wiener.power, self.wiener.basis
        return (basis * (power * s**2 / (a**2 * power + s**2))) @ basis.T


class _Seen(Family):
    """A family as an instrument sees it: the parameters are the same, a signal is A·ψ."""

    def __init__(self, family: Family, matrix: Tensor):
        limits = zip(family.names, family.low.tolist(), family.high.tolist(), strict=True)
        self.whole, self.matrix, self.scale = family, matrix, family.scale
        super().__init__({name: (low, high) for name, low, high in limits}, len(matrix), (0.0, 1.0))

    def formula(self, x: Tensor, *params: Tensor) -> Tensor:
        return self.whole.formula(self.whole.x.to(params[0]), *params) @ self.matrix.to(params[0]).T


def posterior_given(
    family: Family,
    measurement: Measurement,
    y: Tensor,
    schedule: Schedule,
    n: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """n exact draws of the parameters given y (B, M): (B, n, P). ``family.render`` turns them into signals.

    A measurement with noise is a noised signal: y is x_t/√ᾱ_t of the family that the instrument sees, at the time at
    which √(1-ᾱ)/√ᾱ = σ. So `FamilyOracle` answers, whatever A is.

    Raises:
        ValueError: a noise that the schedule does not reach; fewer than two measured numbers; a family whose
            exact denoiser is not known.
    """
    ratio = -2 * torch.tensor(measurement.sigma, dtype=torch.float64).log()
    ends = schedule.log_snr(torch.tensor([schedule.T, 1]))
    if not ends[0] <= ratio <= ends[1] + 1e-9:
        low, high = (-ends.flip(0) / 2).exp().tolist()
        raise ValueError(f"This schedule knows noise from {low:.3g} to {high:.3g}, got sigma = {measurement.sigma}.")
    t = float(schedule.at_log_snr(ratio))
    a, _ = schedule(torch.tensor([t]), y.dtype)
    # finer than for a mean: draws are middles of cells, and an instrument may see one signal far better than another
    exact = FamilyOracle(_Seen(family, measurement.matrix), schedule, keep=1024, resolution=0.5)
    return exact.posterior(a * y[:, None], t, n, generator)
