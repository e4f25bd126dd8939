"""Signals with the parameters that were asked for (chapter `conditioning`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..checks import brief, check_tensor, count, number
from ..diffusion.denoiser import DenoiserLike, Prediction
from ..shapes import Float, Real, Time
from ..signals.family import Family

__all__ = ["Asked", "ask"]


def ask(family: Family, n: int, **values: float | Real[Tensor, ""] | Real[Tensor, "n"]) -> Float[Tensor, "n P"]:
    """Conditions for n signals of a family: a number or n of them for each parameter asked for, NaN for the others.

    Raises:
        ValueError: a parameter that the family does not have, or a value outside its box.

    >>> from ddpm_lib import BenchmarkMorlet
    >>> ask(BenchmarkMorlet(), 2, w=5.0)
    tensor([[nan, nan, 5.],
            [nan, nan, 5.]])
    """
    cond = torch.full((count(n, "The number of signals"), len(family.names)), torch.nan)
    for name, value in values.items():
        if name not in family.names:
            raise ValueError(f"{type(family).__name__} has the parameters {', '.join(family.names)}, not {name!r}.")
        k = family.names.index(name)
        low, high = float(family.low[k]), float(family.high[k])
        asked = torch.as_tensor(value)
        if asked.shape not in ((), (n,)) or not ((asked >= low) & (asked <= high)).all():
            raise ValueError(
                f"{name} lies between {low:g} and {high:g} in this family: one number or ({n},), got {brief(value)}."
            )
        cond[:, k] = asked
    return cond


class Asked(nn.Module):
    """A denoiser that is asked for something: classifier-free guidance (Ho & Salimans 2022, eq. 6).

        ε̂ = ε̂(x_t) + weight·(ε̂(x_t, cond) - ε̂(x_t))

    With weight 1 that is the conditional denoiser, and only that is evaluated. Ho & Salimans' w is weight - 1.

    Args:
        denoiser: trained with conditions (`Recipe.told`), or any that takes conditions.
        cond: NaN for what is not asked: one row for every signal that will be sampled (see `ask`).
        weight: 0 ignores what is asked; above 1 exaggerates it, and the law of what comes out is no longer the data's.
    """

    cond: Float[Tensor, "B P"]

    def __init__(self, denoiser: DenoiserLike, cond: Float[Tensor, "B P"], weight: float = 1.0):
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        check_tensor(cond.nan_to_num(posinf=math.inf, neginf=-math.inf), "cond", "B", "P")
        self.register_buffer("cond", cond, persistent=False)
        self.weight = number(weight, "A guidance weight", 0.0)

    def forward(self, xt: Float[Tensor, "B C L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """Guided by its own condition or by the one given here, a row for every signal."""
        cond = (self.cond if cond is None else cond).to(xt)
        conditional = self.denoiser(xt, t, cond)
        if self.weight == 1:
            return conditional
        free = self.denoiser(xt, t, torch.full_like(cond, torch.nan))
        # x̂_0 and ε̂ hang together linearly, so the same mean is right for both
        return Prediction(*(torch.lerp(f, c, self.weight) for f, c in zip(free, conditional, strict=True)))
