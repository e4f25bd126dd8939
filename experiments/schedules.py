"""Schedules: what they change in training, what in sampling, and what neither.

Every network is judged on the same noise levels, whatever it was trained on, and sampled on one grid for all: what
differs then was learned. Then each is sampled on the grid of every schedule, and so is the exact denoiser: what differs
for that one is the sampler's.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_lib import (
    X0,
    Denoiser,
    FamilyOracle,
    Recipe,
    Schedule,
    ancestral,
    cosine,
    even_log_snr,
    even_steps,
    linear,
    log_linear,
    loss_over_floor,
    mean_loss,
    q_sample,
    quadratic,
    sigmoid,
)
from ddpm_lib.measures import predicted_noise
from ddpm_lib.sampling.grids import TILT

from .claims import Claim
from .runner import TEST, Experiment, ratio, samples

RULER = log_linear(100)
"""On it losses are compared: log-SNR uniform from 9.21 to -10.12, the ends of Ho's own schedule."""

BANDS = ((9, 6), (6, 3), (3, 0), (0, -3), (-3, -6))  # of log-SNR; below, everybody is at the floor
POWER = 0.0769  # of a sample of the benchmark family


def unscaled(T: int) -> Schedule:
    """Ho's β, from 1e-4 to 0.02, at another T than his 1000: the report's schedule, for T = 300."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it ends too early is what is measured
        return Schedule.from_betas(torch.linspace(1e-4, 0.02, T, dtype=torch.float64))


def uniform(network, schedule):
    """t drawn uniformly: then a schedule decides which noise levels are trained on, and how often."""
    return None


class Exact(nn.Module):
    """The exact denoiser in the place of a network: nothing is learned, so what its samples lack is the sampler's."""

    def __init__(self, family, seed: int):
        super().__init__()
        # over all log-SNR that any of the schedules has
        self.oracle, self.nothing = FamilyOracle(family, log_linear(first=14, last=-24)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        """x̂_0, and a weight that stays 0, for the optimiser to hold."""
        return self.oracle(x, self.oracle.schedule.at_log_snr(log_snr)).x0 + 0 * self.nothing


GRIDS = {
    "linear": linear(),
    "quadratic": quadratic(),
    "cosine": cosine(),
    "sigmoid": sigmoid(),
    "log-linear": log_linear(),
    "shifted": linear().shifted(-math.log(POWER)),
    "unscaled": unscaled(300),
}
TS = (50, 100, 300)
SHIFT = GRIDS["shifted"]


@cache
def own(family: Any, schedule: Schedule, n: int) -> tuple[Tensor, ...]:
    """Fresh x0, t all over the schedule, ε, and the exact ε*. At most 100 different t: the oracle is quicker then."""
    generator = torch.Generator().manual_seed(TEST)
    x0, _ = family.sample(n, generator)
    levels = min(100, schedule.T)
    t = ((torch.arange(n) % levels + 0.5) * schedule.T / levels).long() + 1  # the middles of equal parts
    eps = torch.randn(x0.shape, generator=generator)
    return x0, t, eps, predicted_noise(FamilyOracle(family, schedule), q_sample(x0, t, eps, schedule), t)


def sampled(recipe: Recipe, denoiser: Denoiser, on: Schedule, n: int, **sampler: Any) -> dict[str, float]:
    """Samples of a network on the grid of any schedule: validity, and the worst of the three laws."""
    other = Denoiser(denoiser.network, on, denoiser.parametrisation)
    found = samples(recipe, other, n, **sampler)
    law = max(value for key, value in found.items() if key.startswith("law_"))
    return {"valid": found["valid"], "law": law, "residual": found["residual"]}


def on_the_ruler(recipe: Recipe, denoiser: Denoiser) -> dict[str, float]:
    """Loss over floor at the same noise levels for all, and in bands of log-SNR: `denoiser` is on `RULER`."""
    ruler = replace(recipe, schedule=RULER)
    whole = ratio(ruler, denoiser, 1, RULER.T, 4096)
    found = {"loss": whole.value, "loss_margin": whole.margin}
    for high, low in BANDS:
        first, last = (round(float(RULER.at_log_snr(torch.tensor(v)))) for v in (high, low))
        found[f"loss: log-SNR {low} to {high}"] = ratio(ruler, denoiser, first, last, 1024).value
    return found


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, float]:
    """Loss over floor at the same noise levels for all; loss on its own; samples on one grid for all, and on each.

    The grid for all is the library's default. On those of the schedules the ancestral sampler takes 20 equal steps in
    t; at last it takes all T steps of the linear schedule, at several T.
    """
    found = on_the_ruler(recipe, Denoiser(denoiser.network, RULER, denoiser.parametrisation))
    x0, t, eps, exact = own(recipe.family, recipe.schedule, 2048)
    found["own loss"] = mean_loss(denoiser, x0, t, eps).value
    found["own loss over floor"] = loss_over_floor(denoiser, exact, x0, t, eps).value
    times = even_log_snr(RULER, 20, TILT)
    found |= sampled(recipe, denoiser, RULER, 1024, steps=times)
    for name, schedule in GRIDS.items():
        on = sampled(recipe, denoiser, schedule, 256, steps=even_steps(schedule, 20), step=ancestral)
        found |= {f"on {name}: {key}": value for key, value in on.items()}
    for T in TS:
        found[f"T = {T}: valid"] = sampled(recipe, denoiser, linear(T), 64, steps=T, step=ancestral)["valid"]
    return found


DEFAULT = Recipe(steps=600, density=uniform)

EXPERIMENT = Experiment(
    name="schedules",
    recipes={
        "linear": DEFAULT,
        "quadratic": replace(DEFAULT, schedule=quadratic()),
        "cosine": replace(DEFAULT, schedule=cosine()),
        "sigmoid": replace(DEFAULT, schedule=sigmoid()),
        "log-linear": replace(DEFAULT, schedule=log_linear()),
        "linear, shifted": replace(DEFAULT, schedule=SHIFT),
        "linear, T = 300": replace(DEFAULT, schedule=linear(300)),
        "linear, T = 300, unscaled": replace(DEFAULT, schedule=unscaled(300)),
        "linear, T = 50": replace(DEFAULT, schedule=linear(50)),
        "linear, t by error": Recipe(steps=600),
        "log-linear, t by error": Recipe(steps=600, schedule=log_linear()),
        "linear, 60 steps": replace(DEFAULT, steps=60),
        "exact": Recipe(steps=1, network=Exact, parametrisation=X0()),
    },
    seeds=range(3),
    measure=measure,
)

CHAPTER = "noise_levels"
DRAWN, SLIP, RIGHT = "linear, t by error", "linear, T = 300, unscaled", "linear, T = 300"
LOWER = (
    "With $t$ by error the loss on the linear schedule is lower than on the cosine or the shifted one with $t$ uniform"
)
OTHERS = ("quadratic", "cosine", "sigmoid", "log-linear", "linear, shifted")
FEWEST = "The linear schedule gives the fewest valid samples"
CLAIMS = (
    *(Claim(FEWEST, "valid", other, "linear") for other in OTHERS),
    Claim(
        "The sigmoid's own loss is nearer to its floor than the cosine's",
        "own loss over floor", "cosine", "sigmoid",
    ),
    Claim("at the same noise levels its loss is higher", "loss", "sigmoid", "cosine"),
    Claim(
        "its own loss is farther above its floor than that of the linear one",
        "own loss over floor", "log-linear", "linear",
    ),
    Claim("at the same noise levels it is lower", "loss", "linear", "log-linear"),
    *(Claim(LOWER, "loss", other, DRAWN) for other in ("cosine", "linear, shifted")),
    Claim("and more of the samples are valid", "valid", DRAWN, "linear, shifted"),
    Claim("log-linear has the lower loss at these levels", "loss", DRAWN, "log-linear, t by error"),
    Claim("the linear schedule more valid samples", "valid", DRAWN, "log-linear, t by error"),
    Claim("With a smaller T the loss is higher", "loss", RIGHT, "linear"),
    Claim("and higher still with fifty", "loss", "linear, T = 50", RIGHT, by=1.0),
    Claim("shifted, it gives several times as many valid samples", "valid", "linear, shifted", "linear", by=0.2),
    Claim("unscaled, T = 300 has the lower loss", "loss", RIGHT, SLIP),
    Claim("more valid samples", "valid", SLIP, RIGHT),
)  # fmt: skip
