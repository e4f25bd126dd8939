"""The training loop as one would write it for oneself; `fit` is held to it (chapter `training`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..diffusion.denoiser import Denoiser
from ..diffusion.forward import q_sample
from ..diffusion.losses import loss
from ..shapes import Float
from .recipe import Recipe

__all__ = ["algorithm_1", "reference_loop"]


def algorithm_1(
    denoiser: Denoiser, x0: Float[Tensor, "B C L"], generator: torch.Generator | None = None
) -> Float[Tensor, ""]:
    """The loss of a training step as Ho et al. 2020 print it, algorithm 1, a number; they predict ε.

    Args:
        x0: the signals.
        generator: a CPU generator.
    """
    schedule = denoiser.schedule
    t = torch.randint(1, schedule.T + 1, (len(x0),), generator=generator)  # 3: t ~ Uniform({1, …, T})
    eps = torch.randn(x0.shape, generator=generator)  # 4: ε ~ N(0, I)
    a, s = schedule(t)
    target = denoiser.parametrisation.target(x0, eps, a, s)  # ε itself with `Eps`
    return (target - denoiser.network(q_sample(x0, t, eps, schedule), schedule.log_snr(t, x0.dtype))).square().mean()


def reference_loop(recipe: Recipe) -> tuple[Denoiser, Float[Tensor, "steps"]]:
    """Train a recipe without Lightning: the denoiser as it is after the last step, and the loss of every step.

    What `fit` adds: the running mean of the weights, checkpoints and resume, several devices, a progress bar, threads
    that give way to other programs.
    """
    denoiser, losses = recipe.build(), []
    draw, optimiser = recipe.draw(denoiser.network), recipe.optimiser(denoiser, recipe)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: recipe.rate(step, recipe))
    for step in range(recipe.steps):
        x0, t, eps, importance, cond = draw(step)
        value = (importance * loss(denoiser, x0, t, eps, recipe.weight, cond)).mean()
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), recipe.clip)
        optimiser.step()
        rate.step()
        losses.append(value.item())
    return denoiser, torch.tensor(losses)
