"""Denoisers that wrap a denoiser: signals with the parameters that were asked for, or that agree with a measurement.

Of a measurement known is y = A·x_0 + σ·n: samples that are missing, a low-pass version, every fourth sample. Wanted
are draws of x_0 given y, without training anything. Both wrappers are denoisers like any other, so every sampler
takes them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .checks import brief, check_conditions, check_signals, count, noised, number, precise, reals, schedule_of, takes
from .diffusion import Denoiser, Prediction
from .measurements import Measurement
from .networks import LinearSkip
from .schedules import Schedule
from .signals import Family

__all__ = ["Asked", "Guided", "LinearCovariance", "ask"]


def ask(family: Family, n: int, **values: float | Tensor) -> Tensor:
    """Conditions (n, P) for n signals of a family: a number or (n,) for each parameter asked for, NaN for the others.

    Raises:
        ValueError: a parameter that the family does not have, or a value outside its box.

    >>> from ddpm_lib import BenchmarkMorlet
    >>> ask(BenchmarkMorlet(), 2, w=5.0)
    tensor([[nan, nan, 5.],
            [nan, nan, 5.]])
    """
    cond = torch.full((count(n, "The number of signals"), len(family.names)), torch.nan)
    for name, value in values.items():
        if name not in family.names:
            raise ValueError(f"{type(family).__name__} has the parameters {', '.join(family.names)}, not {name!r}.")
        k = family.names.index(name)
        low, high = float(family.low[k]), float(family.high[k])
        asked = reals(value, name)
        if asked.shape not in ((), (n,)) or not ((asked >= low) & (asked <= high)).all():
            raise ValueError(
                f"{name} lies between {low:g} and {high:g} in this family: one number or ({n},), got {brief(value)}."
            )
        cond[:, k] = asked
    return cond


class Asked:
    """A denoiser that is asked for something: classifier-free guidance (Ho & Salimans 2022, eq. 6).

        ε̂ = ε̂(x_t) + weight·(ε̂(x_t, cond) - ε̂(x_t))

    With weight 1 that is the conditional denoiser, and only that is evaluated. Ho & Salimans' w is weight - 1.

    Args:
        denoiser: trained with conditions (`Recipe.told`), or any function (xt, t, cond) with a ``schedule``.
        cond: (B, P), NaN for what is not asked: one row for every signal that will be sampled (see `ask`).
        weight: 0 ignores what is asked; above 1 exaggerates it, and the law of what comes out is no longer the data's.
    """

    def __init__(self, denoiser: Callable[..., Prediction], cond: Tensor, weight: float = 1.0):
        self.denoiser, self.schedule = denoiser, schedule_of(denoiser)
        self.network = getattr(denoiser, "network", None)  # `LinearCovariance` borrows from it
        self.cond, self.weight = check_conditions(cond), number(weight, "A guidance weight", 0.0)

    def __call__(self, xt: Tensor, t: Tensor | float) -> Prediction:
        """xt (B, C, L), B as in cond → Prediction."""
        if len(check_signals(xt, "xt")) != len(self.cond):
            raise ValueError(f"There are {len(self.cond)} conditions for {len(xt)} signals: give one for each.")
        asked = self.denoiser(xt, t, self.cond.to(xt))
        if self.weight == 1:
            return asked
        free = self.denoiser(xt, t, torch.full_like(self.cond, torch.nan).to(xt))
        # x̂_0 and ε̂ hang together linearly, so the same mean is right for both
        return Prediction(*(torch.lerp(f, a, self.weight) for f, a in zip(free, asked, strict=True)))


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
    et al. 2023, eq. 4 and 7). With r_t = 0 it is the likelihood of DPS (Chung et al. 2023, eq. 16 without its factor
    of two), for which `dps` has the steps that they use. Exact for Gaussian data and an oracle; for all else an
    approximation that is good where the posterior is narrow.

    Args:
        denoiser: a `Denoiser` or an oracle.
        measurement: A and σ.
        y: (B, M), one row for every signal that will be sampled, at most 4096 (the chunk of `Memory`).
        variance: r_t² of (schedule, t (B,)); by default the denoiser's own covariance, or `white` where it has none.
    """

    def __init__(
        self,
        denoiser: Callable[..., Prediction],
        measurement: Measurement,
        y: Tensor,
        variance: Callable[[Schedule, Tensor], Tensor] | None = None,
    ):
        takes(variance or white, 2, "The variance is a function of (schedule, t), such as white")
        self.denoiser, self.schedule = denoiser, schedule_of(denoiser)
        self.measurement, self.y, self.variance = measurement, measurement.check(y), variance

    def __call__(self, xt: Tensor, t: Tensor | float) -> Prediction:
        """xt (B, 1, L), B as in y → Prediction."""
        t, a, s = noised(xt, t, self.schedule)
        y = self.measurement.check(self.y, xt)
        matrix, noise = self.measurement.matrix.to(xt), self.measurement.sigma**2 * torch.eye(y.shape[1]).to(xt)
        if self.variance is None and hasattr(self.denoiser, "covariance"):
            x0 = self.denoiser(xt, t).x0
            missed = (y - self.measurement(x0))[..., None]  # before the covariance: it looks at the length
            across = self.denoiser.covariance(xt, t) @ matrix.T  # C·Aᵀ, (B, L, M)
            z = _solve(matrix @ across + noise, missed)
            x0 = x0 + (across @ z).mT
        else:
            r2 = (self.variance or white)(self.schedule, t).to(xt)[:, None, None]

            def gap(x0: Tensor) -> Tensor:
                z = _solve(r2 * matrix @ matrix.T + noise, (y - self.measurement(x0))[..., None])
                return (matrix.T @ z).mT

            x0, pull = pulled(self.denoiser, xt, t, gap)
            x0 = x0 + s**2 / a * pull
        return Prediction(x0, (xt - a * x0) / s)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """matrix⁻¹·right, which torch does not know in bfloat16."""
    return torch.linalg.solve(precise(matrix), precise(right)).to(right)


def pulled(
    denoiser: Callable[..., Prediction], xt: Tensor, t: Tensor | float, gap: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """x̂_0, and (∂x̂_0/∂x_t)ᵀ·gap(x̂_0), both (B, 1, L): what of a gap in x̂_0 a change of x_t would close.

    By autograd through a network; an oracle has the slope from its covariance, √ᾱ/(1-ᾱ)·C (Tweedie's formula).
    """
    if hasattr(denoiser, "covariance"):
        t, a, s = noised(xt, t, schedule_of(denoiser))
        x0 = denoiser(xt, t).x0
        return x0, a / s**2 * gap(x0) @ denoiser.covariance(xt, t)
    with torch.enable_grad():
        leaf = xt.detach().requires_grad_()
        x0 = denoiser(leaf, t).x0
        (pull,) = torch.autograd.grad(x0, leaf, gap(x0.detach()))
    return x0.detach(), pull


class LinearCovariance:
    """A trained denoiser that borrows its posterior covariance from its linear skip: U·Λ(1-ᾱ)/(ᾱΛ + 1-ᾱ)·Uᵀ.

    With it `Guided` needs no gradient. An approximation: the covariance is that of Gaussian data, the same for every
    x_t; it knows the directions in which signals vary, but not which of them this signal has decided on.

    Args:
        denoiser: a `Denoiser` whose network is a `LinearSkip`.
    """

    def __init__(self, denoiser: Denoiser | Asked):
        network = getattr(denoiser, "network", None)
        if not isinstance(network, LinearSkip):
            raise ValueError(f"Only a LinearSkip knows a covariance, got {type(network).__name__}.")
        self.denoiser, self.schedule, self.wiener = denoiser, schedule_of(denoiser), network.wiener

    def __call__(self, xt: Tensor, t: Tensor | float) -> Prediction:
        """xt (B, C, L), t (B,) → Prediction."""
        prediction: Prediction = self.denoiser(xt, t)
        return prediction

    def covariance(self, xt: Tensor, t: Tensor | float) -> Tensor:
        """Cov[x_0 | x_t] of Gaussian data with the same mean and covariance, (B, C·L, C·L)."""
        _, a, s = noised(xt, t, self.schedule)
        power, basis = self.wiener.power, self.wiener.basis
        return (basis * (power * s**2 / (a**2 * power + s**2))) @ basis.T
