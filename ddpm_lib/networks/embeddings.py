"""What a network is given besides the signal: the noise level, and conditions (chapters `unet` and `conditioning`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..checks import check_interval
from ..shapes import Float

__all__ = ["Conditions", "NoiseLevel"]


class NoiseLevel(nn.Module):
    """log-SNR → embedding: sines and cosines of many wavelengths, then a small MLP.

    The sinusoidal embedding of Vaswani et al. 2017, of the noise level and not of the step number, so that
    a trained network can be used on any grid of steps.
    """

    freqs: Float[Tensor, "waves"]

    def __init__(self, dim: int, waves: int = 16):
        super().__init__()
        # log-SNR runs over some ±10: wavelengths from 60, more than the whole range, down to 0.6
        self.register_buffer("freqs", 2 * math.pi / torch.logspace(math.log10(60), math.log10(0.6), waves))
        self.mlp = nn.Sequential(nn.Linear(2 * waves, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())

    def forward(self, log_snr: Float[Tensor, "B"]) -> Float[Tensor, "B dim"]:
        angle = log_snr[:, None] * self.freqs
        return self.mlp(torch.cat([angle.sin(), angle.cos()], 1))


class Conditions(nn.Module):
    """Conditions, NaN where there is none → embedding.

    A value becomes sines and cosines of its place in its range, the faster the weaker, so that near values mean nearly
    the same from the start; a value that is not given becomes a learned vector, the null embedding of Ho & Salimans
    2022, one for each parameter, so that any subset may be given.

    Args:
        ranges: (low, high) of each parameter.
        dim: size of the embedding.
    """

    low: Float[Tensor, "P"]
    high: Float[Tensor, "P"]
    freqs: Float[Tensor, "waves"]

    def __init__(self, ranges: Sequence[tuple[float, float]], dim: int, waves: int = 7):
        super().__init__()
        for interval in ranges:
            check_interval("The range of a condition", interval)
        low, high = torch.tensor(ranges, dtype=torch.float32).T
        self.register_buffer("low", low.contiguous())
        self.register_buffer("high", high.contiguous())
        # from a quarter of a period over the range, so that no two places look alike, to 16 periods
        self.register_buffer("freqs", math.pi * 2.0 ** torch.arange(-1, waves - 1))
        self.value = nn.Parameter(torch.randn(len(ranges), 2 * waves, dim) / waves**0.5)
        self.null = nn.Parameter(torch.zeros(len(ranges), dim))
        layers = [nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim)]
        self.mlp = nn.Sequential(*layers)

    def forward(self, cond: Float[Tensor, "B P"]) -> Float[Tensor, "B dim"]:
        if cond.shape[1] != len(self.low):  # one column would be taken for all
            raise ValueError(f"Conditions must have shape (B, {len(self.low)}), got {tuple(cond.shape)}.")
        place = (cond.nan_to_num() - self.low) / (self.high - self.low)
        angle = place[..., None] * self.freqs
        waves = torch.cat([angle.sin(), angle.cos()], 2) * (math.pi / self.freqs).clamp(max=1).repeat(2)
        value = torch.einsum("bpf,pfd->bpd", waves, self.value)
        return self.mlp(torch.where(cond.isnan()[..., None], self.null, value).sum(1))
