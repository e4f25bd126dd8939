"""The exact answer, E[x_0 | x_t], for a finite set of signals (chapter `best_denoiser`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..checks import check_signals
from ..diffusion.denoiser import Prediction
from ..diffusion.schedules import Schedule

__all__ = ["FiniteOracle"]


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
        _, a, s = self.schedule.at(t, xt)
        atoms = self.signals.flatten(1)
        # ‖x_t‖² is common to all atoms and drops out of the softmax
        fit = a[:, 0] * (xt.flatten(1) @ atoms.T) - 0.5 * a[:, 0] ** 2 * atoms.square().sum(1)
        return torch.softmax(fit / s[:, 0] ** 2, dim=1)

    def forward(self, xt: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Prediction:
        """xt (B, C, L), t (B,), t > 0 → Prediction."""
        x0 = (self.weights(xt, t) @ self.signals.flatten(1)).view_as(xt)
        return Prediction.from_x0(x0, xt, *self.schedule.at(t, xt)[1:])

    def covariance(self, xt: Tensor, t: Tensor | float) -> Tensor:
        """Cov[x_0 | x_t], (B, C·L, C·L)."""
        return weighted_covariance(self.weights(xt, t), self.signals.flatten(1))


def weighted_covariance(weights: Tensor, atoms: Tensor) -> Tensor:
    """Covariance (B, L, L) of atoms (K, L) or (B, K, L) that have the probabilities weights (B, K)."""
    gap = atoms - (weights[:, None] @ atoms)  # (B, K, L)
    return (weights[..., None] * gap).mT @ gap


ALL = (FiniteOracle,)
