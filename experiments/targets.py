"""What to predict and what to weigh: targets, weights, densities over t, and the running mean of the weights.

The targets are compared on the plain U-Net with t uniform: the network of the book adds its output to a linear ε̂, so it
has chosen its target. A weight in front of ‖x_0 - x̂_0‖² means the same for every target: each is trained with the loss
that is natural to it, and each with that of ε, to tell what the target does from what the weight does. The weights, the
densities and the running mean are compared on the recipe.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ddpm_lib import X0, Denoiser, FamilyOracle, Recipe, Schedule, V, min_snr, q_sample, vlb
from ddpm_lib.measures import predicted_noise

from .claims import Claim
from .models import Bare, uniform
from .runner import TEST, Experiment, both, fresh

TIMES = (1, 2, 5, 10, 30, 100, 200, 300, 400, 500, 700, 1000)


def of_x0(schedule: Schedule, t: Tensor) -> Tensor:
    """The loss that is natural to an x_0-network: ‖x_0 - x̂_0‖² itself, the same weight at every t."""
    return torch.ones_like(schedule.snr(t))


def of_v(schedule: Schedule, t: Tensor) -> Tensor:
    """The loss that is natural to a v-network: ‖v - v̂‖² is SNR + 1 in front of ‖x_0 - x̂_0‖²."""
    return schedule.snr(t) + 1


def even(weight, schedule: Schedule) -> float:
    """The mean over t of what a weight puts in front of ‖ε - ε̂‖²: what it gives a network that says ε̂ = 0."""
    t = torch.arange(1, schedule.T + 1)
    return float((weight(schedule, t) / schedule.snr(t)).mean())


def bound(schedule: Schedule, t: Tensor) -> Tensor:
    """The weights of the bound, at the size of L_simple: with either a network that says ε̂ = 0 has the loss 1."""
    return vlb(schedule, t) / even(vlb, schedule)


def min_snr_5(schedule: Schedule, t: Tensor) -> Tensor:
    """min-SNR-5 (Hang et al. 2023), at the size of L_simple."""
    return min_snr(schedule, t) / even(min_snr, schedule)


def by_bound(network, schedule: Schedule) -> Tensor:
    """t drawn as often as its term of the bound is large: Nichol & Dhariwal 2021, sec. 3.3.

    They learn the terms while they train; here they are those of the linear denoiser, with which the network starts.
    """
    t = torch.arange(1, schedule.T + 1)
    return (network.wiener.eps_error(*schedule(t)).flatten() * vlb(schedule, t) / schedule.snr(t)).float()


def flat(step: int, recipe: Recipe) -> float:
    """Learning rates that do not fall: up over `warmup` steps, then flat."""
    return min(1.0, (step + 1) / (recipe.warmup + 1))


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """As everywhere; then the mean square distance to the exact ε* at single t; then what the bound loses by it.

    ``nats`` is how far the bound of this denoiser lies above that of the exact one, a signal: Σ_t w_t·E‖ε* - ε̂‖².
    """
    found = both(recipe, denoiser)
    found |= {f"off_{t}": off(recipe, denoiser, t) for t in TIMES}
    total, *drawn = by_weight(recipe.family, recipe.schedule, 2048)
    return found | {"nats": total * recipe.family.length * float(_distance(denoiser, *drawn).mean())}


def off(recipe: Recipe, denoiser: Denoiser, t: int) -> float:
    """E‖ε* - ε̂‖² at one t."""
    return float(_distance(denoiser, *fresh(recipe.family, recipe.schedule, t, t, 256)).mean())


@cache
def by_weight(family: Any, schedule: Schedule, n: int) -> tuple[Any, ...]:
    """Σ_t w_t of the bound's weights in front of ‖ε - ε̂‖²; fresh x0, t drawn by them, ε, and the exact ε* of these."""
    every, generator = torch.arange(1, schedule.T + 1), torch.Generator().manual_seed(TEST)
    w = vlb(schedule, every) / schedule.snr(every)
    x0, _ = family.sample(n, generator)
    t = torch.multinomial(w, n, replacement=True, generator=generator) + 1
    eps = torch.randn(x0.shape, generator=generator)
    exact = predicted_noise(FamilyOracle(family, schedule), q_sample(x0, t, eps, schedule), t)
    return float(w.sum()), x0, t, eps, exact


def _distance(denoiser: Denoiser, x0: Tensor, t: Tensor, eps: Tensor, exact: Tensor) -> Tensor:
    """‖ε* - ε̂‖² of each signal, a sample, (n,)."""
    found = predicted_noise(denoiser, q_sample(x0, t, eps, denoiser.schedule), t)
    return (exact - found).square().mean((1, 2)).double()


DEFAULT = Recipe(steps=600)
PLAIN = replace(DEFAULT, network=Bare, density=uniform)
FLAT = Recipe(family=DEFAULT.family, schedule=DEFAULT.schedule, steps=600, rate=flat)

EXPERIMENT = Experiment(
    name="targets",
    recipes={
        # short enough for the chapter to make it again
        "plain, v with its own loss, 60 steps": replace(PLAIN, parametrisation=V(), weight=of_v, steps=60),
        "plain, ε with L_simple": PLAIN,
        "plain, x₀ with its own loss": replace(PLAIN, parametrisation=X0(), weight=of_x0),
        "plain, x₀ with L_simple": replace(PLAIN, parametrisation=X0()),
        "plain, v with its own loss": replace(PLAIN, parametrisation=V(), weight=of_v),
        "plain, v with L_simple": replace(PLAIN, parametrisation=V()),
        "the recipe": DEFAULT,
        "min-SNR-5": replace(DEFAULT, weight=min_snr_5),
        "the bound": replace(DEFAULT, weight=bound),
        "the bound, t uniform": replace(DEFAULT, weight=bound, density=uniform),
        "the bound, t by its terms": replace(DEFAULT, weight=bound, density=by_bound),
        "no running mean": replace(DEFAULT, ema=0.0),
        "rate flat": FLAT,
        "rate flat, no running mean": replace(FLAT, ema=0.0),
    },
    seeds=range(3),
    measure=measure,
)

CHAPTER = "targets_and_weights"
EPSILON, SIGNAL, VELOCITY = "plain, ε with L_simple", "plain, x₀ with L_simple", "plain, v with L_simple"
OWN, OWN_V = "plain, x₀ with its own loss", "plain, v with its own loss"
TERMS, EVEN, MIN_SNR = "the bound, t by its terms", "the bound, t uniform", "min-SNR-5"
RECIPE, FLAT_RATE, BOTH = "the recipe", "rate flat", "rate flat, no running mean"
BEYOND = "Beyond $t=400$ it is the $\\epsilon$-network that is farther off"
NOTHING = "With a learning rate that falls to zero the running mean changes nothing that three seeds could show"
CLAIMS = (
    Claim(
        "At $t\\le10$ the $x_0$-network is farther from the floor than the $\\epsilon$-network",
        "t_1_10", SIGNAL, EPSILON,
    ),
    Claim(BEYOND, "t_401_1000", EPSILON, SIGNAL),
    Claim(BEYOND, "t_401_1000", EPSILON, VELOCITY),
    Claim("no difference between $\\epsilon$ and $v$ is seen", "loss", EPSILON, VELOCITY, same=True),
    Claim(
        "With its own loss the $x_0$-network is more than five times as far above the floor at $t\\le10$",
        "t_1_10", OWN, SIGNAL, by=20.0,
    ),
    Claim("no difference is seen at $t\\le10$", "t_1_10", OWN_V, VELOCITY, same=True),
    Claim("More of its samples are valid", "valid", OWN, SIGNAL),
    Claim("its law of $s$ is farther off", "law_s", OWN, SIGNAL),
    Claim("At $t\\le10$ its loss is more than five times as far above the floor", "t_1_10", MIN_SNR, RECIPE, by=5.6),
    Claim("not one sample in a hundred is valid", "valid", RECIPE, MIN_SNR, by=0.6),
    Claim("With $t$ uniform its loss is far higher", "loss", EVEN, "the bound", by=0.3),
    Claim("with $t$ drawn by its terms it is lower than with the recipe's density", "loss", "the bound", TERMS),
    Claim("the more so at $t\\le10$", "t_1_10", "the bound", TERMS),
    Claim("By its terms the bound of the model is nearer to the exact one", "nats", RECIPE, TERMS),
    Claim("its loss at $t\\le10$ is lower", "t_1_10", RECIPE, TERMS),
    Claim("its loss over all $t$ is higher", "loss", TERMS, RECIPE),
    Claim("fewer of its samples are valid", "valid", RECIPE, TERMS),
    Claim(NOTHING, "loss", "no running mean", RECIPE, same=True),
    Claim(NOTHING, "valid", "no running mean", RECIPE, same=True),
    Claim("With a rate that stays it brings the loss down", "loss", BOTH, FLAT_RATE, by=0.05),
    Claim("the falling rate alone does better than that", "loss", FLAT_RATE, "no running mean"),
)  # fmt: skip
