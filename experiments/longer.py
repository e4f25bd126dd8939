"""Longer signals: the same wavelets at more samples, the same recipe, and what a coarser level or attention gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_lib import BenchmarkMorlet, Denoiser, Family, LinearSkip, Recipe, linear_skip
from ddpm_lib.training import LitDDPM

from .claims import Claim
from .runner import Experiment, ratio, samples

LENGTHS = (128, 256, 512, 1024)


class Attention(nn.Module):
    """A block, and after it every position looks at all others, as Ho et al. 2020 have it at one resolution."""

    def __init__(self, block: nn.Module, width: int = 32, heads: int = 4):
        super().__init__()
        self.block, self.norm = block, nn.GroupNorm(1, width)
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        for p in self.look.out_proj.parameters():
            nn.init.zeros_(p)  # begins as the block alone, like every part of the network

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.block(x, emb)
        seen = self.norm(h).transpose(1, 2)
        return h + self.look(seen, seen, seen, need_weights=False)[0].transpose(1, 2)


def attention(family: Family, seed: int) -> LinearSkip:
    """The network of the book with attention behind every second block of its coarsest level."""
    network = linear_skip(family, seed)
    coarsest = network.network.down[-1]
    for k in range(1, len(coarsest), 2):
        coarsest[k] = Attention(coarsest[k])
    return network


def cost(recipe: Recipe, steps: int = 3) -> dict[str, float]:
    """What one step of training costs: seconds of forward, backward and optimiser (the best of some steps), and memory.

    The memory is that of all tensors that the forward pass keeps for the backward one, in MiB.
    """
    denoiser = recipe.build()
    module, optimiser = LitDDPM(denoiser, recipe), recipe.optimiser(denoiser, recipe)
    draw, best, kept = recipe.draw(denoiser.network), float("inf"), dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    for step in range(steps):
        batch = draw(step)
        start = time.perf_counter()
        optimiser.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor) if step == 0 else nullcontext():
            loss = module.training_step(batch, step)
        loss.backward()
        optimiser.step()
        best = min(best, time.perf_counter() - start)
    return {"second a step": best, "MiB": sum(kept.values()) / 2**20}


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """Loss over floor, over all t and at small ones; samples; what a step costs."""
    whole, small = ratio(recipe, denoiser, 1, 1000, 1024), ratio(recipe, denoiser, 1, 100, 512)
    found = {"loss": whole.value, "loss_margin": whole.margin, "t_1_100": small.value}
    return found | samples(recipe, denoiser, 512) | cost(recipe)


DEFAULT = Recipe(steps=300, batch=64)


def at(length: int, network: Callable[[Any, int], nn.Module] = linear_skip) -> Recipe:
    """The recipe with signals of another length."""
    return replace(DEFAULT, family=BenchmarkMorlet(length=length), network=network)


EXPERIMENT = Experiment(
    name="longer",
    recipes={
        **{f"{length} samples": at(length) for length in LENGTHS},
        "128 samples, one level more": at(128, partial(linear_skip, levels=3)),
        "128 samples, attention": at(128, attention),
        "1024 samples, one level more": at(1024, partial(linear_skip, levels=3)),
        "1024 samples, attention": at(1024, attention),
    },
    seeds=range(3),
    measure=measure,
)

CHAPTER = "your_signals"
SHORT, LONG, LEVEL = "128 samples", "1024 samples", "one level more"
CLAIMS = (
    Claim("The loss over the floor rises with the length", "loss", LONG, SHORT, by=0.2),
    Claim("from 256 to 512 samples, too", "loss", "512 samples", "256 samples"),
    Claim("At 1024 samples one resolution more lowers the loss", "loss", LONG, f"{LONG}, {LEVEL}"),
    Claim("at 128 it changes nothing that can be seen", "loss", SHORT, f"{SHORT}, {LEVEL}", same=True),
    Claim("nor does attention there", "loss", SHORT, f"{SHORT}, attention", same=True),
    Claim("the level is worth more", "loss", f"{LONG}, attention", f"{LONG}, {LEVEL}"),
    Claim("attention alone is not seen to help", "loss", LONG, f"{LONG}, attention", same=True),
)
