"""The exact answer, E[x_0 | x_t], for a finite set of signals (chapter `best_denoiser`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..checks import check_signals
from ..diffusion.denoiser import Prediction
from ..diffusion.schedules import Schedule
from ..shapes import Float, Time

__all__ = ["FiniteOracle"]


class FiniteOracle(nn.Module):
    """The exact denoiser of a finite set of equally likely signals: a softmax over the set.

    E[x_0|x_t] = Σ_k softmax_k(-‖x_t - √ᾱ·ψ_k‖²/2(1-ᾱ))·ψ_k.

    Args:
        signals: the set.
        schedule: the noise schedule.

    >>> from ddpm_lib import linear, report_grid
    >>> grid = report_grid(128)
    >>> oracle = FiniteOracle(grid.signals, linear())
    >>> bool(torch.allclose(oracle(grid.signals, 1).x0, grid.signals, atol=1e-3))
    True
    """

    signals: Float[Tensor, "K C L"]

    def __init__(self, signals: Float[Tensor, "K C L"], schedule: Schedule):
        super().__init__()
        self.register_buffer("signals", check_signals(signals, "signals", "K"))
        self.schedule = schedule

    def weights(self, xt: Float[Tensor, "B C L"], t: Time) -> Float[Tensor, "B K"]:
        """Posterior probability of each signal."""
        _, a, s = self.schedule.at(t, xt)
        atoms = self.signals.flatten(1)
        # ‖x_t‖² is common to all atoms and drops out of the softmax
        fit = a[:, 0] * (xt.flatten(1) @ atoms.T) - 0.5 * a[:, 0] ** 2 * atoms.square().sum(1)
        return torch.softmax(fit / s[:, 0] ** 2, dim=1)

    def forward(self, xt: Float[Tensor, "B C L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """The posterior mean, at times 0 < t ≤ T."""
        x0 = (self.weights(xt, t) @ self.signals.flatten(1)).view_as(xt)
        return Prediction.from_x0(x0, xt, *self.schedule.at(t, xt)[1:])

    def covariance(self, xt: Float[Tensor, "B C L"], t: Time) -> Float[Tensor, "B C*L C*L"]:
        """Cov[x_0 | x_t]."""
        return weighted_covariance(self.weights(xt, t), self.signals.flatten(1))


def weighted_covariance(
    weights: Float[Tensor, "B K"], atoms: Float[Tensor, "K N"] | Float[Tensor, "B K N"]
) -> Float[Tensor, "B N N"]:
    """Covariance of atoms that have these probabilities."""
    gap = atoms - (weights[:, None] @ atoms)  # (B, K, L)
    return (weights[..., None] * gap).mT @ gap


ALL = (FiniteOracle,)
