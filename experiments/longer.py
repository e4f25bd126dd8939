"""Longer signals: the same wavelets at more samples, the same recipe, and what a coarser level gives."""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from functools import partial
from typing import Any

from ddpm_lib import BenchmarkMorlet, Denoiser, Recipe, linear_skip
from ddpm_lib.training import LitDDPM

from .runner import Experiment, ratio, samples

LENGTHS = (128, 256, 512, 1024)
TIMED = (*LENGTHS, 2048, 4096)


def second_a_step(recipe: Recipe, steps: int = 3) -> float:
    """Seconds of one step of training (forward, backward, optimiser), the best of some."""
    denoiser = recipe.build()
    module, optimiser = LitDDPM(denoiser, recipe), recipe.optimiser(denoiser)
    draw, best = recipe.draw(denoiser.network), float("inf")
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    for step in range(steps):
        batch = draw(step)
        start = time.perf_counter()
        optimiser.zero_grad()
        module.training_step(batch, step).backward()
        optimiser.step()
        best = min(best, time.perf_counter() - start)
    return best


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """Loss over floor, over all t and at small ones; samples; seconds a step; the memory that the process needed."""
    whole, small = ratio(recipe, denoiser, 1, 1000, 1024), ratio(recipe, denoiser, 1, 100, 512)
    found = {"loss": whole.value, "loss_margin": whole.margin, "t_1_100": small.value}
    found |= samples(recipe, denoiser, 512)
    found["second a step"] = second_a_step(recipe)
    found["GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


DEFAULT = Recipe(steps=600)
EXPERIMENT = Experiment(
    name="longer",
    recipes={
        **{f"{length} samples": replace(DEFAULT, family=BenchmarkMorlet(length=length)) for length in LENGTHS},
        "1024 samples, one level more": replace(
            DEFAULT, family=BenchmarkMorlet(length=1024), network=partial(linear_skip, levels=3)
        ),
    },
    seeds=range(3),
    measure=measure,
)
