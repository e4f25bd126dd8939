"""The linear skip around a network (chapters `unet` and `training`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion.schedules import Schedule
from ..exact.gaussian import FULL, Wiener, fit_gaussian
from ..shapes import Float
from ..signals.batches import stream
from ..signals.finite import Finite
from ..signals.source import Source, WithBox, signal_shape
from .unet import UNet1D

__all__ = ["LinearSkip", "by_linear_error", "linear_skip", "plain_unet"]


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

    def forward(
        self, x: Float[Tensor, "B C L"], log_snr: Float[Tensor, "B"], cond: Float[Tensor, "B P"] | None = None
    ) -> Float[Tensor, "B C L"]:
        """x_t → ε̂."""
        signal = torch.sigmoid(log_snr)[:, None, None]  # ᾱ_t
        noise = torch.sigmoid(-log_snr)[:, None, None]  # 1-ᾱ_t
        a, s = signal.sqrt(), noise.sqrt()
        linear = self.wiener(x, a, s).eps
        c_in = (signal * self.size + noise).rsqrt()
        c_out = self.wiener.eps_error(a, s).sqrt()
        return linear + c_out * self.network(torch.cat([c_in * x, linear], 1), log_snr, cond)


COVARIANCE = 1  # purpose of the stream of numbers that the covariance is estimated with


def linear_skip(family: Source, seed: int = 0, n: int = 50_000, conditional: bool = False, **sizes: Any) -> LinearSkip:
    """The network of the book: a `UNet1D` around the linear denoiser, whose covariance comes from n signals.

    Args:
        family: draws the signals.
        seed: of these draws.
        n: signals; fewer, 4096 at least, where those of more than `FULL` numbers would not fit into memory.
        conditional: whether the network can be given values of the family's parameters.
        sizes: width, levels, … of the `UNet1D`.
    """
    channels, length = signal_shape(family)
    if channels * length > FULL:
        n = min(n, max(4096, 2**25 // (channels * length)))
    x0 = family.signals if isinstance(family, Finite) else family.sample(n, stream(seed, 0, COVARIANCE))[0]
    if conditional:
        if not isinstance(family, WithBox):
            what = type(family).__name__
            raise ValueError(f"A conditional network needs a family with a box of parameters, which {what} has not.")
        sizes["conditions"] = list(zip(family.low.tolist(), family.high.tolist(), strict=True))
    return LinearSkip(UNet1D(2 * channels, channels, **sizes), Wiener(*fit_gaussian(x0)))


def by_linear_error(network: nn.Module, schedule: Schedule) -> Float[Tensor, "T"] | None:
    """How often to draw each t: √(error of the linear denoiser · width of the step); None without a `LinearSkip`.

    Where the linear denoiser errs there is something to learn. The width is that of the step from t - ½ to t + ½ in
    log-SNR: at small t a single step covers many noise levels, each of them a task of its own.
    """
    if not isinstance(network, LinearSkip):
        return None
    t = torch.arange(1, schedule.T + 1, device=network.wiener.power.device)
    width = schedule.log_snr(t - 0.5) - schedule.log_snr((t + 0.5).clamp(max=schedule.T))
    return (network.wiener.eps_error(*schedule(t)).flatten() * width.float()).sqrt().cpu()


def plain_unet(family: Source, seed: int, **sizes: Any) -> UNet1D:
    """A `UNet1D` alone: for signals too long for `linear_skip`, whose covariance has (C·L)² numbers."""
    channels = signal_shape(family)[0]
    return UNet1D(channels, channels, **sizes)
