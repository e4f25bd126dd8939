"""Signals that agree with a measurement, without training anything (chapter `repairs`).

Of a measurement known is y = A·x_0 + σ·n: samples that are missing, a low-pass version, every fourth sample. Wanted
are draws of x_0 given y. `PseudoinverseGuidance` is a denoiser like any other, so every sampler takes it; `repaint` and
`dps` are steps, for the loop of `sample`: fix what they need with `functools.partial`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import at_least_float32, check_tensor
from ..diffusion.denoiser import DenoiserLike, Prediction, WithCovariance
from ..diffusion.measurement import Measurement
from ..diffusion.schedules import Schedule
from ..exact.gaussian import Wiener
from ..shapes import Float, Real, Time
from .steps import Step, advance, ancestral, towards

__all__ = ["LinearCovariance", "PseudoinverseGuidance", "dps", "repaint"]


def white_variance(schedule: Schedule, t: Real[Tensor, "B"], power: float = 0.08) -> Float[Tensor, "B"]:
    """Variance of x_0 given x_t, of a sample, if the signals were white noise of this power: S(1-ᾱ)/(ᾱS + 1-ᾱ)."""
    noise = schedule.noise(t)
    return power * noise / (schedule.alpha_bar(t) * power + noise)


class PseudoinverseGuidance(nn.Module):
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
        y: one row for every signal that will be sampled, at most 4096 (`sample` evaluates more in chunks).
        variance: r_t² of (schedule, t); by default the denoiser's own covariance, or `white_variance` where it has
            none.
    """

    y: Float[Tensor, "B M"]

    def __init__(
        self,
        denoiser: DenoiserLike,
        measurement: Measurement,
        y: Float[Tensor, "B M"],
        variance: Callable[[Schedule, Real[Tensor, "B"]], Float[Tensor, "B"]] | None = None,
    ):
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.measurement, self.variance = measurement, variance
        self.register_buffer("y", check_tensor(y, "y", "B", len(measurement.matrix)), persistent=False)

    def forward(self, xt: Float[Tensor, "B 1 L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """The estimate given y, a row for every signal."""
        t, a, s = self.schedule.at(t, xt)
        matrix, y = self.measurement.matrix.to(xt), self.y
        noise = self.measurement.sigma**2 * torch.eye(len(matrix)).to(xt)
        if self.variance is None and isinstance(self.denoiser, WithCovariance):
            x0 = self.denoiser(xt, t, cond).x0
            across = self.denoiser.covariance(xt, t) @ matrix.T  # C·Aᵀ, (B, L, M)
            z = _solve(matrix @ across + noise, self.measurement.residual(y, x0)[..., None])
            x0 = x0 + (across @ z).mT
        else:
            r2 = (self.variance or white_variance)(self.schedule, t).to(xt)[:, None, None]

            def gap(x0: Float[Tensor, "B 1 L"]) -> Float[Tensor, "B 1 L"]:
                z = _solve(r2 * matrix @ matrix.T + noise, self.measurement.residual(y, x0)[..., None])
                return (matrix.T @ z).mT

            x0, pull = vector_jacobian(self.denoiser, xt, t, gap, cond)
            x0 = x0 + s**2 / a * pull
        return Prediction.from_x0(x0, xt, a, s)


def _solve(matrix: Float[Tensor, "B M M"], right: Float[Tensor, "B M 1"]) -> Float[Tensor, "B M 1"]:
    """matrix⁻¹·right, which torch does not know in bfloat16."""
    return torch.linalg.solve(at_least_float32(matrix), at_least_float32(right)).to(right)


def vector_jacobian(
    denoiser: DenoiserLike,
    xt: Float[Tensor, "B 1 L"],
    t: Time,
    gap: Callable[[Float[Tensor, "B 1 L"]], Float[Tensor, "B 1 L"]],
    cond: Float[Tensor, "B P"] | None = None,
) -> tuple[Float[Tensor, "B 1 L"], Float[Tensor, "B 1 L"]]:
    """x̂_0, and (∂x̂_0/∂x_t)ᵀ·gap(x̂_0): what of a gap in x̂_0 a change of x_t would close.

    By autograd through a network; an oracle has the slope from its covariance, √ᾱ/(1-ᾱ)·C (Tweedie's formula).
    """
    if isinstance(denoiser, WithCovariance):
        t, a, s = denoiser.schedule.at(t, xt)
        x0 = denoiser(xt, t, cond).x0
        return x0, a / s**2 * gap(x0) @ denoiser.covariance(xt, t)
    with torch.enable_grad():
        leaf = xt.detach().requires_grad_()
        x0 = denoiser(leaf, t, cond).x0
        (pull,) = torch.autograd.grad(x0, leaf, gap(x0.detach()))
    return x0.detach(), pull


class LinearCovariance(nn.Module):
    """A trained denoiser that borrows its posterior covariance from its linear skip: U·Λ(1-ᾱ)/(ᾱΛ + 1-ᾱ)·Uᵀ.

    With it `PseudoinverseGuidance` needs no gradient. An approximation: the covariance is that of Gaussian data, the
    same for every x_t; it knows the directions in which signals vary, but not which of them this signal has decided on.

    Args:
        denoiser: with a `LinearSkip` in it.

    Raises:
        ValueError: no linear skip to borrow from.
    """

    def __init__(self, denoiser: DenoiserLike):
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        inside = denoiser.modules() if isinstance(denoiser, nn.Module) else ()
        found = [module for module in inside if isinstance(module, Wiener)]
        if not found:
            raise ValueError(f"Only a denoiser with a LinearSkip has a covariance, got {type(denoiser).__name__}.")
        self.wiener = found[0]

    def forward(self, xt: Float[Tensor, "B C L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """That of the denoiser."""
        return self.denoiser(xt, t, cond)

    def covariance(self, xt: Float[Tensor, "B C L"], t: Time) -> Float[Tensor, "B C*L C*L"]:
        """Cov[x_0 | x_t] of Gaussian data with the same mean and covariance."""
        return self.wiener.covariance(*self.schedule.at(t, xt)[1:])


def repaint(
    denoiser: DenoiserLike,
    xt: Float[Tensor, "B 1 L"],
    t: float,
    s: float,
    noise: Float[Tensor, "B 1 L"],
    *,
    measurement: Measurement,
    y: Float[Tensor, "B M"],
    rounds: int = 10,
    step: Step = ancestral,
    generator: torch.Generator | None = None,
    past: Any = None,
) -> Float[Tensor, "B 1 L"] | tuple[Float[Tensor, "B 1 L"], Any]:
    """Step, put the known samples back as noisy as x_s is, go up to t again, `rounds` times: RePaint, algorithm 1.

    Lugmayr et al. 2022, eq. (8), for data that are measured with noise: √ᾱ_s·y holds the noise √ᾱ_s·σ already, so
    only the rest is added, and the known part of x_s is √ᾱ_s·y + √(1-ᾱ_s-ᾱ_s·σ²)·z. Once x_s is less noisy than y,
    nothing is put back: y is a part of the path by then. (The algorithm as printed adds (1-ᾱ_t)·z, without the root.)

    Args:
        denoiser, xt, t, s, noise: as for `ancestral`.
        measurement: of single samples; of anything with A·Aᵀ = 1, to be exact.
        y: one row a signal.
        rounds: how often the step is made; 1 only puts back. Each costs what `step` does.
        step: what takes x_t to x_s.
        generator: for the noise of what is put back and of going up: a CPU generator.

    Raises:
        ValueError: a measurement that mixes samples: there is nothing to put back.

    >>> from functools import partial
    >>> from ddpm_lib import BenchmarkMorlet, FamilyOracle, linear, sample
    >>> seen, rng = Measurement.samples(torch.arange(128) < 70, sigma=0.05), torch.Generator().manual_seed(0)
    >>> x0, _ = BenchmarkMorlet().sample(1, rng)
    >>> fill = partial(repaint, measurement=seen, y=seen.observe(x0, rng), rounds=2, generator=rng)
    >>> *_, x = sample(FamilyOracle(BenchmarkMorlet(), linear()), (1, 1, 128), step=fill, generator=rng)
    >>> bool((seen(x) - seen(x0)).abs().max() < 0.2)
    True
    """
    if not measurement.selects:
        raise ValueError(
            "RePaint puts samples back, and this measurement mixes them: use PseudoinverseGuidance or dps."
        )
    schedule, matrix, y = denoiser.schedule, measurement.matrix.to(xt), y.to(xt)
    left = schedule.noise(s) - schedule.alpha_bar(s) * measurement.sigma**2  # y has brought its own noise
    if left <= 0:
        return step(denoiser, xt, t, s, noise) if past is None else step(denoiser, xt, t, s, noise, past=past)
    beta = schedule.beta(t, s)
    keep, add, a, rest = (v.sqrt().to(xt) for v in (1 - beta, beta, schedule.alpha_bar(s), left))

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    def put_back(xs: Float[Tensor, "B 1 L"]) -> Float[Tensor, "B 1 L"]:
        known = a * y + rest * draw(y)
        return xs + (measurement.residual(known, xs) @ matrix)[:, None]

    xs, past = advance(step, denoiser, xt, t, s, noise, past)
    xs = put_back(xs)
    for _ in range(rounds - 1):
        xt = keep * xs + add * draw(xs)
        xs, past = advance(step, denoiser, xt, t, s, draw(xs))
        xs = put_back(xs)
    return xs if past is None else (xs, past)


def dps(
    denoiser: DenoiserLike,
    xt: Float[Tensor, "B 1 L"],
    t: float,
    s: float,
    noise: Float[Tensor, "B 1 L"],
    *,
    measurement: Measurement,
    y: Float[Tensor, "B M"],
    zeta: float = 0.5,
) -> Float[Tensor, "B 1 L"]:
    """The ancestral step, then a push towards y of constant weight: DPS, Chung et al. 2023, algorithm 1.

        x_s = x_s′ - ζ·∇_{x_t}‖y - A·x̂_0(x_t)‖

    The likelihood of their eq. (16) would push with 1/σ² times the gap; their algorithm divides by the norm of the gap
    instead, whatever σ is (appendix C.2). Here as in their code the gradient is that of the norm; their formula, the
    gradient of its square over the norm, is twice that. ζ has no right value: it is tuned. It takes many steps, 250
    and more in the paper (appendix C.5).

    Args:
        denoiser, xt, t, s, noise: as for `ancestral`.
        measurement, y: what was measured; y one row a signal.
        zeta: ζ, the weight, not negative.
    """

    def gap(x0: Float[Tensor, "B 1 L"]) -> Float[Tensor, "B 1 L"]:
        missed = measurement.residual(y, x0)
        return (missed / missed.norm(dim=1, keepdim=True).clamp(min=1e-12) @ measurement.matrix.to(x0))[:, None]

    x0, pull = vector_jacobian(denoiser, xt, t, gap)
    return towards(x0, denoiser.schedule, xt, t, s, noise, 1.0) + zeta * pull


ALL: tuple[Step, ...] = (repaint, dps)
