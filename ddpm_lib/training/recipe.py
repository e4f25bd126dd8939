"""A recipe: everything that a training run depends on (chapter `training`)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..checks import check_callable, check_count, check_number, check_tensor
from ..diffusion.denoiser import Denoiser, Eps, Parametrisation
from ..diffusion.losses import Weight, simple
from ..diffusion.schedules import Schedule, linear
from ..diffusion.times import draw_times
from ..networks.skip import by_linear_error, linear_skip
from ..shapes import Float, Real
from ..signals.batches import stream
from ..signals.source import Source
from ..signals.wavelets import BenchmarkMorlet
from .fingerprint import fingerprint
from .muon import Muon

__all__ = ["Batch", "Recipe", "muon", "noised", "shipped_recipe", "warmup_stable_decay"]


BATCHES = 0  # purpose of the stream of numbers that a batch is drawn with; that of `networks.skip` is 1


class Batch(NamedTuple):
    """What a step trains on: B signals, each at a time of its own.

    Attributes:
        x0, eps: signals and the noise that is added to them.
        t: 1…T.
        importance: weights that keep the mean over t unbiased, whatever the density that t was drawn from.
        cond: the condition of each signal, NaN where the network is not given it; None without conditions.
    """

    x0: Float[Tensor, "B C L"]
    t: Real[Tensor, "B"]
    eps: Float[Tensor, "B C L"]
    importance: Float[Tensor, "B"]
    cond: Float[Tensor, "B P"] | None = None


def muon(denoiser: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """`Muon` with a recipe's rates."""
    return Muon(denoiser, recipe.lr, recipe.kernel_lr, weight_decay=recipe.weight_decay)


def warmup_stable_decay(step: int, recipe: Recipe) -> float:
    """Share of the rates at a step: up over `warmup` steps, flat, down to 0 over the last 70 % of the run."""
    return min(1.0, (step + 1) / (recipe.warmup + 1), (recipe.steps - step) / (0.7 * recipe.steps))


def noised(recipe: Recipe, density: Float[Tensor, "T"] | None, step: int) -> Batch:
    """The batch of a step: fresh signals, times from the density, noise."""
    generator = stream(recipe.seed, step, BATCHES)
    x0, params = recipe.family.sample(recipe.batch, generator)
    t, importance = draw_times(recipe.batch, recipe.schedule, generator, density)
    batch = Batch(x0, t, torch.randn(x0.shape, generator=generator), importance)
    if not recipe.p_conditional:
        return batch
    silent = torch.rand(len(x0), 1, generator=generator) >= recipe.p_conditional
    hidden = silent | (torch.rand(params.shape, generator=generator) < 0.5)
    return batch._replace(cond=params.masked_fill(hidden, math.nan))


@dataclass(frozen=True)
class Recipe:
    """All that a training run depends on.

    On the CPU of one machine, with one torch and one number of threads, the same recipe gives the same weights to the
    bit, for any number of data workers and wherever the run was stopped and resumed. `fit` takes fewer threads while
    other programs use the cores, unless their number is given. Elsewhere (another processor, device, precision or
    number of threads or processes) a recipe gives the same batches, and losses that agree but for rounding.

    Args:
        family: what to draw signals from, afresh at every step.
        schedule: the noise schedule.
        network: (family, seed) → network; `linear_skip` or any function of the two.
        parametrisation: what the network's output means.
        density: (network, schedule) → how often each t is drawn, or None for uniform t.
        steps: optimiser steps; the learning rate warms up, stays, and falls to 0 over the last 70 %.
        batch: signals a step, over all processes.
        lr, kernel_lr, weight_decay: of the optimiser; both rates follow `rate`.
        warmup: steps over which the rates climb.
        clip: greatest norm of the gradient.
        ema: decay of the running mean of the weights, which is what is sampled from.
        seed: of the weights and of every batch.
        p_conditional: probability that a signal comes with its parameters, each of them with probability ½; above 0
            for a network with conditions only.
        weight: (schedule, t) → weight of ‖x_0 - x̂_0‖² in the loss: `simple`, `min_snr`, `vlb` or your own. It decides
            what is minimised; the density decides only how well the mean is estimated.
        optimiser: (denoiser, recipe) → optimiser; `muon` by default.
        rate: (step, recipe) → share of the learning rates at a step.
        batches: (recipe, density over t, step) → `Batch`; must depend on nothing else.
    """

    family: Source = field(default_factory=BenchmarkMorlet)
    schedule: Schedule = field(default_factory=linear)
    network: Callable[[Any, int], nn.Module] = linear_skip
    parametrisation: Parametrisation = field(default_factory=Eps)
    density: Callable[[nn.Module, Schedule], Float[Tensor, "T"] | None] = by_linear_error
    steps: int = 2200
    batch: int = 128
    lr: float = 2e-3
    kernel_lr: float = 0.02
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.995
    seed: int = 0
    p_conditional: float = 0.0
    weight: Weight = simple
    optimiser: Callable[[nn.Module, Recipe], torch.optim.Optimizer] = muon
    rate: Callable[[int, Recipe], float] = warmup_stable_decay
    batches: Callable[[Recipe, Float[Tensor, "T"] | None, int], Batch] = noised

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("warmup", 0), ("seed", 0)):
            check_count(getattr(self, name), f"{name} of a recipe", least)
        for name in ("lr", "kernel_lr", "clip"):
            check_number(getattr(self, name), f"{name} of a recipe", 0.0, 1e30, above=True)
        check_number(self.weight_decay, "weight_decay of a recipe", 0.0)
        check_number(self.ema, "ema of a recipe", 0.0, 0.9999999)
        check_number(self.p_conditional, "p_conditional of a recipe", 0.0, 1.0)
        self.weights()

    def weights(self) -> Float[Tensor, "T"]:
        """What the weight puts in front of ‖ε - ε̂‖² at t = 1…T, or one sentence why it is no weight."""
        check_callable(self.weight, 2, "The weight of a recipe is a function of (schedule, t), such as vlb")
        t = torch.arange(1, self.schedule.T + 1)
        weights = check_tensor(self.weight(self.schedule, t), "What the weight of a recipe returns", self.schedule.T)
        if not (weights >= 0).all() or not (weights > 0).any():
            raise ValueError(f"The weight of a recipe must not be negative, nor 0 at every t, got {weights.min():.3g}.")
        return weights / self.schedule.snr(t)

    def build(self) -> Denoiser:
        """The untrained denoiser, its weights drawn from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Denoiser(self.network(self.family, self.seed), self.schedule, self.parametrisation)

    def draw(self, network: nn.Module) -> Callable[[int], Batch]:
        """step → the batch of that step, for the density over t that belongs to this network."""
        density = self.density(network, self.schedule)
        if density is not None:
            check_tensor(density, "The density over t", self.schedule.T)
        return partial(self.batches, self, density)

    def fingerprint(self, denoiser: Denoiser | None = None) -> str:
        """Ten digits that change with whatever this recipe says (`fingerprint`), computed once.

        Args:
            denoiser: what `build` returned, if that is there already.
        """
        if "_fingerprint" not in self.__dict__:
            object.__setattr__(self, "_fingerprint", fingerprint(self, denoiser or self.build()))
        return self.__dict__["_fingerprint"]

    def key(self) -> str:
        """The fingerprint, and ten digits more that change with the code that trains it."""
        return f"{self.fingerprint()}-{_code()}"


def shipped_recipe() -> Recipe:
    """The recipe of the model that ships: more steps than `Recipe()`, and a network that can be given conditions."""
    return Recipe(network=partial(linear_skip, conditional=True), steps=8000, p_conditional=0.8)


ROOMS = ("signals", "diffusion", "exact", "networks", "training")  # whatever trains stands in one of them


def _code(library: Path = Path(__file__).parents[1]) -> str:
    """Ten digits that change with the code that trains; a room that holds none is an error, and not one room less."""
    code = "".join((library / name).read_text("utf-8") for name in ("checks.py", "shapes.py"))
    for room in ROOMS:
        files = sorted((library / room).glob("*.py"))
        if not files:
            raise FileNotFoundError(f"{library / room} holds no code, and what trains must stand there.")
        code += "".join(file.read_text("utf-8") for file in files)
    return hashlib.sha256(code.encode()).hexdigest()[:10]
