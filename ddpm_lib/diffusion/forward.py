"""The forward process, and its posterior (chapters `forward_process` and `reverse_process`).

Shapes: signals (B, C, L); times t (B,), 0 = data, T = noise. Notation of Ho et al. 2020; the numbers in
brackets are the equations of the report.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..shapes import Float, Time
from .schedules import Schedule, times

__all__ = ["Normal", "q_posterior", "q_sample", "q_step"]


class Normal(NamedTuple):
    """N(mean, var·I)."""

    mean: Float[Tensor, "B C L"]
    var: Float[Tensor, "B 1 1"]

    def sample(self, noise: Float[Tensor, "B C L"]) -> Float[Tensor, "B C L"]:
        """mean + √var·noise, report (4)."""
        return self.mean + self.var.sqrt() * noise


def q_step(
    x_prev: Float[Tensor, "B C L"], t: Time, eps: Float[Tensor, "B C L"], schedule: Schedule
) -> Float[Tensor, "B C L"]:
    """One forward step, x_t = √(1-β_t)·x_{t-1} + √β_t·ε_t with fresh ε_t: report (1) and (5).

    Args:
        t: 1…T: the step that is taken, from t-1 to t.
    """
    beta = schedule.beta(_exact(t, x_prev))
    return (1 - beta).sqrt().to(x_prev) * x_prev + beta.sqrt().to(x_prev) * eps


def q_sample(
    x0: Float[Tensor, "B C L"], t: Time, eps: Float[Tensor, "B C L"], schedule: Schedule
) -> Float[Tensor, "B C L"]:
    """The jump x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε: report (9), Ho et al. (4).

    Args:
        t: 0…T.
        eps: ~ N(0, I).

    >>> x0 = torch.ones(2, 1, 4)
    >>> from ddpm_lib import linear
    >>> q_sample(x0, torch.tensor([0, 1000]), torch.zeros_like(x0), linear())[:, 0, 0]
    tensor([1.0000, 0.0064])
    """
    a, s = schedule(times(t, x0), x0.dtype)
    return a * x0 + s * eps


def q_posterior(
    x0: Float[Tensor, "B C L"], xt: Float[Tensor, "B C L"], t: Time, schedule: Schedule, s: Time | None = None
) -> Normal:
    """q(x_s | x_t, x_0) = N(μ̃, β̃·I), report (40), (42), (43); Ho et al. (6), (7), for any s < t.

    Args:
        t, s: 0 ≤ s < t; s = t - 1 by default.

    Returns:
        Normal with mean μ̃ and variance β̃; at s = 0 it is a point mass at x0.
    """
    t = _exact(t, xt)
    s = t - 1 if s is None else _exact(s, xt)
    beta, noise_t, noise_s = schedule.beta(t, s), schedule.noise(t), schedule.noise(s)
    from_xt = ((1 - beta).sqrt() * noise_s / noise_t).to(xt)  # report (42): √α_t·(1-ᾱ_s)/(1-ᾱ_t)
    from_x0 = (schedule.alpha_bar(s).sqrt() * beta / noise_t).to(xt)  # and √ᾱ_s·β/(1-ᾱ_t)
    return Normal(from_xt * xt + from_x0 * x0, schedule.beta_tilde(t, s).to(xt))


def _exact(t: Time, x: Float[Tensor, "B C L"]) -> Float[Tensor, "B 1 1"]:
    """t in float64 on the CPU, where β is computed without loss (some devices have no float64)."""
    return times(torch.as_tensor(t, dtype=torch.float64, device="cpu"), torch.empty(len(x)))[:, None, None]
