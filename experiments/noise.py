"""Noise in the data: trained with some, tested with less and with more; clean signals from noisy ones."""

from __future__ import annotations

import torch

from ddpm_lib import (
    BenchmarkMorlet,
    Cleaned,
    Denoiser,
    Estimate,
    FamilyOracle,
    Noisy,
    NoisyOracle,
    Recipe,
    Schedule,
    even_log_snr,
    loss_over_floor,
    sample,
    stream,
)
from ddpm_lib.samplers import TILT

from .runner import SAMPLES, TEST, Experiment, judged

SIGMAS = (0.0, 0.03, 0.1, 0.3)
CLEAN = BenchmarkMorlet()
END = 1.1  # over the noise of the data; declared before it was known that √2 passes on less of a network's error


def above(schedule: Schedule, end: float) -> list[float]:
    """Twenty steps of the sampler's grid, those that lie above `end`; then `end`, and from there one step to 0."""
    return [t for t in even_log_snr(schedule, 20, TILT) if t > end] + [end, 0.0]


def on(sigma: float, recipe: Recipe, denoiser: Denoiser, n: int = 2048) -> Estimate:
    """Loss over floor on n fresh signals with noise of this sigma; the floor is the one of such signals."""
    generator = torch.Generator().manual_seed(TEST)
    x0, _ = Noisy(CLEAN, sigma).sample(n, generator)
    t = torch.randint(1, recipe.schedule.T + 1, (n,), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    return loss_over_floor(denoiser, NoisyOracle(FamilyOracle(CLEAN, recipe.schedule), sigma), x0, t, eps)


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, float]:
    """Loss over floor on data of every noise; what it generates; and what `Cleaned` generates with it."""
    found: dict[str, float] = {}
    for sigma in SIGMAS:
        ratio = on(sigma, recipe, denoiser)
        found |= {f"on {sigma:g}": ratio.value, f"on {sigma:g}: margin": ratio.margin}
    shape, generator = (2048, 1, CLEAN.length), stream(SAMPLES, recipe.seed, 0)
    *_, x = sample(denoiser, shape, generator=generator)
    found |= judged(x, CLEAN)
    cleaned = Cleaned(denoiser, recipe.family.sigma, END)
    *_, x = sample(cleaned, shape, above(recipe.schedule, cleaned.end), generator=generator)
    return found | {f"cleaned: {name}": value for name, value in judged(x, CLEAN).items()}


EXPERIMENT = Experiment(
    name="noise",
    recipes={f"{sigma:g}": Recipe(family=Noisy(CLEAN, sigma), steps=600) for sigma in SIGMAS}
    | {"0.1, 60 steps": Recipe(family=Noisy(CLEAN, 0.1), steps=60)},  # the row that the chapter makes again
    seeds=range(3),
    measure=measure,
)
