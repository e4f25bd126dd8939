"""Schedules: what they change in training, what in sampling, and what neither.

Every denoiser is judged on its own schedule and then sampled on the grid of every other; sampling the exact
denoiser on the same grids tells the solver's part from the network's.
"""

from __future__ import annotations

from dataclasses import replace

from ddpm_lib import Denoiser, Recipe, ancestral, cosine, even_steps, linear, log_linear, quadratic, sigmoid

from .runner import Experiment, losses, samples

DEFAULT = Recipe(steps=600)
SCHEDULES = {
    "linear": linear(),
    "quadratic": quadratic(),
    "cosine": cosine(),
    "sigmoid": sigmoid(),
    "log-linear": log_linear(),
}


def uniform(network, schedule):
    """t drawn uniformly: then a schedule decides which noise levels are trained on, and how often."""
    return None


def measure(recipe: Recipe, denoiser: Denoiser) -> dict[str, float]:
    """Loss over floor; samples of the default sampler; and of 100 even ancestral steps on every schedule's grid."""
    found = losses(recipe, denoiser) | samples(recipe, denoiser)
    for name, schedule in SCHEDULES.items():
        other = Denoiser(denoiser.network, schedule, denoiser.parametrisation)
        on = samples(recipe, other, 1024, steps=even_steps(schedule, 100), step=ancestral)
        worst = max(value for key, value in on.items() if key.startswith("law_"))
        found |= {f"on {name}: valid": on["valid"], f"on {name}: worst law": worst}
    return found


EXPERIMENT = Experiment(
    name="schedules",
    recipes={
        f"{name}, {how}": replace(DEFAULT, schedule=schedule, **changes)
        for name, schedule in SCHEDULES.items()
        for how, changes in {"t uniform": {"density": uniform}, "t by error": {}}.items()
    },
    seeds=range(3),
    measure=measure,
)
