"""Signals that were measured with noise (chapter `noisy_data`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_number
from ..shapes import Float
from .family import Family

__all__ = ["Noisy"]


class Noisy:
    """A family as an instrument with noise records it: y = x_0 + σ·n, n ~ N(0, I), drawn afresh.

    Args:
        family: of the clean signals.
        sigma: standard deviation of the noise, not negative.

    >>> from ddpm_lib import BenchmarkMorlet
    >>> Noisy(BenchmarkMorlet(), 0.1).sample(3, torch.Generator().manual_seed(0))[0].shape
    torch.Size([3, 1, 128])
    """

    def __init__(self, family: Family, sigma: float):
        self.clean, self.sigma = family, check_number(sigma, "The noise of data", 0.0, 1e6)
        self.names, self.low, self.high, self.length = family.names, family.low, family.high, family.length

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 1 L"], Float[Tensor, "n P"]]:
        """Draw n noisy signals: (y, params)."""
        x0, params = self.clean.sample(n, generator)
        return x0 + self.sigma * torch.randn(x0.shape, generator=generator), params

    def identity(self) -> str:
        """That of the clean signals, and the noise."""
        return f"{self.clean.identity()} with noise {self.sigma}"

    def __repr__(self) -> str:
        return f"Noisy({self.clean!r}, σ {self.sigma:g})"
