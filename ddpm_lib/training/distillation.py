"""Fewer steps by training: a student learns to do in one step what its teacher does in two.

Chapter `grids_and_solvers`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_number
from ..diffusion.denoiser import Denoiser
from ..diffusion.forward import q_sample
from ..diffusion.schedules import Schedule
from ..shapes import Float
from ..signals.batches import stream
from .recipe import BATCHES, Batch, Recipe

__all__ = ["TwoSteps", "distilled"]


def distilled(teacher: Denoiser, times: Sequence[float], **changes: Any) -> Recipe:
    """Progressive distillation (Salimans & Ho 2022, algorithm 2): one step of the student for two of its teacher.

    From a noised signal x_t the teacher makes two steps of DDIM, to x_s. The student's target is the x̃_0 towards which
    *one* step leads to the same x_s. It starts as a copy of the teacher. `fit` trains it like any recipe.

    Args:
        teacher: a trained denoiser.
        times: the times of the teacher, falling to 0: an even number of steps. The student takes every other one,
            ``times[::2]``.
        changes: what else of a `Recipe` is to be another, such as ``weight=truncated``.

    Raises:
        ValueError: times that do not fall to 0, or an odd number of steps.

    >>> from ddpm_lib import even_log_snr, fit, pretrained
    >>> from ddpm_lib.diffusion import truncated
    >>> teacher = pretrained()
    >>> four = even_log_snr(teacher.schedule, 4, 0.3)
    >>> recipe = distilled(teacher, four, steps=1, batch=2, weight=truncated)
    >>> student = fit(recipe).denoiser  # in real life some hundred steps
    """
    times = [check_number(t, "A time", 0.0, teacher.schedule.T) for t in times]
    falling = all(t > s for t, s in pairwise(times))
    if len(times) < 3 or len(times) % 2 == 0 or not falling or times[-1] != 0:
        raise ValueError(f"The teacher's times must fall to 0 in an even number of steps, got {times[:4]} … .")
    teacher = copy.deepcopy(teacher).eval()
    return Recipe(
        schedule=teacher.schedule,
        parametrisation=teacher.parametrisation,
        network=partial(_copy, teacher),
        batches=TwoSteps(teacher, tuple(times)),
        **changes,
    )


def _copy(teacher: Denoiser, family: Any, seed: int) -> nn.Module:
    """The student's network as it begins."""
    return copy.deepcopy(teacher.network).train()


def towards(
    xt: Float[Tensor, "B C L"],
    x0: Float[Tensor, "B C L"],
    t: Float[Tensor, "B"],
    s: Float[Tensor, "B"],
    schedule: Schedule,
) -> Float[Tensor, "B C L"]:
    """A step of DDIM without noise from x_t towards x̂_0, each signal with times of its own."""
    (a, noise), (a_s, noise_s) = schedule(t, xt.dtype), schedule(s, xt.dtype)
    keep = noise_s / noise
    return keep * xt + (a_s - keep * a) * x0


@dataclass(frozen=True, repr=False)
class TwoSteps:
    """The batches of a student: (x̃_0, t, ε̃), of which √ᾱ·x̃_0 + √(1-ᾱ)·ε̃ is the x_t that was made.

    Args:
        teacher: makes two steps.
        times: of the teacher.
    """

    teacher: Denoiser
    times: tuple[float, ...]

    @torch.no_grad()
    def __call__(self, recipe: Recipe, density: Float[Tensor, "T"] | None, step: int) -> Batch:
        generator, schedule, teacher = stream(recipe.seed, step, BATCHES), recipe.schedule, self.teacher
        x0, _ = recipe.family.sample(recipe.batch, generator)
        k = 2 * torch.randint(len(self.times) // 2, (recipe.batch,), generator=generator)
        t, middle, s = (torch.tensor(self.times, dtype=torch.float64)[k + j] for j in range(3))
        xt = q_sample(x0, t, torch.randn(x0.shape, generator=generator), schedule)
        xm = towards(xt, teacher(xt, t).x0, t, middle, schedule)
        xs = towards(xm, teacher(xm, middle).x0, middle, s, schedule)
        (a, noise), (a_s, noise_s) = schedule(t, xt.dtype), schedule(s, xt.dtype)
        keep = noise_s / noise
        target = (xs - keep * xt) / (a_s - keep * a)
        return Batch(target, t, (xt - a * target) / noise, torch.ones(recipe.batch))

    def __repr__(self) -> str:
        """Changes with the times and with the teacher's weights: it is what the recipe is known by."""
        digest = hashlib.sha256()
        for value in self.teacher.state_dict().values():
            digest.update(value.detach().cpu().numpy().tobytes())
        return f"TwoSteps({list(self.times)}, teacher {digest.hexdigest()[:10]})"
