"""Noise in the data: trained with some, tested with less and with more; clean signals from noisy ones."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ddpm_lib import (
    BenchmarkMorlet,
    Denoiser,
    Estimate,
    FamilyOracle,
    Recipe,
    Schedule,
    even_log_snr,
    linear,
    loss_over_floor,
    q_sample,
    sample,
    stream,
)
from ddpm_lib.exact import Cleaned, NoisyOracle
from ddpm_lib.measures import predicted_noise
from ddpm_lib.sampling.grids import TILT
from ddpm_lib.signals import Noisy

from .claims import Claim
from .runner import SAMPLES, TEST, Experiment, judged

SIGMAS = (0.0, 0.03, 0.1, 0.3)
ENDS = {"1.1": 1.1, "√2": math.sqrt(2), "2": 2.0}  # where `Cleaned` stops, over the noise of the data
CLEAN, SCHEDULE = BenchmarkMorlet(), linear()


@cache
def fresh(sigma: float, n: int) -> tuple[Tensor, ...]:
    """Fresh signals with noise of this sigma, t, ε, and the exact ε* of them: computed once."""
    generator = torch.Generator().manual_seed(TEST)
    x0, _ = Noisy(CLEAN, sigma).sample(n, generator)
    t = torch.randint(1, SCHEDULE.T + 1, (n,), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    exact = NoisyOracle(FamilyOracle(CLEAN, SCHEDULE), sigma)
    return x0, t, eps, predicted_noise(exact, q_sample(x0, t, eps, SCHEDULE), t)


def on(sigma: float, denoiser: Denoiser, n: int = 2048) -> Estimate:
    """Loss over floor on n fresh signals with noise of this sigma; the floor is the one of such signals."""
    x0, t, eps, exact = fresh(sigma, n)
    return loss_over_floor(denoiser, exact, x0, t, eps)


def above(schedule: Schedule, end: float) -> list[float]:
    """Twenty steps of the sampler's grid, those that lie above `end`; then `end`, and from there one step to 0."""
    return [t for t in even_log_snr(schedule, 20, TILT) if t > end] + [end, 0.0]


def measure(recipe: Recipe, denoiser: Denoiser, n: int = 1024) -> dict[str, Any]:
    """Loss over floor on data of every noise; what it generates; and what `Cleaned` generates with it."""
    assert isinstance(recipe.family, Noisy)
    found: dict[str, Any] = {}
    for sigma in SIGMAS:
        ratio = on(sigma, denoiser)
        found |= {f"on {sigma:g}": ratio.value, f"on {sigma:g}: margin": ratio.margin}
    shape, generator = (n, 1, CLEAN.length), stream(SAMPLES, recipe.seed, 0)
    *_, x = sample(denoiser, shape, generator=generator)
    found |= judged(x, CLEAN) | {"generated": x[:4, 0]}
    if recipe.family.sigma == 0:  # nothing to clean
        return found
    for name, end in ENDS.items():
        cleaned = Cleaned(denoiser, recipe.family.sigma, end)
        *_, x = sample(cleaned, shape, above(recipe.schedule, cleaned.end), generator=generator)
        found |= {f"to {name}: {k}": value for k, value in judged(x, CLEAN).items()} | {f"to {name}": x[:4, 0]}
    return found


EXPERIMENT = Experiment(
    name="noise",
    recipes={f"{sigma:g}": Recipe(family=Noisy(CLEAN, sigma), steps=600) for sigma in SIGMAS}
    | {"0.1, 60 steps": Recipe(family=Noisy(CLEAN, 0.1), steps=60)},  # the row that the chapter makes again
    seeds=range(3),
    measure=measure,
)

CHAPTER = "noisy_data"
BEST = "Every network is best on the data it was trained on."
CLAIMS = (
    *(
        Claim(BEST, f"on {own:g}", f"{other:g}", f"{own:g}")
        for own, other in ((0.0, 0.03), (0.03, 0.0), (0.03, 0.1), (0.1, 0.03), (0.1, 0.3), (0.3, 0.1))
    ),
    Claim("the network that has only seen clean ones is the worst of the four, by far", "on 0.3", "0", "0.03", by=10),
    Claim("fewer of the cleaned samples are valid than with", "to √2: valid", "0.03", "0.1", by=0.1),
    Claim("and with $\\sigma=0.3$ none is.", "to √2: valid", "0.1", "0.3", by=0.1),
)
