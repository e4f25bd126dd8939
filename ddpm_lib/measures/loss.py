"""How far is a denoiser from the exact one? (chapters `best_denoiser` and `training`)"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_signals, check_tensor
from ..diffusion.denoiser import DenoiserLike
from ..diffusion.forward import q_sample
from ..diffusion.schedules import times
from ..shapes import Float, Time
from .estimates import Estimate, _mean

__all__ = ["loss_over_floor", "mean_loss", "predicted_noise"]


@torch.no_grad()
def predicted_noise(
    denoiser: DenoiserLike, xt: Float[Tensor, "B C L"], t: Time, chunk: int = 512
) -> Float[Tensor, "B C L"]:
    """ε̂ of noised signals, evaluated in chunks that fit into memory."""
    parts = zip(xt.split(chunk), times(t, xt).split(chunk), strict=True)
    return torch.cat([denoiser(x, u).eps for x, u in parts])


def mean_loss(denoiser: DenoiserLike, x0: Float[Tensor, "B C L"], t: Time, eps: Float[Tensor, "B C L"]) -> Estimate:
    """L_simple ‖ε - ε̂‖² per sample over given signals, times and noise, with its interval."""
    return _mean(
        (eps - predicted_noise(denoiser, q_sample(check_signals(x0), t, eps, denoiser.schedule), t))
        .square()
        .mean((1, 2))
    )


def loss_over_floor(
    denoiser: DenoiserLike,
    oracle: DenoiserLike | Float[Tensor, "B C L"],
    x0: Float[Tensor, "B C L"],
    t: Time,
    eps: Float[Tensor, "B C L"],
) -> Estimate:
    """L_simple over the smallest possible one: 1 + mean‖ε̂ - ε*‖²/L*, where ε* is the oracle's.

    Because E[ε|x_t] = ε*, the loss splits into the floor L* and the distance to the oracle; measured that way
    the noise of ε cancels. L* itself is estimated on the same signals.

    Args:
        denoiser: what is measured, a `Denoiser` or any other.
        oracle: the exact denoiser of the distribution that x0 was drawn from; or its ε* on these very signals, where
            many denoisers are held against one answer.
        x0, eps: fresh.
        t: 1…T.
    """
    xt = q_sample(check_signals(x0), t, eps, denoiser.schedule)
    exact = oracle if isinstance(oracle, Tensor) else predicted_noise(oracle, xt, t)
    check_tensor(exact, "The oracle's noise", *x0.shape)
    excess = (predicted_noise(denoiser, xt, t) - exact).square().mean((1, 2)).double()
    floor = (eps - exact).square().mean((1, 2)).double()
    if not floor.mean() > 0:
        raise ValueError("The oracle's noise is eps itself: a loss over a floor of 0 is no number.")
    ratio = excess.mean() / floor.mean()
    # the ratio of two means, to first order: the spread of excess - ratio·floor
    spread = _mean(excess - ratio * floor).margin / floor.mean().item()
    return Estimate(1 + ratio.item(), spread)
