"""Which times a sampler visits: T > … > 0, steps + 1 of them (chapters `sampling` and `grids_and_solvers`)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..checks import check_count, check_number
from ..diffusion.schedules import Schedule
from ..shapes import Float

__all__ = ["even_log_snr", "even_steps", "karras"]


def even_steps(schedule: Schedule, steps: int) -> list[float]:
    """Times T > … > 0 at equal distances, rounded to whole steps: steps + 1 of them."""
    return [float(t) for t in torch.linspace(schedule.T, 0, _checked(steps, schedule) + 1).round()]


def even_log_snr(schedule: Schedule, steps: int, tilt: float = 0.0, start: float | None = None) -> list[float]:
    """Times T > … > 1 at equal distances in log-SNR (real numbers), then 0: steps + 1 of them.

    Args:
        tilt: 0…10; how much denser the steps are where there is signal: their density over log-SNR is ᾱ^tilt.
        start: the first of the times, T by default; 1.01 at least.
    """
    check_number(tilt, "tilt", 0.0, 10.0)
    begin = schedule.T if start is None else check_number(start, "start", min(1.01, schedule.T), schedule.T)
    first, last = schedule.log_snr(torch.tensor([begin, 1], dtype=torch.float64)).tolist()
    fine = torch.linspace(first, last, 4001, dtype=torch.float64)
    passed = torch.cumulative_trapezoid(torch.sigmoid(fine) ** tilt, fine)  # sigmoid(log-SNR) is ᾱ
    passed = torch.cat([passed.new_zeros(1), passed])
    even = np.linspace(0, passed[-1].item(), _checked(steps, schedule))
    return _times(schedule, torch.from_numpy(np.interp(even, passed, fine)), begin)


def karras(schedule: Schedule, steps: int, rho: float = 7.0) -> list[float]:
    """Times T > … > 1 at equal distances in σ^(1/ρ), σ = √((1-ᾱ)/ᾱ) (Karras et al. 2022, eq. 5), then 0."""
    check_number(rho, "rho", 0.5, 100.0)
    ends = (-schedule.log_snr(torch.tensor([schedule.T, 1])) / (2 * rho)).exp()
    grid = torch.linspace(ends[0].item(), ends[1].item(), _checked(steps, schedule), dtype=torch.float64)
    return _times(schedule, -2 * rho * grid.log())


def _times(schedule: Schedule, log_snr: Float[Tensor, "steps"], begin: float | None = None) -> list[float]:
    return [float(begin or schedule.T), *schedule.at_log_snr(log_snr[1:]).tolist(), 0.0]


def _checked(steps: int, schedule: Schedule) -> int:
    return check_count(steps, "The number of sampling steps", high=schedule.T)


TILT = 0.3
"""Of the grid that `sample` lays out by itself: chapter `grids_and_solvers` compares it with others."""


ALL = (even_steps, even_log_snr, karras)
