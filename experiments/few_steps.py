"""How few steps: samplers that train nothing, from a thousand steps down to one, and a network that is distilled."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ddpm_lib import (
    BenchmarkMorlet,
    Denoiser,
    Recipe,
    Schedule,
    ancestral,
    ddim,
    dpmpp_2m,
    dpmpp_2m_sde,
    even_log_snr,
    even_steps,
    fit,
    pretrained,
)
from ddpm_lib.diffusion import truncated
from ddpm_lib.sampling.grids import TILT
from ddpm_lib.sampling.steps import Step
from ddpm_lib.training import distilled, shipped_recipe

from .claims import Claim
from .runner import Experiment, samples

ROUNDS = (32, 16, 8, 4, 2, 1)  # steps of the students; the first teacher takes twice as many
STEPS = 400  # of training in each round
N = 2048


def tilted(schedule: Schedule, steps: int) -> list[float]:
    """The grid of the library."""
    return even_log_snr(schedule, steps, TILT)


SAMPLERS: dict[str, tuple[Step, Callable[[Schedule, int], list[float]], tuple[int, ...]]] = {
    "ancestral": (ancestral, even_steps, (1000, 100)),
    "DDIM": (ddim, tilted, (64, *ROUNDS)),
    "2M": (dpmpp_2m, tilted, (20, *ROUNDS)),
    "SDE-2M": (dpmpp_2m_sde, tilted, (40, 20, *ROUNDS)),
}


@dataclass(frozen=True)
class Sampler:
    """One of `SAMPLERS` and the network that ships: it stands for a recipe, and trains nothing."""

    name: str
    seed: int = 0
    family: BenchmarkMorlet = field(default_factory=BenchmarkMorlet, compare=False)

    def fingerprint(self) -> str:
        """Of this, and of the network that ships."""
        told = f"{self.name} {SAMPLERS[self.name][2]} {N} {self.seed} {shipped_recipe().fingerprint()}"
        return hashlib.sha256(told.encode()).hexdigest()[:16]


@cache
def shipped() -> Denoiser:
    return pretrained()


def judged(recipe: Recipe | Sampler, denoiser: Denoiser, times: list[float], step: Step) -> dict[str, float]:
    """Validity; the worst of the three laws and the distance to real signals, over their critical values."""
    found = samples(recipe, denoiser, N, steps=times, step=step)
    law = max(value for key, value in found.items() if key.startswith("law_"))
    return {"valid": found["valid"], "margin": found["valid_margin"], "law": law, "distance": found["distance"]}


class Chains(Experiment):
    """A row is a sampler, or a whole chain of students, each the teacher of the next; columns are numbers of steps."""

    def make(self, run: str, seed: int, recipe: Any) -> None:
        start, found = time.perf_counter(), dict[str, Any]()
        for steps, scores in (sampled(run, recipe) if run in SAMPLERS else chain(recipe)).items():
            found |= {f"{steps}: {key}": value for key, value in scores.items()}
        self.append(self.head(run, seed, recipe) | {"seconds": round(time.perf_counter() - start)} | found)


def sampled(run: str, recipe: Sampler) -> dict[int, dict[str, float]]:
    """The shipped network with one sampler, by the number of steps."""
    step, grid, counts = SAMPLERS[run]
    return {steps: judged(recipe, shipped(), grid(shipped().schedule, steps), step) for steps in counts}


def chain(recipe: Recipe) -> dict[int, dict[str, float]]:
    """The students, by the number of their steps."""
    teacher, found = shipped(), {}
    times = tilted(teacher.schedule, 2 * ROUNDS[0])
    for steps in ROUNDS:
        student = distilled(
            teacher, times, steps=recipe.steps, lr=recipe.lr, kernel_lr=recipe.kernel_lr, ema=recipe.ema,
            seed=recipe.seed, weight=truncated,
        )  # fmt: skip
        teacher, times = fit(student).denoiser, times[::2]
        found[steps] = judged(recipe, teacher, times, ddim)
    return found


SLOW = Recipe(steps=STEPS, lr=5e-4, kernel_lr=5e-3, ema=0.98)  # a student begins as a trained network

EXPERIMENT = Chains(
    name="few_steps",
    recipes={"distilled": SLOW, **{name: Sampler(name) for name in SAMPLERS}},
    seeds=range(3),
    measure=lambda *_: {},
)

CHAPTER = "grids_and_solvers"
CLAIMS = (
    Claim("at twenty steps 2M has fewer valid samples", "20: valid", "SDE-2M", "2M"),
    Claim(
        "At four steps the student makes more than twice as many valid samples", "4: valid", "distilled", "2M", by=0.4
    ),
    Claim("in two it still makes four of five", "2: valid", "distilled", "2M", by=0.7),
    Claim("at eight the student's laws are closer to the box", "8: law", "SDE-2M", "distilled"),
    Claim("at sixteen SDE-2M has more valid samples", "16: valid", "SDE-2M", "distilled"),
    Claim("and the better laws", "16: law", "distilled", "SDE-2M"),
)
