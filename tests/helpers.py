"""What several test files share: seeded generators, a Gaussian toy whose samplers are exactly computable, a mean."""

from __future__ import annotations

import math

import torch

from ddpm_lib import BenchmarkMorlet, Gaussian, Recipe, UNet1D, linear

torch.set_num_threads(1)  # every test is small: on a busy machine threads would wait for each other, many times longer

HO = linear(1000)
SHORT = BenchmarkMorlet(length=64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    """Standard normal numbers of a seed."""
    return torch.randn(shape, generator=rng(seed))


def net(family, seed, width=8):
    """A network that trains in no time: (family, seed) → network, as a recipe wants it."""
    return UNet1D(1, 1, width=width, levels=2, blocks=1, kernel=3, dim=16)


def small(**changes):
    """A recipe that takes a fifth of a second, on signals of 64 samples."""
    return Recipe(**(dict(family=SHORT, network=net, steps=20, batch=8, warmup=3) | changes))


def toy(mean=0.5, std=0.25, schedule=HO):
    """Toy G1: one-dimensional data N(mean, std²) and their exact denoiser, in float64."""
    double = torch.float64
    return Gaussian(torch.full((1, 1), mean, dtype=double), torch.full((1, 1), std**2, dtype=double), schedule)


def mean_and_error(x):
    """The mean of x and its standard error, as numbers."""
    x = x.double().flatten()
    return x.mean().item(), x.std().item() / math.sqrt(len(x))


def assert_mean(x, expected, errors=4.5):
    """The mean of x lies within some standard errors of what it should be."""
    mean, error = mean_and_error(x)
    assert abs(mean - expected) < errors * error + 1e-6 * abs(expected), f"{mean} ± {error} is not {expected}"
