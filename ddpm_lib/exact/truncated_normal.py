"""A normal distribution cut to an interval: the posterior of an amplitude (chapter `best_denoiser`)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..shapes import Float

__all__ = ["TruncatedNormal"]


class TruncatedNormal(NamedTuple):
    """A normal distribution N(mean, spread²) cut to the interval between low and high standard units."""

    mean: Float[Tensor, "B K"]
    spread: Float[Tensor, "B K"]
    low: Float[Tensor, "B K"]
    high: Float[Tensor, "B K"]

    def log_mass(self) -> Float[Tensor, "B K"]:
        """Log of the probability of the interval, before it is cut; mirrored into the left tail, where Φ is precise."""
        right = self.low > 0
        low, high = torch.where(right, -self.high, self.low), torch.where(right, -self.low, self.high)
        below, above = torch.special.log_ndtr(low), torch.special.log_ndtr(high)
        return above + torch.log1p(-(below - above).exp().clamp(max=1 - 1e-12))

    def moments(self) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        """Mean and mean square."""
        log_mass = self.log_mass()
        at_low, at_high = (
            torch.exp(-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - log_mass) for z in (self.low, self.high)
        )
        shift = at_low - at_high
        variance = (1 + self.low * at_low - self.high * at_high - shift**2).clamp(0, 1)
        mean = self.mean + self.spread * torch.minimum(torch.maximum(shift, self.low), self.high)
        return mean, mean**2 + self.spread**2 * variance

    def draw(self, generator: torch.Generator | None) -> Float[Tensor, "B K"]:
        """One number from each, by inverting Φ."""
        u = torch.rand(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        low, high = (torch.special.ndtr(z) for z in (self.low, self.high))
        z = torch.special.ndtri((low + (high - low) * u).clamp(1e-15, 1 - 1e-15))
        return self.mean + self.spread * torch.minimum(torch.maximum(z, self.low), self.high)
