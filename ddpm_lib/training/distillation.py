"""Fewer steps by training: a student learns to do in one step what its teacher does in two.

Chapter `grids_and_solvers`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..checks import number
from ..diffusion.denoiser import Denoiser
from ..diffusion.forward import q_sample
from ..diffusion.schedules import Schedule
from ..signals.batches import stream
from .recipe import BATCHES, Recipe

__all__ = ["Distilled"]


def towards(xt: Tensor, x0: Tensor, t: Tensor, s: Tensor, schedule: Schedule) -> Tensor:
    """A step of DDIM without noise from x_t towards x̂_0, each signal with times of its own: (B, C, L)."""
    (a, noise), (a_s, noise_s) = schedule(t, xt.dtype), schedule(s, xt.dtype)
    keep = noise_s / noise
    return keep * xt + (a_s - keep * a) * x0


@dataclass(frozen=True)
class Distilled(Recipe):
    """Progressive distillation (Salimans & Ho 2022, algorithm 2): one step of the student for two of its teacher.

    From a noised signal x_t the teacher makes two steps of DDIM, to x_s. The student's target is the x̃_0 towards which
    *one* step leads to the same x_s. It starts as a copy of the teacher. `fit` trains it like any recipe.

    Args:
        teacher: a trained denoiser of the same schedule.
        times: the times of the teacher, falling to 0: an even number of steps. The student takes every other one.

    Raises:
        ValueError: no teacher, or one of another schedule; times that do not fall to 0, or an odd number of steps.

    >>> from ddpm_lib import even_log_snr, fit, pretrained
    >>> from ddpm_lib.diffusion import truncated
    >>> teacher = pretrained()
    >>> four = even_log_snr(teacher.schedule, 4, 0.3)
    >>> recipe = Distilled(steps=1, batch=2, weight=truncated, teacher=teacher, times=four)
    >>> student = fit(recipe).denoiser  # in real life some hundred steps
    >>> len(recipe.kept) - 1  # steps that it takes
    2
    """

    teacher: Denoiser | None = None
    times: Sequence[float] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.teacher, Denoiser):
            raise ValueError(f"A distilled recipe needs a teacher, a trained Denoiser, got {self.teacher!r}.")
        mine, its = (s.log_alpha_bar(torch.arange(s.T + 1)) for s in (self.schedule, self.teacher.schedule))
        if not torch.equal(mine, its):
            raise ValueError(f"A student has its teacher's schedule, {self.teacher.schedule}, got {self.schedule}.")
        times = [number(t, "A time", 0.0, self.schedule.T) for t in self.times]
        falling = all(t > s for t, s in pairwise(times))
        if len(times) < 3 or len(times) % 2 == 0 or not falling or times[-1] != 0:
            raise ValueError(f"The teacher's times must fall to 0 in an even number of steps, got {times[:4]} … .")

    @property
    def kept(self) -> list[float]:
        """The times of the student, every other one of its teacher's."""
        return list(self.times[::2])

    def build(self) -> Denoiser:
        """The student as it begins: a copy of its teacher."""
        assert self.teacher is not None
        return copy.deepcopy(self.teacher).train()

    def draw(self, network: nn.Module) -> Callable[[int], tuple[Tensor, ...]]:
        """step → (x̃_0, t, ε̃, weight): a batch like any other, of which √ᾱ·x̃_0 + √(1-ᾱ)·ε̃ is the x_t that was made."""
        return partial(_draw, self)

    def fingerprint(self) -> str:
        """Changes with the teacher's weights and times, too."""
        assert self.teacher is not None
        digest = hashlib.sha256(f"{super().fingerprint()} {list(self.times)}".encode())
        for value in self.teacher.state_dict().values():
            digest.update(value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()[:10]


@torch.no_grad()
def _draw(recipe: Distilled, step: int) -> tuple[Tensor, ...]:
    generator, schedule, teacher = stream(recipe.seed, step, BATCHES), recipe.schedule, recipe.teacher
    assert teacher is not None
    x0, _ = recipe.family.sample(recipe.batch, generator)
    k = 2 * torch.randint(len(recipe.times) // 2, (recipe.batch,), generator=generator)
    t, middle, s = (torch.tensor(recipe.times, dtype=torch.float64)[k + j] for j in range(3))
    xt = q_sample(x0, t, torch.randn(x0.shape, generator=generator), schedule)
    xm = towards(xt, teacher(xt, t).x0, t, middle, schedule)
    xs = towards(xm, teacher(xm, middle).x0, middle, s, schedule)
    (a, noise), (a_s, noise_s) = schedule(t, xt.dtype), schedule(s, xt.dtype)
    keep = noise_s / noise
    target = (xs - keep * xt) / (a_s - keep * a)
    return target, t, (xt - a * target) / noise, torch.ones(recipe.batch)
