"""Signals with the parameters that are given as conditions (chapter `conditioning`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..checks import check_count, check_number, check_tensor, describe
from ..diffusion.denoiser import DenoiserLike, Prediction
from ..shapes import Float, Real, Time
from ..signals.family import Family

__all__ = ["ClassifierFreeGuidance", "conditions"]


def conditions(family: Family, n: int, **values: float | Real[Tensor, ""] | Real[Tensor, "n"]) -> Float[Tensor, "n P"]:
    """Make conditions for n signals of a family: a number or n of them for a parameter, NaN for those not named.

    Raises:
        ValueError: a parameter that the family does not have, or a value outside its box.

    >>> from ddpm_lib import BenchmarkMorlet
    >>> conditions(BenchmarkMorlet(), 2, w=5.0)
    tensor([[nan, nan, 5.],
            [nan, nan, 5.]])
    """
    cond = torch.full((check_count(n, "The number of signals"), len(family.names)), torch.nan)
    for name, value in values.items():
        if name not in family.names:
            raise ValueError(f"{type(family).__name__} has the parameters {', '.join(family.names)}, not {name!r}.")
        k = family.names.index(name)
        low, high = float(family.low[k]), float(family.high[k])
        wanted = torch.as_tensor(value)
        if wanted.shape not in ((), (n,)) or not ((wanted >= low) & (wanted <= high)).all():
            raise ValueError(
                f"{name} lies between {low:g} and {high:g} in this family: one number or ({n},), got {describe(value)}."
            )
        cond[:, k] = wanted
    return cond


class ClassifierFreeGuidance(nn.Module):
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6): a denoiser under conditions.

        ε̂ = ε̂(x_t) + weight·(ε̂(x_t, cond) - ε̂(x_t))

    With weight 1 that is the conditional denoiser, and only that is evaluated. Ho & Salimans' w is weight - 1.

    Args:
        denoiser: trained with conditions (`Recipe.p_conditional`), or any that takes conditions.
        cond: one row for every signal that will be sampled, NaN where there is no condition (see `conditions`).
        weight: 0 ignores the conditions; above 1 exaggerates them, and the samples have no longer the distribution of
            the data.
    """

    cond: Float[Tensor, "B P"]

    def __init__(self, denoiser: DenoiserLike, cond: Float[Tensor, "B P"], weight: float = 1.0):
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        check_tensor(cond.nan_to_num(posinf=math.inf, neginf=-math.inf), "cond", "B", "P")
        self.register_buffer("cond", cond, persistent=False)
        self.weight = check_number(weight, "A guidance weight", 0.0)

    def forward(self, xt: Float[Tensor, "B C L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """Guided by its own condition or by the one given here, a row for every signal."""
        cond = (self.cond if cond is None else cond).to(xt)
        conditional = self.denoiser(xt, t, cond)
        if self.weight == 1:
            return conditional
        free = self.denoiser(xt, t, torch.full_like(cond, torch.nan))
        # x̂_0 and ε̂ hang together linearly, so the same mean is right for both
        return Prediction(*(torch.lerp(f, c, self.weight) for f, c in zip(free, conditional, strict=True)))
