"""Simpler models: what each part of the network is worth, at the same number of signals."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ddpm_lib import LinearSkip, NoiseLevel, Recipe, UNet1D, fit_gaussian, linear_skip, stream
from ddpm_lib.exact import Wiener

from .claims import Claim
from .runner import Experiment, both

DEFAULT = Recipe(steps=600)


def around(family, seed: int, network) -> LinearSkip:
    """Any network around the linear denoiser, as `linear_skip` does it for the U-Net."""
    x0, _ = family.sample(50_000, stream(seed, 0, 1))
    return LinearSkip(network, Wiener(*fit_gaussian(x0)))


class MLP(nn.Module):
    """Four hidden layers over the whole signal, told the noise level: it knows nothing of neighbours."""

    def __init__(self, length: int, inputs: int = 2, width: int = 256, dim: int = 128):
        super().__init__()
        self.level, self.first = NoiseLevel(dim), nn.Linear(inputs * length, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.tell = nn.ModuleList(nn.Linear(dim, width) for _ in range(4))
        self.last = nn.Linear(width, length)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        emb, h = self.level(log_snr), self.first(x.flatten(1))
        for hidden, tell in zip(self.hidden, self.tell, strict=True):
            h = h + nn.functional.silu(hidden(nn.functional.silu(h)) + tell(emb))
        return self.last(h).unsqueeze(1)


class Linear(nn.Module):
    """Nothing is learned: what is left is the linear denoiser."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.nothing * x[:, :1]


class Untold(UNet1D):
    """A U-Net that is not told the noise level: every signal gets the embedding of log-SNR 0."""

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        return super().forward(x, torch.zeros_like(log_snr), cond)


class Bare(nn.Module):
    """A U-Net without the linear denoiser around it."""

    def __init__(self, family, seed: int):
        super().__init__()
        self.unet = UNet1D(1, 1)

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.unet(x, log_snr)


def mlp(family, seed: int) -> LinearSkip:
    return around(family, seed, MLP(family.length))


def linear(family, seed: int) -> LinearSkip:
    return around(family, seed, Linear())


def untold(family, seed: int) -> LinearSkip:
    return around(family, seed, Untold(2, 1))


def scalar(family, seed: int) -> LinearSkip:
    """One number in place of the covariance: data of the same power that know nothing of shape (Karras et al. 2022)."""
    x0, _ = family.sample(50_000, stream(seed, 0, 1))
    power = float(x0.square().mean())
    return LinearSkip(UNet1D(2, 1), Wiener(torch.zeros_like(x0[0]), power * torch.eye(x0[0].numel())))


class NeverTold(Bare):
    """Neither a linear denoiser nor the noise level: the network has x_t and nothing else."""

    def __init__(self, family, seed: int):
        super().__init__(family, seed)
        self.unet = Untold(1, 1)


def uniform(network, schedule):
    """Without a linear denoiser nobody knows beforehand where its error lies, so t is drawn uniformly."""
    return None


EXPERIMENT = Experiment(
    name="models",
    recipes={
        "the U-Net": DEFAULT,
        "linear denoiser": replace(DEFAULT, network=linear, steps=1),
        "MLP": replace(DEFAULT, network=mlp),
        "plain conv net": replace(DEFAULT, network=partial(linear_skip, levels=1, blocks=18)),
        "no bridges": replace(DEFAULT, network=partial(linear_skip, bridges=False)),
        "not told the noise level": replace(DEFAULT, network=untold),
        "the U-Net, t uniform": replace(DEFAULT, density=uniform),
        "no linear denoiser, t uniform": replace(DEFAULT, network=Bare, density=uniform),
        "one number for the linear denoiser": replace(DEFAULT, network=scalar),
        "neither linear denoiser nor noise level": replace(DEFAULT, network=NeverTold, density=uniform),
        "MLP, 7 times as long": replace(DEFAULT, network=mlp, steps=7 * DEFAULT.steps),  # about as many seconds
        "the U-Net, 60 steps": replace(DEFAULT, steps=60),  # the chapter trains it again
    },
    seeds=range(3),
    measure=both,
)

CHAPTER = "simpler_models"
FULL, EVENLY, BARE = "the U-Net", "the U-Net, t uniform", "no linear denoiser, t uniform"
UNTOLD, CUT, NUMBER = "not told the noise level", "no bridges", "one number for the linear denoiser"
LONG, CONV, NEITHER = "MLP, 7 times as long", "plain conv net", "neither linear denoiser nor noise level"
WITH_NUMBER = "With one number in its place the loss is higher, and fewer samples are valid."
WITHOUT_BRIDGES = "Without bridges the loss is higher, and fewer samples are valid."
CLAIMS = (
    Claim("Seven times as long brings the loss of the MLP down by more than half.", "loss", "MLP", LONG, by=1.57),
    Claim("It stays above that of the plain conv net", "loss", LONG, CONV, by=0.3),
    Claim(WITHOUT_BRIDGES, "loss", CUT, FULL),
    Claim(WITHOUT_BRIDGES, "valid", FULL, CUT),
    Claim(WITH_NUMBER, "loss", NUMBER, FULL),
    Claim(WITH_NUMBER, "valid", FULL, NUMBER, by=0.2),
    Claim("Drawing $t$ uniformly raises the loss by more than a tenth of the floor", "loss", EVENLY, FULL, by=0.1),
    Claim("and leaves few samples valid", "valid", FULL, EVENLY, by=0.5),
    Claim("Without the coarse view the loss is lower", "loss", FULL, CONV),
    Claim("and more samples are valid.", "valid", CONV, FULL),
    Claim("With $t$ drawn uniformly the loss is higher without it.", "loss", BARE, EVENLY),
    Claim("for $t\\le10$ no difference is to be seen", "t_1_10", EVENLY, BARE, same=True),
    Claim("Not being told raises the loss a little", "loss", UNTOLD, FULL),
    Claim("and no fewer samples are seen to be valid", "valid", UNTOLD, FULL, same=True),
    Claim("Without a linear denoiser it raises the loss by more than a fifth", "loss", NEITHER, BARE, by=0.2),
    Claim("have the same loss, as far as three seeds can tell", "loss", UNTOLD, CUT, same=True),
    Claim("More of the samples are valid without the noise level than without bridges.", "valid", UNTOLD, CUT, by=0.1),
)
