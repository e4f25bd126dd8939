"""A number and how far off it may be."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..shapes import Bool, Float

__all__ = ["Estimate", "proportion"]


class Estimate(NamedTuple):
    """A mean with the half-width of its 95 % interval."""

    value: float
    margin: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.margin:.2g}"


def _mean(x: Float[Tensor, "n"]) -> Estimate:
    x = x.double()
    spread = x.std().item() if len(x) > 1 else math.inf  # one number says nothing of how far it is from the mean
    return Estimate(x.mean().item(), 1.96 * spread / math.sqrt(len(x)))


def proportion(hits: Bool[Tensor, "n"]) -> Estimate:
    """Share of True, with the Agresti-Coull interval, which does not vanish at 0 and 1."""
    if not isinstance(hits, Tensor) or hits.dtype != torch.bool or hits.ndim != 1 or not len(hits):
        raise TypeError("A share is that of True in a tensor of booleans of shape (n,), n >= 1.")
    n, k = len(hits) + 4, int(hits.sum()) + 2
    centre = k / n
    margin = 2 * math.sqrt(centre * (1 - centre) / n)
    value = float(hits.double().mean())
    return Estimate(value, max(margin + centre - value, margin - centre + value))
