"""Steps of samplers (chapters `sampling` and `grids_and_solvers`).

A step takes x_t to x_s for any 0 ≤ s < t. It is a function (denoiser, xt, t, s, noise) → xs, so a new sampler
is one function, and the loop stays the same. A step that looks back returns (xs, past) instead, and is given that
``past`` with the next step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from ..diffusion.denoiser import DenoiserLike
from ..diffusion.forward import q_posterior
from ..diffusion.schedules import Schedule
from ..diffusion.variances import Variance, beta_tilde, per_signal
from ..shapes import Float

__all__ = ["Evaluation", "advance", "ancestral", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "heun"]

Step = Callable[..., Float[Tensor, "B C L"] | tuple[Float[Tensor, "B C L"], Any]]
"""(denoiser, xt, t, s, noise) → xs; or (denoiser, xt, t, s, noise, past=...) → (xs, past) of a step that looks back."""


def advance(
    step: Step,
    denoiser: DenoiserLike,
    xt: Float[Tensor, "B C L"],
    t: float,
    s: float,
    noise: Float[Tensor, "B C L"],
    past: Any = None,
) -> tuple[Float[Tensor, "B C L"], Any]:
    """Make one step of either kind: (xs, past), past being None where the step does not look back."""
    out = step(denoiser, xt, t, s, noise) if past is None else step(denoiser, xt, t, s, noise, past=past)
    return out if isinstance(out, tuple) else (out, None)


def ancestral(
    denoiser: DenoiserLike,
    xt: Float[Tensor, "B C L"],
    t: float,
    s: float,
    noise: Float[Tensor, "B C L"],
    variance: Variance = beta_tilde,
) -> Float[Tensor, "B C L"]:
    """x_s = μ̃(x_t, x̂_0) + σ·z: Ho et al. 2020, algorithm 2, for any s < t. The step to s = 0 returns the mean x̂_0.

    Args:
        denoiser: a `Denoiser` or an oracle.
        t, s: 0 ≤ s < t ≤ T.
        noise: ~ N(0, I), fresh for this step.
        variance: σ². The default is β̃; `elbo` takes β by default, so give both the same one where the bound is to be
            that of the samples.
    """
    mean = q_posterior(denoiser(xt, t).x0, xt, t, denoiser.schedule, s).mean
    return mean if s == 0 else mean + per_signal(variance(denoiser.schedule, t, s, xt)).sqrt().to(xt) * noise


def ddim(
    denoiser: DenoiserLike,
    xt: Float[Tensor, "B C L"],
    t: float,
    s: float,
    noise: Float[Tensor, "B C L"],
    eta: float = 0.0,
) -> Float[Tensor, "B C L"]:
    """x_s = √ᾱ_s·x̂_0 + √(1-ᾱ_s-σ²)·ε̂ + σ·z with σ² = η²·β̃: Song et al. 2021 (DDIM), eq. (12) and (16).

    eta = 0 adds no noise; eta = 1 has the distribution of `ancestral` with β̃. Arguments as there.
    """
    return towards(denoiser(xt, t).x0, denoiser.schedule, xt, t, s, noise, eta)


def towards(
    x0: Float[Tensor, "B C L"],
    schedule: Schedule,
    xt: Float[Tensor, "B C L"],
    t: float,
    s: float,
    noise: Float[Tensor, "B C L"],
    eta: float = 0.0,
) -> Float[Tensor, "B C L"]:
    """`ddim`'s step for a given estimate of x_0, 0 ≤ η ≤ 1."""
    noise_t, noise_s = schedule.noise(t), schedule.noise(s)
    var = eta**2 * schedule.beta_tilde(t, s)
    # x_s = a·x̂_0 + keep·x_t + add·z, written so that x_t and x̂_0 are never subtracted
    keep = ((noise_s - var) / noise_t).sqrt()
    a = (1 - noise_s).sqrt() - keep * (1 - noise_t).sqrt()
    return a.to(xt) * x0 + keep.to(xt) * xt + var.sqrt().to(xt) * noise


class Evaluation(NamedTuple):
    """What `dpmpp_2m` looks back at: the last evaluation, its time and its x̂_0."""

    t: float
    x0: Float[Tensor, "B C L"]


def dpmpp_2m(
    denoiser: DenoiserLike,
    xt: Float[Tensor, "B C L"],
    t: float,
    s: float,
    noise: Float[Tensor, "B C L"],
    eta: float = 0.0,
    past: Evaluation | None = None,
) -> tuple[Float[Tensor, "B C L"], Evaluation]:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2: `ddim` towards an x̂_0 halfway ahead.

    x̂_0 moves along a line over λ = log(√ᾱ/√(1-ᾱ)), through its last two values, and counts as it is in the
    middle of the step. The first step, and the one to s = 0 which is infinitely long in λ, take x̂_0 as it is.
    One evaluation per step. Arguments as for `ddim`; returns x_s and what the next step looks back at.
    """
    schedule, x0 = denoiser.schedule, denoiser(xt, t).x0
    ahead = x0
    if past is not None and s > 0:
        before, now, then = (float(schedule.log_snr(v)) for v in (past.t, t, s))
        ahead = x0 + (x0 - past.x0) * ((then - now) / (now - before) / 2)
    return towards(ahead, schedule, xt, t, s, noise, eta), Evaluation(t, x0)


def dpmpp_2m_sde(
    denoiser: DenoiserLike,
    xt: Float[Tensor, "B C L"],
    t: float,
    s: float,
    noise: Float[Tensor, "B C L"],
    past: Evaluation | None = None,
) -> tuple[Float[Tensor, "B C L"], Evaluation]:
    """SDE-DPM-Solver++(2M) of Lu et al. 2022: `dpmpp_2m` with the noise of `ancestral`, one evaluation per step."""
    return dpmpp_2m(denoiser, xt, t, s, noise, eta=1.0, past=past)


def heun(
    denoiser: DenoiserLike, xt: Float[Tensor, "B C L"], t: float, s: float, noise: Float[Tensor, "B C L"]
) -> Float[Tensor, "B C L"]:
    """Heun's second order step of the probability flow, Karras et al. 2022, algorithm 1: two evaluations per step.

    In x/√ᾱ over σ = √((1-ᾱ)/ᾱ) the flow is dx/dσ = ε̂: go along ε̂(t) to s (`ddim`), then along the mean of
    ε̂(t) and ε̂(s). Since ε̂(s) - ε̂(t) = (x̂_0(t) - x̂_0(s))/σ_s, it is written with x̂_0: where σ is large, steps along
    ε̂ would cancel, and float32 lose all digits. The step to s = 0 is `ddim` alone.
    """
    schedule, x0 = denoiser.schedule, denoiser(xt, t).x0
    xs = towards(x0, schedule, xt, t, s, noise)
    if s == 0:
        return xs
    ratio = ((schedule.log_snr(s) - schedule.log_snr(t)) / 2).exp()  # σ_t/σ_s
    turn = schedule.alpha_bar(s).sqrt() * (ratio - 1) / 2
    return xs + turn.to(xt) * (denoiser(xs, s).x0 - x0)


ALL: tuple[Step, ...] = (ancestral, ddim, dpmpp_2m, dpmpp_2m_sde, heun)
