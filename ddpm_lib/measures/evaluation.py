"""How far a model of any recipe is from perfect: the exact denoiser where there is one, fresh signals, scores."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import exact
from ..diffusion.denoiser import DenoiserLike
from ..shapes import Float, Int
from ..signals.batches import stream
from ..signals.family import Family
from ..signals.finite import Finite
from ..training.recipe import Recipe
from .quality import Quality, QualityTable, energy_distance, memorised, sample_quality

__all__ = ["held_out", "oracle", "quality_of_samples"]


TEST = 10**9  # a step of the random stream that no training run reaches


def oracle(recipe: Recipe) -> DenoiserLike | str:
    """The exact denoiser, or in words why there is none."""
    try:
        return exact.of(recipe.family, recipe.schedule)
    except ValueError as error:
        return str(error)


def held_out(recipe: Recipe, n: int) -> tuple[Float[Tensor, "n C L"], Int[Tensor, "n"], Float[Tensor, "n C L"]]:
    """x_0, t and ε that no training has seen."""
    generator = stream(recipe.seed, TEST)
    x0, _ = recipe.family.sample(n, generator)
    t = torch.randint(1, recipe.schedule.T + 1, (n,), generator=generator)
    return x0, t, torch.randn(x0.shape, generator=generator)


def quality_of_samples(recipe: Recipe, x: Float[Tensor, "n C L"], known: bool) -> QualityTable:
    """Scores of samples x, at the scale of training.

    Where the family is ``known``, and has at most three parameters, it is the `sample_quality`; else the distance to as
    many real signals, and for a finite set the share of copies.
    """
    family, generator = recipe.family, stream(recipe.seed, TEST, 1)
    if known and isinstance(family, Family) and len(family.names) <= 3:
        return sample_quality(x, family, generator=generator)
    real, _ = family.sample(len(x), generator)
    distance, floor = energy_distance(x, real, generator=generator)
    rows = {"distance": Quality(*distance, floor)}
    if isinstance(family, Finite):
        rows["memorised"] = Quality(*memorised(x, family.signals), memorised(real, family.signals).value)
    return QualityTable(rows)
