"""Other functions: the recipe as it is, on families that nothing was tuned on."""

from __future__ import annotations

from typing import Any

from ddpm_lib import BenchmarkMorlet, Denoiser, LinearSkip, Morlet, Recipe, families

from .runner import Experiment, both, fresh


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """Loss over floor and samples; the floor itself, and how far the best linear denoiser is from it."""
    assert isinstance(denoiser.network, LinearSkip)
    _, t, eps, exact = fresh(recipe.family, recipe.schedule, 1, recipe.schedule.T, 4096)
    floor = float((eps - exact).square().mean())
    linear = float(denoiser.network.wiener.eps_error(*recipe.schedule(t)).mean())
    return {"floor": floor, "linear": linear / floor, **both(recipe, denoiser)}


KNOWN = (BenchmarkMorlet, Morlet, *families.ALL[:-1])  # the last one has six parameters and no exact answer
EXPERIMENT = Experiment(
    name="families",
    recipes={make.__name__: Recipe(family=make(), steps=600) for make in KNOWN},
    seeds=range(3),
    measure=measure,
)
