"""Steps that keep to a measurement: known samples are put back (RePaint), or every step is pushed (DPS).

Chapter `repairs`.

Both are for the loop of `sample`; fix what they need with `functools.partial`. `Guided` does it as a denoiser.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import count, holds, number
from .guidance import pulled
from .measurements import Measurement
from .samplers import Denoise, Memory, Step, _step, _towards, ancestral

__all__ = ["dps", "repaint"]


def repaint(
    denoiser: Denoise,
    xt: Tensor,
    t: float,
    s: float,
    noise: Tensor,
    *,
    measurement: Measurement,
    y: Tensor,
    rounds: int = 10,
    step: Step = ancestral,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Step, put the known samples back as noisy as x_s is, go up to t again, `rounds` times: RePaint, algorithm 1.

    Lugmayr et al. 2022, eq. (8), for data that are measured with noise: √ᾱ_s·y holds the noise √ᾱ_s·σ already, so
    only the rest is added, and the known part of x_s is √ᾱ_s·y + √(1-ᾱ_s-ᾱ_s·σ²)·z. Once x_s is less noisy than y,
    nothing is put back: y is a part of the path by then. (The algorithm as printed adds (1-ᾱ_t)·z, without the root.)

    Args:
        denoiser, xt, t, s, noise: as for `ancestral`.
        measurement: of single samples; of anything with A·Aᵀ = 1, to be exact.
        y: (B, M), one row a signal.
        rounds: how often the step is made; 1 only puts back. Each costs what `step` does.
        step: what takes x_t to x_s.
        generator: for the noise of what is put back and of going up: a CPU generator.

    Raises:
        ValueError: a measurement that mixes samples: there is nothing to put back. `Guided` takes it.

    >>> from functools import partial
    >>> from ddpm_lib import BenchmarkMorlet, FamilyOracle, linear, sample
    >>> seen, rng = Measurement.samples(torch.arange(128) < 70, sigma=0.05), torch.Generator().manual_seed(0)
    >>> x0, _ = BenchmarkMorlet().sample(1, rng)
    >>> fill = partial(repaint, measurement=seen, y=seen.observe(x0, rng), rounds=2, generator=rng)
    >>> *_, x = sample(FamilyOracle(BenchmarkMorlet(), linear()), (1, 1, 128), step=fill, generator=rng)
    >>> bool((seen(x) - seen(x0)).abs().max() < 0.2)
    True
    """
    schedule = _step(denoiser, xt, t, s, noise)
    matrix, y = measurement.matrix.to(xt), measurement.check(y, xt)
    if not holds((matrix @ matrix.T - torch.eye(len(matrix)).to(xt)).abs() < 1e-4):
        raise ValueError("RePaint puts samples back, and this measurement mixes them: use Guided or dps for it.")
    count(rounds, "The number of rounds", high=10**4)
    left = 1 - schedule.alpha_bar(s) * (1 + measurement.sigma**2)  # of the noise of x_s, when y has brought its own
    if left <= 0:
        return step(denoiser, xt, t, s, noise)
    beta = schedule.beta(t, s)
    keep, add, a, rest = (v.sqrt().to(xt) for v in (1 - beta, beta, schedule.alpha_bar(s), left))

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    def put_back(xs: Tensor) -> Tensor:
        known = a * y + rest * draw(y)
        return xs + ((known - measurement(xs)) @ matrix)[:, None]

    xs = put_back(step(denoiser, xt, t, s, noise))
    for _ in range(rounds - 1):
        xt = keep * xs + add * draw(xs)
        xs = put_back(step(denoiser, xt, t, s, draw(xs)))
    return xs


def dps(
    denoiser: Denoise,
    xt: Tensor,
    t: float,
    s: float,
    noise: Tensor,
    *,
    measurement: Measurement,
    y: Tensor,
    zeta: float = 0.5,
) -> Tensor:
    """The ancestral step, then a push towards y of constant weight: DPS, Chung et al. 2023, algorithm 1.

        x_s = x_s′ - ζ·∇_{x_t}‖y - A·x̂_0(x_t)‖

    The likelihood of their eq. (16) would push with 1/σ² times the gap; their algorithm divides by the norm of the gap
    instead, whatever σ is (appendix C.2). Here as in their code the gradient is that of the norm; their formula, the
    gradient of its square over the norm, is twice that. ζ has no right value: it is tuned. It takes many steps, 250
    and more in the paper (appendix C.5).

    Args:
        denoiser, xt, t, s, noise: as for `ancestral`.
        measurement, y: what was measured; y (B, M), one row a signal.
        zeta: ζ, the weight, not negative.
    """
    schedule = _step(denoiser, xt, t, s, noise)
    y, zeta = measurement.check(y, xt), number(zeta, "zeta", 0.0)
    if isinstance(denoiser, Memory) and hasattr(denoiser.denoiser, "covariance"):
        denoiser = denoiser.denoiser  # an oracle has its slope from its covariance

    def gap(x0: Tensor) -> Tensor:
        missed = y - measurement(x0)
        return (missed / missed.norm(dim=1, keepdim=True).clamp(min=1e-12) @ measurement.matrix.to(x0))[:, None]

    x0, pull = pulled(denoiser, xt, t, gap)
    return _towards(x0, schedule, xt, t, s, noise, 1.0) + zeta * pull
