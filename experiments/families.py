"""Other functions: the recipe as it is, on families that nothing was tuned on; one model for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ddpm_lib import (
    BenchmarkMorlet,
    Denoiser,
    FamilyOracle,
    Morlet,
    Recipe,
    fit_family,
    loss_over_floor,
    proportion,
    q_sample,
    sample,
    stream,
)
from ddpm_lib.measures import predicted_noise
from ddpm_lib.signals import Chirp, DampedSine, Edges, Mixture, PulsePair, Ricker, Sawtooth, TwoMorlets, families

from . import two_morlets
from .claims import Claim
from .runner import BANDS, SAMPLES, TEST, Experiment, both, fresh, losses

KNOWN = tuple(make() for make in (BenchmarkMorlet, Morlet, *families.ALL[:-1]))  # those with an exact answer
ALL = Mixture(KNOWN)

# Where a signal is to be looked at closely: at its edge, jump or kink; the smooth ones at their middle.
PLACES: Mapping[type, Callable[[Tensor], Tensor]] = {
    BenchmarkMorlet: lambda p: p[:, 0],
    Morlet: lambda p: torch.zeros(len(p)),
    Ricker: lambda p: p[:, 1],
    Chirp: lambda p: torch.zeros(len(p)),
    DampedSine: lambda p: p[:, 0],
    PulsePair: lambda p: p[:, 0] - p[:, 1] / 2,
    Edges: lambda p: p[:, 1],
    Sawtooth: lambda p: p[:, 1] * (p[:, 2].round() - p[:, 2]),
}
NEAR, TIMES = 16, (5, 50, 200)  # samples to either side; noise levels


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """What can be said of a denoiser of this kind of data."""
    if isinstance(recipe.family, Mixture):
        return of_all(recipe, denoiser)
    if isinstance(recipe.family, TwoMorlets):
        return two_morlets.measure(recipe, denoiser)
    return of_one(recipe, denoiser)


def of_one(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """Loss over floor and samples; the floor itself; how far the best linear denoiser is from it; errors by place."""
    *_, eps, exact = fresh(recipe.family, recipe.schedule, 1, recipe.schedule.T, 4096)
    floor = float((eps - exact).square().mean())
    found = {"floor": floor, "linear": linear_loss(denoiser, recipe, 1, recipe.schedule.T) / floor}
    for name, (low, high) in BANDS.items():
        *_, eps, exact = fresh(recipe.family, recipe.schedule, low, high, 1024)
        found[f"linear {name}"] = linear_loss(denoiser, recipe, low, high) / float((eps - exact).square().mean())
    found |= both(recipe, denoiser) | by_place(recipe, denoiser)
    return found | ({"corner": corner(recipe, denoiser)} if isinstance(recipe.family, Edges) else {})


def linear_loss(denoiser: Denoiser, recipe: Recipe, low: int, high: int) -> float:
    """Loss of the linear denoiser inside, mean over t in low…high."""
    return float(denoiser.network.wiener.eps_error(*recipe.schedule(torch.arange(low, high + 1))).mean())


def by_place(recipe: Recipe, denoiser: Denoiser) -> dict[str, Tensor]:
    """Mean square of ε̂ - ε* and of ε - ε*, by distance from the place to be looked at; and one signal as an example.

    Returns:
        near: (2, times, 2·NEAR + 1). example: x0, ε, ε*, ε̂ of one signal at these times, (times, 4, L).
    """
    family, exact = recipe.family, FamilyOracle(recipe.family, recipe.schedule)
    x0, params = family.sample(512, torch.Generator().manual_seed(TEST))
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(TEST + 1))
    cell = float(family.x[1] - family.x[0])
    middle = ((PLACES[type(family)](params) - float(family.x[0])) / cell).round().long()
    around = middle[:, None] + torch.arange(-NEAR, NEAR + 1)
    inside = (around >= 0) & (around < family.length)
    near, example = torch.empty(2, len(TIMES), around.shape[1]), torch.empty(len(TIMES), 4, family.length)
    for k, time in enumerate(TIMES):
        t = torch.full((len(x0),), time)
        xt = q_sample(x0, t, eps, recipe.schedule)
        best, ours = predicted_noise(exact, xt, t), predicted_noise(denoiser, xt, t)
        for row, error in enumerate((ours - best, eps - best)):
            values = error[:, 0].square().gather(1, around.clamp(0, family.length - 1))
            near[row, k] = (values * inside).sum(0) / inside.sum(0)
        example[k] = torch.stack([v[0, 0] for v in (x0, eps, best, ours)])
    return {"near": near, "example": example}


def corner(recipe: Recipe, denoiser: Denoiser) -> Tensor:
    """A box whose left edge lies in the middle of a sample's cell, without noise but at the noise level t = 5.

    That one sample is moved from below the floor of the box to above its top: (3, 81): its value, and what the exact
    denoiser and the trained one make of it.
    """
    family, t = recipe.family, 5
    a, _ = recipe.schedule(torch.tensor([t]))
    sample_at = 50
    x0 = family.render(torch.tensor([[1.0, float(family.x[sample_at]), 2.0]])).repeat(81, 1, 1)
    x0[:, 0, sample_at] = torch.linspace(-0.3, 1.3, 81)
    exact = FamilyOracle(family, recipe.schedule)
    with torch.no_grad():
        found = [x0, exact(a * x0, t).x0, denoiser(a * x0, t).x0]
    return torch.stack([v[:, 0, sample_at] for v in found])


def of_all(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """Of one model for several families.

    Its loss over the mixture's floor; family by family over the floor of that family alone, with what the mixture's
    exact denoiser, which is not told the family either, has there; and of which families its samples are.
    """
    family, schedule = recipe.family, recipe.schedule
    found: dict[str, Any] = losses(recipe, denoiser)
    x0, t, eps, untold = fresh(family, schedule, 1, schedule.T, 4096)
    again, which = family.sample(len(x0), torch.Generator().manual_seed(TEST + 1))  # as `fresh` drew them
    assert torch.equal(again, x0)
    for k, one in enumerate(family.families):
        name, rows = type(one).__name__, which[:, 0] == k
        xt = q_sample(x0[rows], t[rows], eps[rows], schedule)
        told = predicted_noise(FamilyOracle(one, schedule), xt, t[rows])
        floor = (eps[rows] - told).square().mean()
        ours = loss_over_floor(denoiser, told, x0[rows], t[rows], eps[rows])
        found |= {f"{name}: loss": ours.value, f"{name}: loss_margin": ours.margin}
        found[f"{name}: untold"] = float(1 + (untold[rows] - told).square().mean() / floor)
    *_, x = sample(denoiser, (1024, 1, family.length), generator=stream(SAMPLES, recipe.seed, 0))
    *_, some = sample(denoiser, (8, 1, family.length), generator=torch.Generator().manual_seed(SAMPLES))
    return found | sorted_out(x) | {"samples": some[:, 0]}


def sorted_out(x: Tensor) -> dict[str, float]:
    """The share of signals that are valid in some family, and to which family each is nearest."""
    fits = [fit_family(x, one) for one in KNOWN]
    found = proportion(torch.stack([fit.valid for fit in fits], 1).any(1))
    nearest = torch.stack([fit.residual for fit in fits], 1).argmin(1)
    shares = {f"{type(one).__name__}: share": float((nearest == k).double().mean()) for k, one in enumerate(KNOWN)}
    return {"valid": found.value, "valid_margin": found.margin, **shares}


STEPS = 600
EXPERIMENT = Experiment(
    name="families",
    recipes={
        **{type(one).__name__: Recipe(family=one, steps=STEPS) for one in KNOWN},
        "TwoMorlets": Recipe(family=TwoMorlets(), steps=STEPS),
        "all families": Recipe(family=ALL, steps=STEPS),
        "all families, 4 times as long": Recipe(family=ALL, steps=4 * STEPS),
        "Edges, 60 steps": Recipe(family=Edges(), steps=60),  # the chapter trains it again
    },
    seeds=range(3),
    measure=measure,
)

CHAPTER = "other_functions"
BOOK, BOX, SAW, ALONE, LONG = "BenchmarkMorlet", "Edges", "Sawtooth", "all families", "all families, 4 times as long"
CLAIMS = (
    Claim("The loss over the floor is lower for boxes than for the wavelets of this book", "loss", BOOK, BOX),
    Claim("and more of the samples are valid", "valid", BOX, BOOK),
    Claim("The sawtooth has the highest loss of all", "loss", SAW, "Chirp"),
    Claim("The sawtooth has the highest loss of all", "loss", SAW, "Morlet"),
    Claim("few of its samples are valid", "valid", BOOK, SAW, by=0.3),
    Claim("the Mexican hat has the lower loss", "loss", BOOK, "Ricker"),
    Claim("Four times as long brings the loss down by more than a tenth of the floor", "loss", ALONE, LONG, by=0.1),
    Claim("far more of the samples are valid", "valid", LONG, ALONE, by=0.2),
)
