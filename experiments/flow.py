"""Flow matching: the same data, another line between signal and noise, another target, other weights.

The plain U-Net is trained as the literature does it, which has no linear denoiser; then the recipe of the book takes
over what flow matching chose. What is sampled in few steps is told apart from what was learned: the exact denoiser
takes the same steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ddpm_lib import X0, Denoiser, Recipe, U, ddim, dpmpp_2m, dpmpp_2m_sde, even_log_snr, straight
from ddpm_lib.diffusion import flow_matching
from ddpm_lib.sampling.grids import TILT

from .claims import Claim
from .models import Bare, uniform
from .runner import Experiment, samples
from .schedules import BANDS as BANDS
from .schedules import RULER, Exact, on_the_ruler

LINE = straight()
START = float(LINE.at_log_snr(RULER.log_snr(RULER.T)))  # Ho's schedule ends there; an ε-network knows no further
STEPS = (5, 10, 20, 50)


def logit_normal(network, schedule) -> Tensor:
    """τ = 1/(1 + e^-z) with z ~ N(0, 1): middle times more often (Esser et al. 2024, sec. 3.1)."""
    tau = (torch.arange(1, schedule.T + 1) - 0.5) / schedule.T
    return (-0.5 * tau.logit().square()).exp() / (tau * (1 - tau))


def on(denoiser: Denoiser, schedule: Any) -> Denoiser:
    """The same network on another schedule: it is told the noise level, so it does not mind."""
    return Denoiser(denoiser.network, schedule, denoiser.parametrisation)


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, Any]:
    """Loss over floor at the same noise levels for all; samples of three samplers, by the number of steps.

    The ODE with Euler's steps, even in τ, which is what flow matching is sampled with; a second-order ODE solver and a
    stochastic one, both on the grid of the library.
    """
    found: dict[str, Any] = on_the_ruler(recipe, on(denoiser, RULER))
    for steps in STEPS:
        ways = {
            "euler": (LINE, torch.linspace(START, 0, steps + 1), ddim),
            "2m": (RULER, even_log_snr(RULER, steps, TILT), dpmpp_2m),
            "2m sde": (RULER, even_log_snr(RULER, steps, TILT), dpmpp_2m_sde),
        }
        for way, (schedule, times, step) in ways.items():
            judged = samples(recipe, on(denoiser, schedule), 512, steps=times, step=step)
            law = max(value for key, value in judged.items() if key.startswith("law_"))
            found |= {f"{way} {steps}: valid": judged["valid"], f"{way} {steps}: residual": judged["residual"]}
            found[f"{way} {steps}: law"] = law
    return found


DEFAULT = Recipe(steps=600)
PLAIN = replace(DEFAULT, network=Bare, density=uniform)
FLOW = replace(PLAIN, schedule=LINE, parametrisation=U(), weight=flow_matching)

EXPERIMENT = Experiment(
    name="flow",
    recipes={
        "plain, ε on the linear schedule": PLAIN,
        "plain, flow matching": FLOW,
        "plain, flow matching, t logit-normal": replace(FLOW, density=logit_normal),
        "the recipe": DEFAULT,
        "the recipe, flow matching": replace(DEFAULT, schedule=LINE, weight=flow_matching, density=uniform),
        "the recipe, flow matching, t by error": replace(DEFAULT, schedule=LINE, weight=flow_matching),
        "plain, flow matching, 60 steps": replace(FLOW, steps=60),  # the chapter trains it again
        "exact": Recipe(steps=1, network=Exact, parametrisation=X0()),
    },
    seeds=range(3),
    measure=measure,
)

CHAPTER = "score_and_flow"
EPS, PLAIN_FLOW, LOGIT = (
    "plain, ε on the linear schedule",
    "plain, flow matching",
    "plain, flow matching, t logit-normal",
)
RECIPE, LINE_EVEN, LINE_ERROR = "the recipe", "the recipe, flow matching", "the recipe, flow matching, t by error"
LOWER = "The recipe as it is has a lower loss than with the line and the weight of flow matching"
CLAIMS = (
    Claim("its loss is lower, and more of its samples are valid", "loss", EPS, PLAIN_FLOW),
    Claim("its loss is lower, and more of its samples are valid", "2m sde 20: valid", PLAIN_FLOW, EPS),
    Claim("The logit-normal density, which was made for images, is much worse here", "loss", LOGIT, PLAIN_FLOW, by=1),
    Claim(LOWER, "loss", LINE_EVEN, RECIPE),
    Claim(LOWER, "loss", LINE_ERROR, RECIPE),
)
