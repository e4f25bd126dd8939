"""Four ways to train a diffusion model on short signals, each written as its own documentation writes it.

They share a schedule (β linear, T = 1000), the signals, and the clock: `progress` runs from 0 to 1 over the seconds
that a run is given, and the learning rates follow it.
"""

import copy
import importlib.util
import itertools
import math
import sys
import types
from dataclasses import replace
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

import ddpm_lib
from ddpm_lib import Recipe, linear, sample

SCHEDULE = linear()


class Contender(Protocol):
    """A model in training; made of (family, seed, learning rate).

    Attributes:
        name: as the table prints it. batch: signals a step. rates: learning rates to try; the best one counts.
        model: the module that is trained. averaged: the module that is scored and sampled.
    """

    name: str
    batch: int
    rates: tuple[float | None, ...]
    model: nn.Module
    averaged: nn.Module

    def step(self, i, progress):
        """One step of training."""

    def eps(self, xt, t):
        """ε̂ of x_t (B, 1, L) at times t (B,) in 1…T."""

    def sample(self, n, seed):
        """n signals, as the library samples them unless told otherwise."""


def descend(loss, model, optimiser, clip=1.0):
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimiser.step()


def warm_cosine(optimiser, lr, i, progress, warmup=100):
    """The rate climbs over 100 steps, then falls along a cosine to 0 at the end of the clock."""
    for group in optimiser.param_groups:
        group["lr"] = lr * min(1.0, (i + 1) / warmup) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


class Ours:
    """ddpm_lib's `Recipe()`; by the clock instead of by steps."""

    name, batch = "ddpm_lib", Recipe().batch
    rates = (None,)

    def __init__(self, family, seed, lr):
        self.recipe = Recipe(family=family, seed=seed)
        self.model = self.recipe.build()
        self.averaged = copy.deepcopy(self.model)
        self.draw = self.recipe.draw(self.model.network)
        self.optimiser = self.recipe.optimiser(self.model, self.recipe)
        for group in self.optimiser.param_groups:
            group["initial_lr"] = group["lr"]

    def step(self, i, progress):
        recipe, fine = self.recipe, 1_000_000
        by_clock = recipe.rate(min(int(progress * fine), fine), replace(recipe, steps=fine, warmup=0))
        share = min(by_clock, (i + 1) / (recipe.warmup + 1))
        for group in self.optimiser.param_groups:
            group["lr"] = share * group["initial_lr"]
        x0, t, eps, weight, _ = self.draw(i)
        loss = (weight * ddpm_lib.loss(self.model, x0, t, eps)).mean()
        descend(loss, self.model, self.optimiser, recipe.clip)
        with torch.no_grad():
            keep = min(recipe.ema, (1 + i) / (10 + i))
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1 - keep)

    def eps(self, xt, t):
        return self.averaged(xt, t).eps

    def sample(self, n, seed):
        return list(sample(self.averaged, (n, 1, 128), generator=torch.Generator().manual_seed(seed)))[-1]


class Diffusers:
    """Hugging Face's diffusers: `UNet1DModel`, `DDPMScheduler`, AdamW, warm-up and cosine, as in its training tutorial.

    Without `extra_in_channels`, the room for the embedding of t, the model as it comes raises an error. Its default
    embedding takes random sines of the whole number t; the positional one of the image models is used here.
    """

    name, batch = "diffusers", 32
    rates = (1e-3, 2e-3, 4e-3, 8e-3)

    def __init__(self, family, seed, lr):
        from diffusers import DDPMScheduler, UNet1DModel

        torch.manual_seed(seed)
        self.family, self.lr, self.generator = family, lr, torch.Generator().manual_seed(seed)
        self.model = self.averaged = UNet1DModel(
            sample_size=128,
            in_channels=1,
            out_channels=1,
            extra_in_channels=32,
            block_out_channels=(32, 64, 64),
            time_embedding_type="positional",
        )
        self.scheduler = DDPMScheduler(num_train_timesteps=1000, clip_sample=False)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr)

    def step(self, i, progress):
        warm_cosine(self.optimiser, self.lr, i, progress)
        x0, _ = self.family.sample(self.batch, self.generator)
        noise = torch.randn(x0.shape, generator=self.generator)
        t = torch.randint(0, 1000, (self.batch,), generator=self.generator)
        found = self.model(self.scheduler.add_noise(x0, noise, t), t, return_dict=False)[0]
        descend(F.mse_loss(found, noise), self.model, self.optimiser)

    def eps(self, xt, t):
        return self.model(xt, t - 1, return_dict=False)[0]

    def sample(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn((n, 1, 128), generator=generator)
        self.scheduler.set_timesteps(1000)
        for t in self.scheduler.timesteps:
            x = self.scheduler.step(self.eps(x, t + 1), t, x, generator=generator).prev_sample
        return x


class DenoisingDiffusionPytorch:
    """lucidrains' denoising-diffusion-pytorch: `Unet1D`, `GaussianDiffusion1D`; Adam and EMA as in its `Trainer1D`."""

    name, batch = "denoising-diffusion-pytorch", 32
    rates = (5e-4, 1e-3, 2e-3, 4e-3)

    def __init__(self, family, seed, lr):
        if "denoising_diffusion_pytorch" not in sys.modules:  # its __init__ imports torchvision, for images
            package = types.ModuleType("denoising_diffusion_pytorch")
            package.__path__ = importlib.util.find_spec(package.__name__).submodule_search_locations
            sys.modules[package.__name__] = package
        from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import GaussianDiffusion1D, Unet1D
        from ema_pytorch import EMA

        torch.manual_seed(seed)
        self.family, self.generator = family, torch.Generator().manual_seed(seed)
        self.model = GaussianDiffusion1D(
            Unet1D(dim=32, dim_mults=(1, 2, 4), channels=1),
            seq_length=128,
            timesteps=1000,
            objective="pred_noise",
            beta_schedule="linear",
            auto_normalize=False,
        )
        self.ema = EMA(self.model, beta=0.995, update_every=10)
        self.averaged = self.ema.ema_model
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr, betas=(0.9, 0.99))

    def step(self, i, progress):
        descend(self.model(self.family.sample(self.batch, self.generator)[0]), self.model, self.optimiser)
        self.ema.update()

    def eps(self, xt, t):
        return self.averaged.model(xt, t - 1)

    def sample(self, n, seed):
        torch.manual_seed(seed)
        return self.averaged.sample(batch_size=n)


class MLP:
    """What a first tutorial trains: four hidden layers of 384, told sines of log-SNR; AdamW, warm-up and cosine."""

    name, batch = "MLP", 256
    rates = (1e-3, 2e-3, 4e-3, 8e-3)

    def __init__(self, family, seed, lr):
        torch.manual_seed(seed)
        self.family, self.lr, self.generator = family, lr, torch.Generator().manual_seed(seed)
        sizes = (128 + 32, 384, 384, 384, 384, 128)
        layers = [[nn.Linear(a, b), nn.SiLU()] for a, b in itertools.pairwise(sizes)]
        self.model = self.averaged = nn.Sequential(*[layer for pair in layers for layer in pair][:-1])
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr)

    def step(self, i, progress):
        warm_cosine(self.optimiser, self.lr, i, progress)
        x0, _ = self.family.sample(self.batch, self.generator)
        noise = torch.randn(x0.shape, generator=self.generator)
        t = torch.randint(1, 1001, (self.batch,), generator=self.generator)
        descend(F.mse_loss(self.eps(ddpm_lib.q_sample(x0, t, noise, SCHEDULE), t), noise), self.model, self.optimiser)

    def eps(self, xt, t):
        waves = SCHEDULE.log_snr(t, xt.dtype)[:, None] * torch.logspace(-1, 1, 16)
        return self.model(torch.cat([xt.flatten(1), waves.sin(), waves.cos()], 1)).unsqueeze(1)

    def sample(self, n, seed):
        generator = torch.Generator().manual_seed(seed)
        return list(sample(Judged(self), (n, 1, 128), 1000, ddpm_lib.ancestral, generator))[-1]


class Judged:
    """A contender as a denoiser of ddpm_lib, so that one function scores them all."""

    schedule = SCHEDULE

    def __init__(self, contender):
        self.contender = contender

    def __call__(self, xt, t):
        t = torch.as_tensor(t).round().long().expand(len(xt))
        a, s = SCHEDULE(t)
        eps = self.contender.eps(xt, t)
        return ddpm_lib.Prediction((xt - s * eps) / a, eps)


ALL = {c.name: c for c in (Ours, Diffusers, DenoisingDiffusionPytorch, MLP)}
