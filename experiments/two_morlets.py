"""Sums of two wavelets: six parameters, which no grid covers. What can be measured all the same.

The exact denoiser of *one* wavelet is known. Given the other, it applies to x_t less that other. So the two are drawn
in turn from their exact conditional laws (Gibbs sampling), and the mean over many turns tends to E[x_0 | x_t].
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ddpm_lib import (
    BenchmarkMorlet,
    Denoiser,
    Family,
    FamilyOracle,
    Recipe,
    Schedule,
    fit_family,
    mean_loss,
    proportion,
    q_sample,
    sample,
    stream,
)
from ddpm_lib.measures import FittedSignals, parameter_distances, predicted_noise
from ddpm_lib.signals import TwoMorlets

from .runner import BANDS, SAMPLES, TEST

LEFT, RIGHT = (BenchmarkMorlet(b=b, s=(0.3, 0.6), w=(4.0, 7.0)) for b in ((-2.5, -0.5), (0.5, 2.5)))
TURNS, WARM_UP, DRAWS = 16, 4, 8


def fit_both(x: Tensor, rounds: int = 5) -> FittedSignals:
    """Fit sums of two wavelets to signals (n, 1, L): one wavelet to what the other leaves over, in turn."""
    two = torch.zeros_like(x)
    for _ in range(rounds):
        one = fit_family(x - two, LEFT, tolerance=1e9)
        other = fit_family(x - one.signals, RIGHT, tolerance=1e9)
        two = other.signals
    whole = one.signals + two
    residual = (x - whole).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)
    params = torch.cat([one.params, other.params], 1)
    return FittedSignals(params, whole, residual, one.valid & other.valid & (residual < 0.05))


def gibbs(
    xt: Tensor, t: Tensor, schedule: Schedule, generator: torch.Generator, pair: tuple[Family, Family] = (LEFT, RIGHT)
) -> Tensor:
    """An estimate of E[x_0 | x_t], (n, 1, L), for sums of a pair of signals (n, 1, L) at times (n,), drawn in turn.

    Each turn adds the mean of `DRAWS` draws of one wavelet given the other, and the turns go on from one of them.
    """
    oracles = [FamilyOracle(family, schedule) for family in pair]
    a, _ = schedule(t)
    drawn = [torch.zeros_like(xt), torch.zeros_like(xt)]
    total = torch.zeros_like(xt)
    for turn in range(WARM_UP + TURNS):
        for k, (oracle, family) in enumerate(zip(oracles, pair, strict=True)):
            params = oracle.posterior(xt - a * drawn[1 - k], t, DRAWS, generator)
            shapes = family.render(params.flatten(0, 1)).view(*params.shape[:2], -1)
            drawn[k] = shapes[:, :1]
            if turn >= WARM_UP:
                total += shapes.mean(1, keepdim=True)
    return total / TURNS


@cache
def reference(family: TwoMorlets, schedule: Schedule, low: int, high: int, n: int) -> tuple[Tensor, ...]:
    """Fresh x0, t in low…high and ε, and two independent estimates of ε*. Eight signals share a t: that is faster."""
    generator = torch.Generator().manual_seed(TEST + low)
    x0, _ = family.sample(n, generator)
    t = torch.linspace(low - 0.5, high + 0.5, n // 8 + 1)[:-1].add((high - low + 1) / (n // 8) / 2).round().long()
    t = t.clamp(low, high).repeat_interleave(8)
    eps = torch.randn(x0.shape, generator=generator)
    xt = q_sample(x0, t, eps, schedule)
    a, s = schedule(t)
    twice = (gibbs(xt, t, schedule, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    return x0, t, eps, *((xt - a * mean) / s for mean in twice)


def against(recipe: Recipe, denoiser: Denoiser, low: int, high: int, n: int) -> dict[str, float]:
    """Loss over the estimated floor; the errors of two independent estimates are multiplied, so that they cancel."""
    x0, t, eps, one, two = reference(recipe.family, recipe.schedule, low, high, n)
    ours = predicted_noise(denoiser, q_sample(x0, t, eps, recipe.schedule), t)
    excess = ((ours - one) * (ours - two)).mean((1, 2)).double()
    floor = ((eps - one) * (eps - two)).mean((1, 2)).double()
    ratio = excess.mean() / floor.mean()
    margin = 1.96 * (excess - ratio * floor).std() / n**0.5 / floor.mean()
    apart = (one - two).square().mean() / 2 / floor.mean()
    return {"loss": float(1 + ratio), "loss_margin": float(margin), "floor": float(floor.mean()), "apart": float(apart)}


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """Loss, beside the linear denoiser's and an estimate of the floor; and samples, by a fit of two wavelets."""
    T = recipe.schedule.T
    found: dict[str, Any] = against(recipe, denoiser, 1, T, 512)
    for name, (low, high) in BANDS.items():
        found[name] = against(recipe, denoiser, low, high, 128)["loss"]
    generator = torch.Generator().manual_seed(TEST)
    x0, _ = recipe.family.sample(4096, generator)
    t = torch.randint(1, T + 1, (4096,), generator=generator)
    found["L_simple"] = mean_loss(denoiser, x0, t, torch.randn(x0.shape, generator=generator)).value
    wiener = denoiser.network.wiener
    found["linear"] = float(wiener.eps_error(*recipe.schedule(torch.arange(1, T + 1))).mean()) / found["floor"]
    *_, x = sample(denoiser, (1024, 1, recipe.family.length), generator=stream(SAMPLES, recipe.seed, 0))
    fits = fit_both(x)
    valid = proportion(fits.valid)
    found |= {"valid": valid.value, "valid_margin": valid.margin, "residual": float(fits.residual.median())}
    found |= {f"law_{name}": law.value / law.floor for name, law in parameter_distances(fits, recipe.family).items()}
    *_, four = sample(denoiser, (4, 1, recipe.family.length), generator=torch.Generator().manual_seed(SAMPLES))
    return found | {"samples": four[:, 0]}
