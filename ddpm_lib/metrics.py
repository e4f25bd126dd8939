"""How far is a denoiser from the exact one, and a signal from its family?

Chapters `best_denoiser`, `training`, `sampling` and `is_it_any_good`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_signals, count, number, precise, same_shape, schedule_of, times
from .diffusion import Prediction, q_sample
from .schedules import Schedule
from .signals import Family

__all__ = ["Estimate", "FittedSignals", "fit_family", "loss_over_floor", "mean_loss", "predicted_noise", "share"]


class Estimate(NamedTuple):
    """A mean with the half-width of its 95 % interval."""

    value: float
    margin: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.margin:.2g}"


def _mean(x: Tensor) -> Estimate:
    x = x.double()
    spread = x.std().item() if len(x) > 1 else math.inf  # one number says nothing of how far it is from the mean
    return Estimate(x.mean().item(), 1.96 * spread / math.sqrt(len(x)))


def share(hits: Tensor) -> Estimate:
    """Share of True in hits (n,), with the Agresti-Coull interval, which does not vanish at 0 and 1."""
    if not isinstance(hits, Tensor) or hits.dtype != torch.bool or hits.ndim != 1 or not len(hits):
        raise TypeError("A share is that of True in a tensor of booleans of shape (n,), n >= 1.")
    n, k = len(hits) + 4, int(hits.sum()) + 2
    centre = k / n
    margin = 2 * math.sqrt(centre * (1 - centre) / n)
    value = float(hits.double().mean())
    return Estimate(value, max(margin + centre - value, margin - centre + value))


@torch.no_grad()
def predicted_noise(denoiser: Callable[..., Prediction], xt: Tensor, t: Tensor, chunk: int = 512) -> Tensor:
    """ε̂ of signals xt (n, C, L) at times t (n,), asked in chunks that fit into memory."""
    count(chunk, "A chunk")
    schedule_of(denoiser)
    t = times(t, check_signals(xt, "xt", "n"))
    return torch.cat([denoiser(x, u).eps for x, u in zip(xt.split(chunk), t.split(chunk), strict=True)])


def mean_loss(denoiser: Callable[..., Prediction], x0: Tensor, t: Tensor, eps: Tensor) -> Estimate:
    """L_simple ‖ε - ε̂‖² a sample over given signals (n, C, L), times (n,) and noise, with its interval."""
    schedule: Schedule = schedule_of(denoiser)
    return _mean((eps - predicted_noise(denoiser, q_sample(x0, t, eps, schedule), t)).square().mean((1, 2)))


def loss_over_floor(
    denoiser: Callable[..., Prediction],
    oracle: Callable[..., Prediction] | Tensor,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
) -> Estimate:
    """L_simple over the smallest possible one: 1 + mean‖ε̂ - ε*‖²/L*, where ε* is the oracle's.

    Because E[ε|x_t] = ε*, the loss splits into the floor L* and the distance to the oracle; measured that way
    the noise of ε cancels. L* itself is estimated on the same signals.

    Args:
        denoiser: what is measured; has a ``schedule``.
        oracle: the exact denoiser of the law that x0 was drawn from; or its ε* (n, C, L) on these very signals, where
            many denoisers are held against one answer.
        x0, eps: (n, C, L), fresh.
        t: (n,), 1…T.
    """
    schedule: Schedule = schedule_of(denoiser)
    xt = q_sample(x0, t, eps, schedule)
    exact = oracle if isinstance(oracle, Tensor) else predicted_noise(oracle, xt, t)
    same_shape(x0, exact, "x0 and the oracle's noise")
    excess = (predicted_noise(denoiser, xt, t) - exact).square().mean((1, 2)).double()
    floor = (eps - exact).square().mean((1, 2)).double()
    if not floor.mean() > 0:
        raise ValueError("The oracle's noise is eps itself: a loss over a floor of 0 is no number.")
    ratio = excess.mean() / floor.mean()
    # the ratio of two means, to first order: the spread of excess - ratio·floor
    spread = _mean(excess - ratio * floor).margin / floor.mean().item()
    return Estimate(1 + ratio.item(), spread)


class FittedSignals(NamedTuple):
    """Least-squares fit of a family: params (n, P), fitted signals (n, C, L), relative residual (n,), valid (n,)."""

    params: Tensor
    signals: Tensor
    residual: Tensor
    valid: Tensor


@torch.no_grad()
def fit_family(
    x: Tensor, family: Family, *, starts: int = 4, cells: int = 8192, iterations: int = 20, tolerance: float = 0.05
) -> FittedSignals:
    """Fit each signal by the nearest member of a family: Levenberg-Marquardt from the best cells of a grid.

    Args:
        x: (n, C, L).
        family: the family to fit, of at most three parameters.
        starts: cells of the grid from which a fit starts.
        cells: size of the grid.
        iterations: Levenberg-Marquardt steps.
        tolerance: a signal is valid if its residual ‖x - ψ‖/‖ψ‖ is below it and its parameters lie in the
            family's box, with 2 % of each side as slack.

    >>> from ddpm_lib import BenchmarkMorlet
    >>> family = BenchmarkMorlet()
    >>> x0, params = family.sample(8, torch.Generator().manual_seed(0))
    >>> fitted = fit_family(x0, family)
    >>> bool(fitted.valid.all()), bool((fitted.params - params).abs().max() < 1e-3)
    (True, True)
    """
    family.check_length(check_signals(x, "x", "n"))
    x = precise(x)
    cells = count(cells, "The number of cells", high=10**6)
    number(tolerance, "tolerance", 0.0)
    count(iterations, "The number of iterations", 0)
    n_params = len(family.names)
    grid, _ = family.grid(cells)
    # a little beyond the box: a signal just outside it would else start in the trough of a neighbouring period
    middle = 0.5 * (family.low + family.high)
    grid = middle + 1.15 * (grid - middle)
    grid = grid.to(x)
    count(starts, "The number of starts", high=len(grid))
    near = torch.cdist(x.flatten(1), family.render(grid).flatten(1)).topk(starts, largest=False).indices
    theta = grid[near].flatten(0, 1)
    target = x.flatten(1).repeat_interleave(starts, 0)

    def model(p: Tensor) -> Tensor:
        return family.render(p[None]).flatten()

    jacobian = torch.func.vmap(torch.func.jacfwd(model))
    scale = family.high - family.low
    damping = torch.full((len(theta), 1, 1), 1e-3)
    error = (target - family.render(theta).flatten(1)).square().sum(1)
    for _ in range(iterations):
        j = jacobian(theta) * scale
        gap = target - family.render(theta).flatten(1)
        normal = j.mT @ j
        lift = damping * normal.diagonal(dim1=1, dim2=2).clamp(min=1e-6).diag_embed()
        step = torch.linalg.solve(normal + lift, j.mT @ gap[..., None])[..., 0]
        # a fit may leave the box, to be called invalid there, but not run away to where the formula breaks
        trial = (theta + scale * step).clamp(family.low - 0.5 * scale, family.high + 0.5 * scale)
        trial_error = (target - family.render(trial).flatten(1)).square().sum(1)
        better = torch.nan_to_num(trial_error, nan=math.inf) < error
        theta = torch.where(better[:, None], trial, theta)
        error = torch.where(better, trial_error, error)
        damping = torch.where(better[:, None, None], damping / 3, damping * 4).clamp(1e-8, 1e8)
    best = error.view(-1, starts).argmin(1)
    params = theta.view(-1, starts, n_params)[torch.arange(len(x)), best]
    signals = family.render(params)
    residual = (x - signals).flatten(1).norm(dim=1) / signals.flatten(1).norm(dim=1)
    slack = 0.02 * scale
    inside = ((params >= family.low - slack) & (params <= family.high + slack)).all(1)
    return FittedSignals(params, signals, residual, inside & (residual < tolerance))
