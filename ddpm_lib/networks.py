"""A one-dimensional U-Net that is told the noise level, and the linear skip around it (chapter `unet`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import check_conditions, check_signals, check_tensor, count, limits, same_type
from .oracle import Wiener

__all__ = ["Block", "Conditions", "LinearSkip", "NoiseLevel", "UNet1D"]


class NoiseLevel(nn.Module):
    """log-SNR (B,) → embedding (B, dim): sines and cosines of many wavelengths, then a small MLP.

    The sinusoidal embedding of Vaswani et al. 2017, of the noise level and not of the step number, so that
    a trained network can be used on any grid of steps.
    """

    freqs: Tensor

    def __init__(self, dim: int, waves: int = 16):
        super().__init__()
        count(dim, "dim", high=10**4)
        count(waves, "waves", high=10**4)
        # log-SNR runs over some ±10: wavelengths from 60, more than the whole range, down to 0.6
        self.register_buffer("freqs", 2 * math.pi / torch.logspace(math.log10(60), math.log10(0.6), waves))
        self.mlp = nn.Sequential(nn.Linear(2 * waves, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())

    def forward(self, log_snr: Tensor) -> Tensor:
        angle = check_tensor(log_snr, "log_snr", "B", like=self.freqs)[:, None] * self.freqs
        return self.mlp(torch.cat([angle.sin(), angle.cos()], 1))


class Conditions(nn.Module):
    """What is asked for, (B, P) with NaN where nothing is → embedding (B, dim).

    A value becomes sines and cosines of its place in its range, the faster the weaker, so that near values mean nearly
    the same from the start; a value that is not given becomes a learned vector, the null embedding of Ho & Salimans
    2022, one for each parameter, so that any subset may be asked for.

    Args:
        ranges: (low, high) of each parameter.
        dim: size of the embedding.
    """

    low: Tensor
    high: Tensor
    freqs: Tensor

    def __init__(self, ranges: Sequence[tuple[float, float]], dim: int, waves: int = 7):
        super().__init__()
        for interval in ranges:
            limits("The range of a condition", interval)
        count(dim, "dim", high=10**4)
        count(waves, "waves", high=100)
        low, high = torch.tensor(ranges, dtype=torch.float32).T
        self.register_buffer("low", low.contiguous())
        self.register_buffer("high", high.contiguous())
        # from a quarter of a period over the range, so that no two places look alike, to 16 periods
        self.register_buffer("freqs", math.pi * 2.0 ** torch.arange(-1, waves - 1))
        self.value = nn.Parameter(torch.randn(len(ranges), 2 * waves, dim) / waves**0.5)
        self.null = nn.Parameter(torch.zeros(len(ranges), dim))
        layers = [nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim)]
        self.mlp = nn.Sequential(*layers)

    def forward(self, cond: Tensor) -> Tensor:
        same_type(check_conditions(cond, ("B", len(self.low))), self.low, "cond")
        place = (cond.nan_to_num() - self.low) / (self.high - self.low)
        angle = place[..., None] * self.freqs
        waves = torch.cat([angle.sin(), angle.cos()], 2) * (math.pi / self.freqs).clamp(max=1).repeat(2)
        value = torch.einsum("bpf,pfd->bpd", waves, self.value)
        return self.mlp(torch.where(cond.isnan()[..., None], self.null, value).sum(1))


class Block(nn.Module):
    """Residual block, (B, width, n) → the same shape: look at the neighbours, be told the noise level, add.

    The embedding scales and shifts every channel (FiLM, Perez et al. 2018). The last convolution starts at
    zero, so a new block is the identity and a deep stack starts as a shallow one.
    """

    def __init__(self, width: int, kernel: int, dim: int):
        super().__init__()
        for size, name in ((width, "width"), (kernel, "kernel"), (dim, "dim")):
            count(size, name, high=10**4)
        self.look = nn.Conv1d(width, 2 * width, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(1, 2 * width)
        self.film = nn.Linear(dim, 4 * width)
        self.mix = nn.Conv1d(2 * width, width, 1)
        for p in self.mix.parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        weight = self.look.weight
        check_tensor(x, "x", "B", weight.shape[1], "n", like=weight, values=False)  # values are looked at once, outside
        check_tensor(emb, "emb", len(x), self.film.in_features, like=weight, values=False)
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
        position: whether the network is told where along the signal it is; False for data without a fixed place.
        bridges: whether the way up gets back what was known on the way down; False only to see what that is worth.
        conditions: (low, high) of each parameter that may be asked for; none by default.

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
            count(size, "Every size of a UNet1D", high=10**4)
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
        """What the layers do not show: a recipe is told from another by how its network prints."""
        return "" if self.bridges else "bridges=False"

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        """x (B, in_channels, L), log_snr (B,), cond (B, P) with NaN where nothing is asked → (B, out_channels, L)."""
        if cond is not None and self.conditions is None:
            raise ValueError("This network was built without conditions: call it with cond=None.")
        check_tensor(x, "x", "B", self.in_channels, "L", like=self.patches.weight)
        check_tensor(log_snr, "log_snr", len(x))
        length = x.shape[-1]
        if self.position:
            where = torch.linspace(-1, 1, length, dtype=x.dtype, device=x.device)
            x = torch.cat([x, where.expand(len(x), 1, length)], 1)
        emb = self.noise_level(log_snr)
        if self.conditions is not None:
            nothing = torch.full((len(x), len(self.conditions.low)), math.nan, dtype=x.dtype, device=x.device)
            told = self.conditions(nothing if cond is None else cond)
            if len(told) != len(x):
                raise ValueError(f"There are {len(told)} conditions for {len(x)} signals: give one for each.")
            emb = emb + told
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


class LinearSkip(nn.Module):
    """ε̂ = ε̂_lin + c·network: the network learns what the best linear denoiser leaves over.

    ε̂_lin comes from the mean and covariance of the data, computed from signals and never from their formula;
    c² is the mean square error that it leaves at this noise level, so the network's target has unit size
    at every t. The network sees x_t at unit size and ε̂_lin: 2C channels in, C out. (The idea of Karras et al.
    2022, sec. 5, with a matrix where they have a number.)

    Args:
        network: (B, 2C, L), (B,), cond → (B, C, L).
        wiener: the linear denoiser; it fixes the shape (C, L) of the signals.

    >>> from ddpm_lib import BenchmarkMorlet, fit_gaussian
    >>> x0, _ = BenchmarkMorlet().sample(500, torch.Generator().manual_seed(0))
    >>> net = LinearSkip(UNet1D(in_channels=2), Wiener(*fit_gaussian(x0)))
    >>> net(torch.randn(2, 1, 128), torch.zeros(2)).shape
    torch.Size([2, 1, 128])
    """

    def __init__(self, network: nn.Module, wiener: Wiener):
        super().__init__()
        self.network, self.wiener = network, wiener
        # mean square of a sample of the data, of which c_in makes unit size
        self.size = float(wiener.mean.square().mean() + wiener.power.sum() / wiener.mean.numel())

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        """xt (B, C, L), log_snr (B,) → ε̂ (B, C, L)."""
        check_tensor(log_snr, "log_snr", len(check_signals(x, "x")), like=x)
        signal = torch.sigmoid(log_snr)[:, None, None]  # ᾱ_t
        noise = torch.sigmoid(-log_snr)[:, None, None]  # 1-ᾱ_t
        a, s = signal.sqrt(), noise.sqrt()
        linear = self.wiener(x, a, s).eps
        c_in = (signal * self.size + noise).rsqrt()
        c_out = self.wiener.eps_error(a, s).sqrt()
        return linear + c_out * self.network(torch.cat([c_in * x, linear], 1), log_snr, cond)


ALL = (UNet1D,)
