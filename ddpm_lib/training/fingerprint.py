"""What a recipe is known by: by it a trained model and a row of a table are found again (chapter `training`)."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..diffusion.denoiser import Denoiser, Parametrisation
from ..signals.source import digest, identity, name_of

if TYPE_CHECKING:
    from .recipe import Recipe

__all__ = ["fingerprint"]


def fingerprint(recipe: Recipe, denoiser: Denoiser) -> str:
    """Ten hexadecimal digits that change with whatever a recipe says; ``denoiser`` is the untrained one.

    Functions count by what they return where that is a table, and else by their name; a network and a parametrisation
    also by what they answer to a fixed input. All is computed in float64 and rounded: the last digits of float32 differ
    from one processor to another, and a model that was trained on one would be unknown on the other.
    """
    network = copy.deepcopy(denoiser.network).double().eval()
    schedule, density = recipe.schedule, recipe.density(network, recipe.schedule)
    rates = torch.tensor([recipe.rate(step, recipe) for step in range(recipe.steps)], dtype=torch.float64)
    numbers = ("steps", "batch", "lr", "kernel_lr", "warmup", "weight_decay", "clip", "ema", "seed")
    parts = {
        "signals": identity(recipe.family),
        "schedule": _rounded(schedule.log_alpha_bar(torch.arange(schedule.T + 1)), 1e9),
        "network": f"{network!r} {[(k, tuple(v.shape)) for k, v in network.state_dict().items()]}",
        "its answer": _answer(network, recipe.family.sample(2, torch.Generator().manual_seed(0))[0].double()),
        "parametrisation": _meaning(recipe.parametrisation),
        "density": "uniform" if density is None else _rounded(density / density.mean(), 1e3),
        "weight": _rounded(recipe.weights().clamp(min=1e-30).log(), 1e4),  # its size, too: it decides what is clipped
        "optimiser": name_of(recipe.optimiser),
        "rate": _rounded(rates, 1e6),
        "batches": name_of(recipe.batches),
        **{name: getattr(recipe, name) for name in numbers},
        "told": recipe.p_conditional,
    }
    return hashlib.sha256("\n".join(f"{k}: {v}" for k, v in parts.items()).encode()).hexdigest()[:10]


def _rounded(x: Tensor, scale: float) -> str:
    return digest((scale * x).round().long())


def _meaning(parametrisation: Parametrisation) -> str:
    """What a parametrisation makes of four signals at four times."""
    signal = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64).view(4, 1, 1)  # ᾱ_t
    a, s = signal.sqrt(), (1 - signal).sqrt()
    x, eps, out = 2 * signal - 1, 1 - 3 * signal**2, signal + 0.5
    found = parametrisation.target(x, eps, a, s), *parametrisation.predict(out, x, a, s)
    return f"{type(parametrisation).__qualname__} {_rounded(torch.cat(found), 1e6)}"


@torch.no_grad()
def _answer(network: nn.Module, x: Tensor) -> str:
    """What a network answers to two signals, all its weights set by a formula: four numbers, to two digits.

    It sees what a class prints the same and computes another way. Coarse, because its tables may be of float32.
    """
    for weight in network.parameters():
        weight.copy_(0.3 * torch.cos(torch.arange(weight.numel(), dtype=torch.float64)).view_as(weight))
    try:
        out = network(x, torch.zeros(len(x), dtype=torch.float64), None).abs().flatten()
    except (RuntimeError, TypeError):  # one that cannot compute in float64
        return ""
    parts = torch.stack([part.mean() for part in out.tensor_split(4)])
    return _rounded(parts / parts.sum().clamp(min=1e-30), 1e2)
