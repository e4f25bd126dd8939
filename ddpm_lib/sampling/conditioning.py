"""Signals with the parameters that were asked for (chapter `conditioning`)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import brief, check_conditions, check_signals, count, number, reals, schedule_of
from ..diffusion.denoiser import Prediction
from ..signals.family import Family

__all__ = ["Asked", "ask"]


def ask(family: Family, n: int, **values: float | Tensor) -> Tensor:
    """Conditions (n, P) for n signals of a family: a number or (n,) for each parameter asked for, NaN for the others.

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
        asked = reals(value, name)
        if asked.shape not in ((), (n,)) or not ((asked >= low) & (asked <= high)).all():
            raise ValueError(
                f"{name} lies between {low:g} and {high:g} in this family: one number or ({n},), got {brief(value)}."
            )
        cond[:, k] = asked
    return cond


class Asked:
    """A denoiser that is asked for something: classifier-free guidance (Ho & Salimans 2022, eq. 6).

        ε̂ = ε̂(x_t) + weight·(ε̂(x_t, cond) - ε̂(x_t))

    With weight 1 that is the conditional denoiser, and only that is evaluated. Ho & Salimans' w is weight - 1.

    Args:
        denoiser: trained with conditions (`Recipe.told`), or any function (xt, t, cond) with a ``schedule``.
        cond: (B, P), NaN for what is not asked: one row for every signal that will be sampled (see `ask`).
        weight: 0 ignores what is asked; above 1 exaggerates it, and the law of what comes out is no longer the data's.
    """

    def __init__(self, denoiser: Callable[..., Prediction], cond: Tensor, weight: float = 1.0):
        self.denoiser, self.schedule = denoiser, schedule_of(denoiser)
        self.network = getattr(denoiser, "network", None)  # `LinearCovariance` borrows from it
        self.cond, self.weight = check_conditions(cond), number(weight, "A guidance weight", 0.0)

    def __call__(self, xt: Tensor, t: Tensor | float) -> Prediction:
        """xt (B, C, L), B as in cond → Prediction."""
        if len(check_signals(xt, "xt")) != len(self.cond):
            raise ValueError(f"There are {len(self.cond)} conditions for {len(xt)} signals: give one for each.")
        asked = self.denoiser(xt, t, self.cond.to(xt))
        if self.weight == 1:
            return asked
        free = self.denoiser(xt, t, torch.full_like(self.cond, torch.nan).to(xt))
        # x̂_0 and ε̂ hang together linearly, so the same mean is right for both
        return Prediction(*(torch.lerp(f, a, self.weight) for f, a in zip(free, asked, strict=True)))
