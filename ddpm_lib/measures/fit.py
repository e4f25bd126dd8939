"""How far is a signal from its family? (chapters `sampling` and `is_it_any_good`)"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import at_least_float32, check_tensor
from ..shapes import Bool, Float
from ..signals.family import Family

__all__ = ["FittedSignals", "fit_family"]


class FittedSignals(NamedTuple):
    """Least-squares fit of a family: parameters, fitted signals, relative residual, and whether the fit is valid."""

    params: Float[Tensor, "n P"]
    signals: Float[Tensor, "n 1 L"]
    residual: Float[Tensor, "n"]
    valid: Bool[Tensor, "n"]


@torch.no_grad()
def fit_family(
    x: Float[Tensor, "n 1 L"],
    family: Family,
    *,
    starts: int = 4,
    cells: int = 8192,
    iterations: int = 20,
    tolerance: float = 0.05,
) -> FittedSignals:
    """Fit each signal by the nearest member of a family: Levenberg-Marquardt from the best cells of a grid.

    Args:
        x: the signals.
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
    check_tensor(x, "x", "n", 1, family.length)
    x = at_least_float32(x)
    n_params = len(family.names)
    grid, _ = family.grid(cells)
    # a little beyond the box: a signal just outside it would else start in the trough of a neighbouring period
    middle = 0.5 * (family.low + family.high)
    grid = middle + 1.15 * (grid - middle)
    grid = grid.to(x)
    near = torch.cdist(x.flatten(1), family.render(grid).flatten(1)).topk(starts, largest=False).indices
    theta = grid[near].flatten(0, 1)
    target = x.flatten(1).repeat_interleave(starts, 0)

    def model(p: Float[Tensor, "P"]) -> Float[Tensor, "L"]:
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
