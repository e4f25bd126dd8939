"""How far a model of any recipe is from perfect: the exact denoiser where there is one, fresh signals, scores."""

from __future__ import annotations

import torch
from torch import Tensor

from ..exact.family import FamilyOracle
from ..exact.finite import FiniteOracle
from ..exact.mixture import MixtureOracle
from ..exact.noisy import NoisyOracle
from ..signals.augmentation import Augmented
from ..signals.batches import stream
from ..signals.family import Family
from ..signals.finite import Finite
from ..signals.mixture import Mixture
from ..signals.noisy import Noisy
from ..training.recipe import Recipe
from .quality import Score, Scoreboard, energy_distance, memorised, scoreboard

__all__ = ["fresh", "oracle", "scores"]


TEST = 10**9  # a step of the random stream that no training run reaches


def oracle(recipe: Recipe) -> FiniteOracle | FamilyOracle | NoisyOracle | MixtureOracle | str:
    """The exact denoiser, or in words why there is none."""
    family, schedule = recipe.family, recipe.schedule
    if isinstance(family, Finite):
        return FiniteOracle(family.signals, schedule)
    if isinstance(family, Noisy):
        return NoisyOracle(FamilyOracle(family.clean, schedule), family.sigma)
    if isinstance(family, Augmented):
        return "Of changed signals no exact denoiser is known."
    if not isinstance(family, Mixture) and type(family).sample is not Family.sample:
        return f"{type(family).__name__} draws its signals in its own way."
    try:
        return MixtureOracle(family, schedule) if isinstance(family, Mixture) else FamilyOracle(family, schedule)
    except ValueError as error:
        return str(error)


def fresh(recipe: Recipe, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """x0 (n, C, L), t (n,) and ε (n, C, L) that no training has seen."""
    generator = stream(recipe.seed, TEST)
    x0, _ = recipe.family.sample(n, generator)
    t = torch.randint(1, recipe.schedule.T + 1, (n,), generator=generator)
    return x0, t, torch.randn(x0.shape, generator=generator)


def scores(recipe: Recipe, x: Tensor, known: bool) -> Scoreboard:
    """Scores of samples x (n, C, L), at the scale of training.

    Where the family is ``known``, and has at most three parameters, it is the `scoreboard`; else the distance to as
    many real signals, and for a finite set the share of copies.
    """
    family, generator = recipe.family, stream(recipe.seed, TEST, 1)
    if known and isinstance(family, Family) and len(family.names) <= 3:
        return scoreboard(x, family, generator=generator)
    real, _ = family.sample(len(x), generator)
    distance, floor = energy_distance(x, real, generator=generator)
    rows = {"distance": Score(*distance, floor)}
    if isinstance(family, Finite):
        rows["memorised"] = Score(*memorised(x, family.signals), memorised(real, family.signals).value)
    return Scoreboard(rows)
