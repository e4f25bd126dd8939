"""How the times of a batch are drawn (chapters `training` and `variance_and_likelihood`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..shapes import Float, Int
from .schedules import Schedule

__all__ = ["LossHistory", "draw_times"]


def draw_times(
    n: int,
    schedule: Schedule,
    generator: torch.Generator | None = None,
    density: Float[Tensor, "T"] | None = None,
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
    """Times t in 1…T and the weights that keep a mean over them unbiased.

    Args:
        density: how often each t is drawn, up to a factor; uniform by default, and then every weight is 1. Otherwise
            weight = (1/T)/p(t): importance sampling (Nichol & Dhariwal 2021, sec. 3.3).
    """
    if density is None:
        return torch.randint(1, schedule.T + 1, (n,), generator=generator), torch.ones(n)
    p = density / density.sum()
    k = torch.multinomial(p, n, replacement=True, generator=generator)
    return k + 1, 1 / (schedule.T * p[k])


class LossHistory:
    """How often to draw each t so that an estimate of Σ_t L_t scatters least: p_t ∝ √E[L_t²], eq. (18).

    The mean square is that of the last values of each t, ten in the paper; t is uniform until every t has as many.

    Args:
        T: number of steps.
        keep: values of each t that are kept.

    >>> history = LossHistory(T=3, keep=1)
    >>> history.density() is None
    True
    >>> history.add(torch.tensor([1, 2, 3]), torch.tensor([1.0, -2.0, 3.0]))
    >>> history.density()
    tensor([1., 2., 3.], dtype=torch.float64)
    """

    def __init__(self, T: int, keep: int = 10):
        self.values = torch.zeros(T + 1, keep, dtype=torch.float64)  # row t is that of t; there is none at 0
        self.counts = torch.zeros(T + 1, dtype=torch.long)

    def add(self, t: Int[Tensor, "B"], values: Float[Tensor, "B"]) -> None:
        """Keep L_t of some t in 1…T."""
        for k, value in zip(t.tolist(), values.detach().tolist(), strict=True):
            self.values[k, self.counts[k] % self.values.shape[1]] = value
            self.counts[k] += 1

    def density(self) -> Float[Tensor, "T"] | None:
        """What `draw_times` takes; None, which is uniform, until every t has been seen often enough."""
        if int(self.counts[1:].min()) < self.values.shape[1]:
            return None
        root = self.values[1:].square().mean(1).sqrt()
        return root.clamp(min=1e-3 * float(root.mean()) + 1e-30)  # no t is given up for good
