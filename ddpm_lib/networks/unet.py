"""A one-dimensional U-Net conditioned on the noise level (chapter `unet`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checks import check_count
from ..shapes import Float
from .embeddings import Conditions, NoiseLevel

__all__ = ["Block", "UNet1D"]


class Block(nn.Module):
    """Residual block: look at the neighbours, take in the noise level, add.

    The embedding scales and shifts every channel (FiLM, Perez et al. 2018). The last convolution starts at
    zero, so a new block is the identity and a deep stack starts as a shallow one.
    """

    def __init__(self, width: int, kernel: int, dim: int):
        super().__init__()
        self.look = nn.Conv1d(width, 2 * width, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(1, 2 * width)
        self.film = nn.Linear(dim, 4 * width)
        self.mix = nn.Conv1d(2 * width, width, 1)
        for p in self.mix.parameters():
            nn.init.zeros_(p)

    def forward(self, x: Float[Tensor, "B width n"], emb: Float[Tensor, "B dim"]) -> Float[Tensor, "B width n"]:
        scale, shift = self.film(emb)[:, :, None].chunk(2, 1)
        return x + self.mix(F.silu(self.norm(self.look(x)) * (1 + scale) + shift))


class UNet1D(nn.Module):
    """A 1-D U-Net for signals of any length (Ronneberger et al. 2015, with the residual blocks above).

    The signal is cut into patches, each patch becomes one position of `width` channels. Going down, blocks
    look at ever wider surroundings at half the resolution; going up, the resolution returns and what was
    known at each level is added back (the skips). A length that is no multiple of patch·2^(levels-1) is
    padded with zeros and cut back. Convolutions do not know where they are; one more input channel, from -1 to 1
    along the signal, tells them (CoordConv, Liu et al. 2018).

    Args:
        in_channels, out_channels: channels of the input and of the output.
        width: channels inside.
        levels: resolutions, each half of the one before.
        blocks: blocks a level, on the way down and again on the way up.
        patch: samples a patch.
        kernel: positions a convolution sees; odd.
        dim: size of the embedding of the noise level.
        position: whether the network is given its position along the signal; False for data without a fixed place.
        bridges: whether the way up gets back what was known on the way down; False only to see what that is worth.
        conditions: (low, high) of each parameter that may be given; none by default.

    >>> net = UNet1D()
    >>> net(torch.randn(2, 1, 127), torch.zeros(2)).shape
    torch.Size([2, 1, 127])
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 32,
        levels: int = 2,
        blocks: int = 6,
        patch: int = 4,
        kernel: int = 3,
        dim: int = 128,
        position: bool = True,
        bridges: bool = True,
        conditions: Sequence[tuple[float, float]] = (),
    ):
        super().__init__()
        for size in (in_channels, out_channels, width, levels, blocks, patch, kernel, dim):
            check_count(size, "Every size of a UNet1D", high=10**4)
        if kernel % 2 == 0:
            raise ValueError(f"The kernel of a UNet1D must be odd, got {kernel}.")
        self.in_channels, self.position, self.bridges = in_channels, position, bridges
        self.multiple = patch * 2 ** (levels - 1)
        self.noise_level = NoiseLevel(dim)
        self.conditions = Conditions(conditions, dim) if len(conditions) else None
        self.patches = nn.Conv1d(in_channels + position, width, patch, stride=patch)
        self.down = nn.ModuleList(_stack(blocks, width, kernel, dim) for _ in range(levels))
        self.shrink = nn.ModuleList(nn.Conv1d(width, width, 2, stride=2) for _ in range(levels - 1))
        self.grow = nn.ModuleList(nn.ConvTranspose1d(width, width, 2, stride=2) for _ in range(levels - 1))
        self.up = nn.ModuleList(_stack(blocks, width, kernel, dim) for _ in range(levels - 1))
        self.samples = nn.ConvTranspose1d(width, out_channels, patch, stride=patch)
        for p in self.samples.parameters():
            nn.init.zeros_(p)

    def extra_repr(self) -> str:
        """What the layers do not show: a recipe is known by how its network prints."""
        return "" if self.bridges else "bridges=False"

    def forward(
        self, x: Float[Tensor, "B in_channels L"], log_snr: Float[Tensor, "B"], cond: Float[Tensor, "B P"] | None = None
    ) -> Float[Tensor, "B out_channels L"]:
        """The output for x; `cond` is NaN where there is no condition."""
        if cond is not None and self.conditions is None:
            raise ValueError("This network was built without conditions: call it with cond=None.")
        length = x.shape[-1]
        if self.position:
            where = torch.linspace(-1, 1, length, dtype=x.dtype, device=x.device)
            x = torch.cat([x, where.expand(len(x), 1, length)], 1)
        emb = self.noise_level(log_snr)
        if self.conditions is not None:
            nothing = torch.full((len(x), len(self.conditions.low)), math.nan, dtype=x.dtype, device=x.device)
            emb = emb + self.conditions(nothing if cond is None else cond)
        h = self.patches(F.pad(x, (0, -length % self.multiple)))
        skips = []
        for level, blocks in enumerate(_stacks(self.down)):
            for block in blocks:
                h = block(h, emb)
            if level < len(self.shrink):
                skips.append(h)
                h = self.shrink[level](h)
        for grow, blocks in zip(self.grow, _stacks(self.up), strict=True):
            h = grow(h) + skips.pop() if self.bridges else grow(h)
            for block in blocks:
                h = block(h, emb)
        return self.samples(h)[..., :length]


def _stacks(modules: nn.ModuleList) -> list[nn.ModuleList]:
    return list(modules)  # type: ignore[arg-type]


def _stack(n: int, width: int, kernel: int, dim: int) -> nn.ModuleList:
    return nn.ModuleList(Block(width, kernel, dim) for _ in range(n))


ALL = (UNet1D,)
