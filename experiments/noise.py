"""Noise in the data: trained with some, tested with less and with more; clean signals from noisy ones."""

from __future__ import annotations

import torch

from ddpm_lib import (
    BenchmarkMorlet,
    Cleaned,
    Denoiser,
    FamilyOracle,
    Noisy,
    NoisyOracle,
    Recipe,
    even_log_snr,
    loss_over_floor,
    sample,
    stream,
)
from ddpm_lib.samplers import TILT

from .runner import SAMPLES, TEST, Experiment, judged

SIGMAS = (0.0, 0.03, 0.1, 0.3)
CLEAN = BenchmarkMorlet()


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, float]:
    """Loss over floor on data of every noise; what it generates; and what `Cleaned` generates with it."""
    found: dict[str, float] = {}
    for sigma in SIGMAS:
        generator = torch.Generator().manual_seed(TEST)
        x0, _ = Noisy(CLEAN, sigma).sample(2048, generator)
        t = torch.randint(1, recipe.schedule.T + 1, (2048,), generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        exact = NoisyOracle(FamilyOracle(CLEAN, recipe.schedule), sigma)
        ratio = loss_over_floor(denoiser, exact, x0, t, eps)
        found |= {f"on {sigma:g}": ratio.value, f"on {sigma:g}: margin": ratio.margin}
    shape, generator = (2048, 1, CLEAN.length), stream(SAMPLES, recipe.seed, 0)
    *_, x = sample(denoiser, shape, generator=generator)
    found |= judged(x, CLEAN)
    cleaned = Cleaned(denoiser, recipe.family.sigma)
    times = [t for t in even_log_snr(recipe.schedule, 20, TILT) if t > cleaned.end] + [cleaned.end, 0]
    *_, x = sample(cleaned, shape, times, generator=generator)
    return found | {f"cleaned: {name}": value for name, value in judged(x, CLEAN).items()}


EXPERIMENT = Experiment(
    name="noise",
    recipes={f"{sigma:g}": Recipe(family=Noisy(CLEAN, sigma), steps=600) for sigma in SIGMAS},
    seeds=range(3),
    measure=measure,
)
