"""Real signals: three heartbeats, of which two are for training; and the test signals of wavelet shrinkage.

The heartbeats have no formula, so there is no floor: what is measured is what can be measured of anything. The test
signals of Donoho and Johnstone, shifted and scaled at random, are four families of two parameters: they have one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pywt
import torch
from torch import Tensor

from ddpm_lib import (
    Denoiser,
    Family,
    Finite,
    FiniteOracle,
    Gaussian,
    Recipe,
    energy_distance,
    fit_family,
    fit_gaussian,
    linear,
    mean_loss,
    memorised,
    sample,
    stream,
)
from ddpm_lib.diffusion import Measurement
from ddpm_lib.sampling import LinearCovariance, PseudoinverseGuidance
from ddpm_lib.signals import Augmented, Mixture, Scale

from .claims import Claim
from .families import linear_loss
from .runner import SAMPLES, TEST, Experiment, fresh, losses

LENGTH, SPLIT = 128, 680  # samples of a window; where the time for testing begins: two beats before it, one after
SCHEDULE = linear()
HOLE = Measurement.samples((torch.arange(LENGTH) < 54) | (torch.arange(LENGTH) > 73), 0.05)


# --- heartbeats ---------------------------------------------------------------------------------------


@cache
def recording() -> Tensor:
    """PyWavelets' electrocardiogram, (1024,): mean 0 and standard deviation 0.28 before the split.

    That is about the size of our wavelets. Mean and size are those of the training part: the test part must not tell.
    """
    raw = torch.from_numpy(pywt.data.ecg().astype(np.float32))
    return 0.28 * (raw - raw[:SPLIT].mean()) / raw[:SPLIT].std()


def windows(part: Tensor) -> Tensor:
    """All windows of a recording, (N - L + 1, 1, L): neighbours differ by one sample."""
    return part.unfold(0, LENGTH, 1)[:, None].clone()


@cache
def split() -> tuple[Tensor, Tensor]:
    """Windows for training, (553, 1, 128), and for testing, (217, 1, 128); none of them crosses the split."""
    return windows(recording()[:SPLIT]), windows(recording()[SPLIT:])


@cache
def drawn(test: bool, n: int = 2048) -> tuple[Tensor, Tensor, Tensor]:
    """x0, t, ε of windows for training or for testing; each window as often as the others."""
    generator = torch.Generator().manual_seed(TEST + test)
    signals = split()[test]
    x0 = signals.repeat(-(-n // len(signals)), 1, 1)[:n]
    return x0, torch.randint(1, SCHEDULE.T + 1, (n,), generator=generator), torch.randn(x0.shape, generator=generator)


def spectrum(x: Tensor) -> Tensor:
    """Mean power at each frequency of signals under a Hann window, in decibels, (L/2 + 1,)."""
    power = torch.fft.rfft(x[:, 0] * torch.hann_window(LENGTH)).abs().square().mean(0)
    return 10 * torch.log10(power)


def repaired(denoiser: Any, x0: Tensor, seed: int, draws: int = 8) -> float:
    """RMSE in the hole of the mean of some repairs, over the RMS of what was there."""
    y = HOLE.observe(x0, stream(SAMPLES, seed, 1)).repeat_interleave(draws, 0)
    *_, x = sample(
        PseudoinverseGuidance(denoiser, HOLE, y), (len(y), 1, LENGTH), 40, generator=stream(SAMPLES, seed, 2)
    )
    return in_hole(x.view(len(x0), draws, LENGTH).mean(1), x0)


def in_hole(answer: Tensor, x0: Tensor) -> float:
    """RMSE of answers (n, L) in the hole, over the RMS of what was there."""
    hidden = torch.ones(LENGTH, dtype=torch.bool)
    hidden[HOLE.matrix.argmax(1)] = False
    return float((answer - x0[:, 0])[:, hidden].square().mean().sqrt() / x0[:, 0, hidden].square().mean().sqrt())


def of_beats(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """Loss on both parts, beside the linear denoiser and the one that knows the training windows by heart; samples."""
    train, test = split()
    others = {
        "": denoiser,
        "linear ": Gaussian(*fit_gaussian(train), SCHEDULE),
        "by heart ": FiniteOracle(train, SCHEDULE),
    }
    found: dict[str, Any] = {}
    for name, one in others.items():
        found |= {f"{name}{part}": mean_loss(one, *drawn(part == "test")).value for part in ("train", "test")}
    *_, x = sample(denoiser, (512, 1, LENGTH), generator=stream(SAMPLES, recipe.seed, 0))
    generator = torch.Generator().manual_seed(SAMPLES)
    for part, real in (("train", train), ("test", test)):
        distance, floor = energy_distance(x, real, generator=generator)
        found[f"distance to {part}"] = distance.value / floor
    distance, floor = energy_distance(train, test, generator=generator)
    found["distance, train to test"] = distance.value / floor
    found["copies"] = memorised(x, train).value
    found["nearest"] = float((torch.cdist(x[:, 0], train[:, 0]).min(1).values / x[:, 0].norm(dim=1)).median())
    found["spectrum"] = float((spectrum(x) - spectrum(train)).square().mean().sqrt())
    holes = test[::7]  # 31 of them
    found["hole"] = repaired(denoiser, holes, recipe.seed)
    found["hole, linear"] = repaired(others["linear "], holes, recipe.seed)
    found["hole, linear covariance"] = repaired(LinearCovariance(denoiser), holes, recipe.seed)
    return found | {"samples": x[:8, 0]}


# --- test signals of wavelet shrinkage ----------------------------------------------------------------

KINDS = ("Blocks", "Bumps", "HeaviSine", "Doppler")


class Shape(Family):
    """One of Donoho & Johnstone's test signals (1994, table 1) on a circle: scaled by A and turned by b."""

    scale = "A"

    def __init__(self, kind: str, length: int = LENGTH, A=(0.5, 1.5), b=(0.0, 1.0)):
        self.kind = kind
        fine = torch.from_numpy(pywt.data.demo_signal(kind, 1024)).float()
        # a sample is the mean over its cell, as an instrument's is: jumps become ramps of one cell
        width = 1024 // length
        smooth = torch.nn.functional.avg_pool1d(torch.cat([fine, fine[:width]])[None], width, 1)[0, :1024]
        self.values = 0.28 * (smooth - smooth.mean()) / smooth.std()
        super().__init__({"A": A, "b": b}, length, (0.0, 1.0 - 1.0 / length))

    def formula(self, x: Tensor, A: Tensor, b: Tensor) -> Tensor:
        at = ((x - b) % 1.0) * 1024
        low = at.floor().long() % 1024
        values = self.values.to(at)
        return A * torch.lerp(values[low], values[(low + 1) % 1024], at - at.floor())

    def __repr__(self) -> str:
        return f"{self.kind}: {super().__repr__()}"


SHAPES = Mixture(tuple(Shape(kind) for kind in KINDS))


def of_shapes(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """Loss over floor; the floor, and the linear denoiser over it; samples that are one of the four, and of which."""
    found: dict[str, Any] = losses(recipe, denoiser)
    *_, eps, exact = fresh(SHAPES, recipe.schedule, 1, recipe.schedule.T, 4096)
    floor = float((eps - exact).square().mean())
    found |= {"floor": floor, "linear": linear_loss(denoiser, recipe, 1, recipe.schedule.T) / floor}
    *_, x = sample(denoiser, (1024, 1, LENGTH), generator=stream(SAMPLES, recipe.seed, 0))
    fits = [fit_family(x, one) for one in SHAPES.families]
    found["valid"] = float(torch.stack([fit.valid for fit in fits], 1).any(1).double().mean())
    nearest = torch.stack([fit.residual for fit in fits], 1).argmin(1)
    shares = {f"share of {kind}": float((nearest == k).double().mean()) for k, kind in enumerate(KINDS)}
    return found | shares | {"samples": x[:8, 0]}


@dataclass(frozen=True)
class Beats(Recipe):
    """A recipe whose data are the training windows of the recording; `scaled`: each with an amplitude of its own."""

    scaled: bool = False

    def __post_init__(self) -> None:
        training = Finite(split()[0])
        family = Augmented(training, Scale(0.8, 1.2)) if self.scaled else training
        object.__setattr__(self, "family", family)
        super().__post_init__()


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """What can be said of a denoiser of this kind of data."""
    return of_beats(recipe, denoiser) if isinstance(recipe, Beats) else of_shapes(recipe, denoiser)


DEFAULT = Beats(steps=600)
EXPERIMENT = Experiment(
    name="real",
    recipes={
        "heartbeats": DEFAULT,
        "heartbeats, 60 steps": replace(DEFAULT, steps=60),  # the chapter trains it again
        "heartbeats, 200 steps": replace(DEFAULT, steps=200),
        "heartbeats, 1800 steps": replace(DEFAULT, steps=1800),
        "heartbeats, other amplitudes": replace(DEFAULT, scaled=True),
        "test signals": Recipe(family=SHAPES, steps=600),
    },
    seeds=range(3),
    measure=measure,
)

CHAPTER = "your_signals"
BEATS = "heartbeats"
CLAIMS = (
    Claim("On the training part more steps help to the end.", "train", BEATS, "heartbeats, 1800 steps"),
    Claim("two hundred steps are better than six hundred", "test", BEATS, "heartbeats, 200 steps"),
    Claim("the loss is higher still", "test", "heartbeats, 1800 steps", BEATS),
    Claim(
        "of which there are none at first and more than a third",
        "copies",
        "heartbeats, 1800 steps",
        "heartbeats, 200 steps",
        by=0.2,
    ),
    Claim("Louder and softer windows leave fewer copies.", "copies", BEATS, "heartbeats, other amplitudes"),
    Claim("by less than three seeds can tell", "test", BEATS, "heartbeats, other amplitudes", same=True),
)
