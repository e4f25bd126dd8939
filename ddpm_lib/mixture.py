"""Several families at once: signals of one or the other, and the exact denoiser that is not told which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_signals, count, noised
from .diffusion import Prediction
from .oracle import weighted_covariance
from .quadrature import FamilyOracle
from .schedules import Schedule
from .signals import Family

__all__ = ["Mixture", "MixtureOracle"]


class Mixture:
    """Signals of several families, each as likely as the others: first a family is drawn, then a signal of it.

    Args:
        families: two or more, of the same length.

    >>> from ddpm_lib.families import Edges, Ricker
    >>> x0, which = Mixture([Ricker(), Edges()]).sample(4, torch.Generator().manual_seed(0))
    >>> x0.shape, which.flatten().tolist()
    (torch.Size([4, 1, 128]), [0.0, 1.0, 1.0, 0.0])
    """

    names = ("family",)

    def __init__(self, families: Sequence[Family]):
        known = isinstance(families, Sequence) and all(isinstance(one, Family) for one in families)
        if not known or len(families) < 2 or len({one.length for one in families}) > 1:
            raise ValueError("A mixture is made of two or more families of signals of one length, in a list.")
        self.families, self.length = tuple(families), families[0].length

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n signals: (x0 (n, 1, L), the number of the family of each (n, 1))."""
        count(n, "The number of signals")
        which = torch.randint(len(self.families), (n,), generator=generator)
        x0 = torch.empty(n, 1, self.length)
        for k, family in enumerate(self.families):
            rows = (which == k).nonzero()[:, 0]
            if len(rows):
                x0[rows] = family.sample(len(rows), generator)[0]
        return x0, which[:, None].to(x0)

    def __repr__(self) -> str:
        return f"Mixture({', '.join(map(repr, self.families))})"


class MixtureOracle(nn.Module):
    """The exact denoiser of a `Mixture`: the families' own posterior means, each as likely as it explains x_t.

    E[x_0|x_t] = Σ_k p(k|x_t)·E[x_0|x_t, k] with p(k|x_t) ∝ p(x_t|k), the evidence of family k: the integral of the
    likelihood over its box, which `FamilyOracle` computes anyhow.

    Args:
        mixture: of families that each have an exact denoiser.
        schedule: the noise schedule.
        quadrature: cells, keep and resolution of each `FamilyOracle`.

    >>> from ddpm_lib import linear
    >>> from ddpm_lib.families import Edges, Ricker
    >>> exact = MixtureOracle(Mixture([Ricker(), Edges()]), linear(), cells=1024)
    >>> x0, _ = Edges().sample(1, torch.Generator().manual_seed(0))
    >>> exact.weights(x0, 1)[0].tolist()  # with next to no noise there is no doubt
    [0.0, 1.0]
    """

    def __init__(self, mixture: Mixture, schedule: Schedule, **quadrature: Any):
        super().__init__()
        if not isinstance(mixture, Mixture):
            raise TypeError(f"A MixtureOracle is that of a Mixture, got {type(mixture).__name__}.")
        self.schedule = schedule
        self.oracles = nn.ModuleList(FamilyOracle(one, schedule, **quadrature) for one in mixture.families)

    def parts(self, xt: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """How likely each family is, (B, K), and what it would say of x_0, (B, K, 1, L)."""
        noised(xt, t, self.schedule)
        means, evidence = zip(*(one.with_evidence(xt, t) for one in self._known()), strict=True)
        return torch.stack(evidence, 1).softmax(1).to(xt.dtype), torch.stack(means, 1)

    def weights(self, xt: Tensor, t: Tensor | float) -> Tensor:
        """p(k | x_t), (B, K): how likely each family is."""
        return self.parts(xt, t)[0]

    def forward(self, xt: Tensor, t: Tensor | float, cond: None = None) -> Prediction:
        """xt (B, 1, L), t (B,), 0 < t ≤ T → Prediction."""
        _, a, s = noised(xt, t, self.schedule)
        x0 = torch.einsum("bk,bkcl->bcl", *self.parts(xt, t))
        return Prediction(x0, (xt - a * x0) / s)

    def covariance(self, xt: Tensor, t: Tensor | float) -> Tensor:
        """Cov[x_0 | x_t], (B, L, L): the mean of the families' covariances, and how far apart their means are."""
        weights, means = self.parts(check_signals(xt, "xt"), t)
        within = torch.stack([one.covariance(xt, t) for one in self._known()], 1)
        return torch.einsum("bk,bkij->bij", weights, within) + weighted_covariance(weights, means.flatten(2))

    def _known(self) -> list[FamilyOracle]:
        return list(self.oracles)  # type: ignore[arg-type]


ALL = (MixtureOracle,)
