"""The exact answer: E[x_0 | x_t] where the law of the data is known (chapter 7).

No denoiser can have a smaller loss than the posterior mean, so its loss is the floor that every figure in
this book is drawn with. Each oracle is called like a `Denoiser` and returns a `Prediction`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .checks import check_signals, times
from .diffusion import Prediction
from .schedules import Schedule
from .signals import Family

__all__ = ["FamilyOracle", "FiniteOracle", "Gaussian", "Wiener", "fit_gaussian"]


class Wiener(nn.Module):
    """The best linear denoiser of data with this mean and covariance; exact where the data are Gaussian.

    With x_0 ~ (m, Σ = UΛUᵀ) the estimate is x̂_0 = m + U·√ᾱΛ/(ᾱΛ + 1-ᾱ)·Uᵀ(x_t - √ᾱ·m). Only the
    directions that hold more than 1e-8 of the greatest power are kept.

    Args:
        mean: (C, L).
        cov: (C·L, C·L), symmetric and positive semi-definite.
    """

    mean: Tensor
    basis: Tensor
    power: Tensor

    def __init__(self, mean: Tensor, cov: Tensor):
        super().__init__()
        n = mean.numel()
        if mean.ndim != 2 or cov.shape != (n, n):
            raise ValueError(
                "The mean must have shape (C, L) and the covariance (C·L, C·L), "
                f"got {tuple(mean.shape)} and {tuple(cov.shape)}."
            )
        power, basis = torch.linalg.eigh(cov.double())
        keep = power > 1e-8 * power[-1]
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis[:, keep].to(mean.dtype).contiguous())
        self.register_buffer("power", power[keep].to(mean.dtype))

    def forward(self, xt: Tensor, a: Tensor, s: Tensor) -> Prediction:
        """xt (B, C, L), a = √ᾱ_t and s = √(1-ᾱ_t) (B, 1, 1) → Prediction."""
        if xt.shape[1:] != self.mean.shape:
            raise ValueError(
                f"This denoiser knows signals of shape {tuple(self.mean.shape)}, got {tuple(xt.shape[1:])}."
            )
        gain = (a * self.power / (a**2 * self.power + s**2)).squeeze(1)
        z = (xt - a * self.mean).flatten(1) @ self.basis  # the coordinates in which the covariance is diagonal
        x0 = self.mean + ((gain * z) @ self.basis.T).view_as(xt)
        return Prediction(x0, (xt - a * x0) / s)

    def eps_error(self, a: Tensor, s: Tensor) -> Tensor:
        """Mean square error of ε̂ a sample, (B, 1, 1): the loss of the best linear denoiser."""
        power = a**2 * self.power
        return (power / (power + s**2)).sum(-1, keepdim=True) / self.mean.numel()


def fit_gaussian(x0: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C, L) and covariance (C·L, C·L) of signals (n, C, L); the covariance in float64.

    In float32 its small directions would be rounding, and their number would differ between processors.
    """
    check_signals(x0, first="n")
    return x0.mean(0), torch.cov(x0.flatten(1).double().T)


class Gaussian(nn.Module):
    """The exact denoiser of Gaussian data N(mean, cov).

    >>> from ddpm_lib import linear
    >>> oracle = Gaussian(torch.zeros(1, 4), torch.eye(4), linear())
    >>> oracle(torch.ones(1, 1, 4), 1000).x0[0, 0]  # unit power: E[x0|xt] = √ᾱ·xt
    tensor([0.0064, 0.0064, 0.0064, 0.0064])
    """

    def __init__(self, mean: Tensor, cov: Tensor, schedule: Schedule):
        super().__init__()
        self.wiener, self.schedule = Wiener(mean, cov), schedule

    def forward(self, xt: Tensor, t: Tensor | float, cond: None = None) -> Prediction:
        """xt (B, C, L), t (B,) → Prediction."""
        return self.wiener(xt, *self.schedule(times(t, xt), xt.dtype))

    def floor(self, t: Tensor) -> Tensor:
        """L*(t) in closed form, (B,): the smallest possible loss ‖ε - ε̂‖² a sample."""
        return self.wiener.eps_error(*self.schedule(t, self.wiener.power.dtype)).flatten()


class FiniteOracle(nn.Module):
    """The exact denoiser of a finite set of equally likely signals: a softmax over the set.

    E[x_0|x_t] = Σ_k softmax_k(-‖x_t - √ᾱ·ψ_k‖²/2(1-ᾱ))·ψ_k.

    Args:
        signals: (K, C, L).
        schedule: the noise schedule.

    >>> from ddpm_lib import linear, report_grid
    >>> grid = report_grid(128)
    >>> oracle = FiniteOracle(grid.signals, linear())
    >>> bool(torch.allclose(oracle(grid.signals, 1).x0, grid.signals, atol=1e-3))
    True
    """

    signals: Tensor

    def __init__(self, signals: Tensor, schedule: Schedule):
        super().__init__()
        self.register_buffer("signals", check_signals(signals, "signals", "K"))
        self.schedule = schedule

    def weights(self, xt: Tensor, t: Tensor | float) -> Tensor:
        """Posterior probability of each signal, (B, K)."""
        a, s = self.schedule(times(t, xt), xt.dtype)
        atoms = self.signals.flatten(1)
        # ‖x_t‖² is common to all atoms and drops out of the softmax
        fit = a[:, 0] * (xt.flatten(1) @ atoms.T) - 0.5 * a[:, 0] ** 2 * atoms.square().sum(1)
        return torch.softmax(fit / s[:, 0] ** 2, dim=1)

    def forward(self, xt: Tensor, t: Tensor | float, cond: None = None) -> Prediction:
        """xt (B, C, L), t (B,), t > 0 → Prediction."""
        a, s = self.schedule(times(t, xt), xt.dtype)
        x0 = (self.weights(xt, t) @ self.signals.flatten(1)).view_as(xt)
        return Prediction(x0, (xt - a * x0) / s)


class FamilyOracle(nn.Module):
    """The exact denoiser of a parametric family, by quadrature over its box of parameters.

    E[x_0|x_t] = ∫ψ_θ·p(θ|x_t)dθ with p(θ|x_t) ∝ exp(-‖x_t - √ᾱ·ψ_θ‖²/2(1-ᾱ)) on the box. A grid of cells covers
    the box, each about as long in every direction as the signal changes by equal amounts. Where the noise is
    so small that the posterior is narrower than a cell, the `keep` likeliest cells are cut in eight, and again,
    until a cell moves the signal by less than `resolution` standard deviations of the noise.

    Args:
        family: up to three parameters, uniform on its box.
        schedule: the noise schedule.
        cells: cells of the first grid.
        keep: cells that are refined at each level; twice as many at the first.
        resolution: size of the last cells in units of the posterior's width; halve it to see the error.

    Raises:
        ValueError: a family of more than three parameters: its floor is not known.

    >>> from ddpm_lib import BenchmarkMorlet, linear, q_sample
    >>> family = BenchmarkMorlet()
    >>> oracle = FamilyOracle(family, linear())
    >>> x0, _ = family.sample(4, torch.Generator().manual_seed(0))
    >>> xt = q_sample(x0, 10, torch.zeros_like(x0), linear())
    >>> bool((oracle(xt, 10).x0 - x0).abs().max() < 0.02)
    True
    """

    grid: Tensor
    size: Tensor
    atoms: Tensor
    corners: Tensor

    def __init__(self, family: Family, schedule: Schedule, cells: int = 4096, keep: int = 64, resolution: float = 1.0):
        super().__init__()
        n_params = len(family.names)
        if n_params > 3:
            raise ValueError(
                f"{type(family).__name__} has {n_params} parameters: quadrature covers up to three, so the exact "
                "floor of this family is not known here."
            )
        self.family, self.schedule, self.keep, self.resolution = family, schedule, keep, resolution
        grid, size = family.grid(cells)
        self.register_buffer("size", size)
        self.register_buffer("grid", grid)
        self.register_buffer("atoms", family.render(grid).flatten(1))
        # how far the signal moves along one edge of a cell: by the making of the grid much the same for all edges
        across = family.render(grid[::7] + 0.5 * size) - family.render(grid[::7] - 0.5 * size)
        self.edge = float(across.square().sum((1, 2)).mean().sqrt()) / math.sqrt(n_params)
        corners = torch.cartesian_prod(*[torch.tensor([-0.25, 0.25])] * n_params)
        self.register_buffer("corners", corners.view(-1, n_params))

    def _nodes(self, xt: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """Parameters (B, K, P), their signals (B, K, L) and log-weights (B, K) of the posterior at one time."""
        a, s = (v.item() for v in self.schedule(torch.as_tensor([t])))
        x = xt.flatten(1)
        log_w = -torch.cdist(x, a * self.atoms).square() / (2 * s**2)
        theta, atoms = self.grid.expand(len(x), -1, -1), self.atoms.expand(len(x), -1, -1)
        size = self.size
        for level in range(max(0, math.ceil(math.log2(self.edge * a / (self.resolution * s))))):
            # the first cut is the widest: there the posterior still covers many cells, perhaps in several places
            best = log_w.topk(min(self.keep * (1 if level else 2), log_w.shape[1]), dim=1).indices
            theta = theta.gather(1, best[..., None].expand(-1, -1, theta.shape[2]))
            theta = (theta[:, :, None] + self.corners * size).flatten(1, 2)
            size = size / 2
            atoms = self.family.render(theta.flatten(0, 1)).view(*theta.shape[:2], -1)
            # squared differences, not the expanded square: at small noise that would cancel
            log_w = -(x[:, None] - a * atoms).square().sum(-1) / (2 * s**2)
        return theta, atoms, log_w.log_softmax(1)

    def _by_time(self, xt: Tensor, t: Tensor, chunk: int = 32) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Rows that share a time, in chunks that fit the cache, with their nodes."""
        for time in t.unique().tolist():
            for rows in (t == time).nonzero()[:, 0].split(chunk):
                yield rows, *self._nodes(xt[rows], time)

    @torch.no_grad()
    def forward(self, xt: Tensor, t: Tensor | float, cond: None = None) -> Prediction:
        """xt (B, 1, L), t (B,), 0 < t ≤ T → Prediction."""
        check_signals(xt, "xt")
        t = times(t, xt)
        x0 = torch.empty_like(xt)
        for rows, _, atoms, log_w in self._by_time(xt, t):
            x0[rows] = log_w.exp()[:, None] @ atoms
        a, s = self.schedule(t, xt.dtype)
        return Prediction(x0, (xt - a * x0) / s)

    @torch.no_grad()
    def posterior(self, xt: Tensor, t: Tensor | float, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws of the parameters given each x_t, (B, n, P)."""
        t = times(t, xt)
        out = torch.empty(len(xt), n, len(self.family.names))
        for rows, theta, _, log_w in self._by_time(xt, t):
            k = torch.multinomial(log_w.exp(), n, replacement=True, generator=generator)
            out[rows] = theta.gather(1, k[..., None].expand(-1, -1, theta.shape[2]))
        return out


ALL = (Gaussian, FiniteOracle, FamilyOracle)
