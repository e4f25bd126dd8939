"""The forward process, and its posterior (chapters `forward_process` and `reverse_process`).

Shapes: signals (B, C, L); times t (B,), 0 = data, T = noise. Notation of Ho et al. 2020; the numbers in
brackets are the equations of the report.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import check_signals, exact_times, same_shape, times
from .schedules import Schedule

__all__ = ["Normal", "q_posterior", "q_sample", "q_step"]


class Normal(NamedTuple):
    """N(mean, var·I): mean (B, C, L), var (B, 1, 1)."""

    mean: Tensor
    var: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + √var·noise, report (4)."""
        same_shape(self.mean, noise, "the mean and the noise")
        return self.mean + self.var.sqrt() * noise


def q_step(x_prev: Tensor, t: Tensor | int, eps: Tensor, schedule: Schedule) -> Tensor:
    """One forward step, x_t = √(1-β_t)·x_{t-1} + √β_t·ε_t with fresh ε_t: report (1) and (5).

    Args:
        x_prev, eps: (B, C, L).
        t: 1…T, one number or (B,): the step that is taken, from t-1 to t.
    """
    check_signals(x_prev, "x_prev")
    same_shape(x_prev, eps, "x_prev and eps")
    beta = schedule.beta(exact_times(t, x_prev))
    keep, add = ((1 - beta).sqrt().to(x_prev), beta.sqrt().to(x_prev))
    return keep * x_prev + add * eps


def q_sample(x0: Tensor, t: Tensor | int, eps: Tensor, schedule: Schedule) -> Tensor:
    """The jump x_t = √ᾱ_t·x_0 + √(1-ᾱ_t)·ε: report (9), Ho et al. (4).

    Args:
        x0: (B, C, L).
        eps: (B, C, L), ~ N(0, I).
        t: 0…T, one number or (B,).

    Raises:
        TypeError, ValueError: x0 not floating point, finite and (B, C, L); shapes that differ; t outside 0…T.

    >>> x0 = torch.ones(2, 1, 4)
    >>> from ddpm_lib import linear
    >>> q_sample(x0, torch.tensor([0, 1000]), torch.zeros_like(x0), linear())[:, 0, 0]
    tensor([1.0000, 0.0064])
    """
    check_signals(x0)
    same_shape(x0, eps, "x0 and eps")
    a, s = schedule(times(t, x0), x0.dtype)
    return a * x0 + s * eps


def q_posterior(
    x0: Tensor, xt: Tensor, t: Tensor | float, schedule: Schedule, s: Tensor | float | None = None
) -> Normal:
    """q(x_s | x_t, x_0) = N(μ̃, β̃·I), report (40), (42), (43); Ho et al. (6), (7), for any s < t.

    Args:
        x0, xt: (B, C, L).
        t, s: times, one number or (B,), 0 ≤ s < t; s is t - 1 where it is not given.

    Returns:
        Normal with mean μ̃ (B, C, L) and variance β̃ (B, 1, 1); at s = 0 it is a point mass at x0.
    """
    same_shape(check_signals(x0), xt, "x0 and xt")
    t = exact_times(t, xt)
    s = t - 1 if s is None else exact_times(s, xt)
    if not (s < t).all():
        raise ValueError("The posterior steps back in time: s must be smaller than t.")
    beta, ab_s = schedule.beta(t, s), schedule.alpha_bar(s)
    noise_t, noise_s = (-torch.expm1(schedule.log_alpha_bar(v)) for v in (t, s))  # 1-ᾱ without cancellation
    from_xt = (1 - beta).sqrt() * noise_s / noise_t
    from_x0 = ab_s.sqrt() * beta / noise_t
    from_xt, from_x0, var = (v.to(xt.dtype).to(xt.device) for v in (from_xt, from_x0, noise_s / noise_t * beta))
    return Normal(from_xt * xt + from_x0 * x0, var)
