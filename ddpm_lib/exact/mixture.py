"""The exact denoiser of several families at once, which is not given the family (chapter `other_functions`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion.denoiser import Prediction
from ..diffusion.schedules import Schedule
from ..shapes import Float, Time
from ..signals.mixture import Mixture
from .family import FamilyOracle
from .finite import weighted_covariance

__all__ = ["MixtureOracle"]


class MixtureOracle(nn.Module):
    """The exact denoiser of a `Mixture`: the families' own posterior means, each as likely as it explains x_t.

    E[x_0|x_t] = Σ_k p(k|x_t)·E[x_0|x_t, k] with p(k|x_t) ∝ p(x_t|k), the evidence of family k: the integral of the
    likelihood over its box, which `FamilyOracle` computes anyway.

    Args:
        mixture: of families that each have an exact denoiser.
        schedule: the noise schedule.
        quadrature: cells, keep and resolution of each `FamilyOracle`.

    >>> from ddpm_lib import linear
    >>> from ddpm_lib.signals import Edges, Ricker
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

    def parts(self, xt: Float[Tensor, "B 1 L"], t: Time) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K 1 L"]]:
        """How likely each family is, and what it would say of x_0."""
        means, evidence = zip(*(one.with_evidence(xt, t) for one in self._known()), strict=True)
        return torch.stack(evidence, 1).softmax(1).to(xt.dtype), torch.stack(means, 1)

    def weights(self, xt: Float[Tensor, "B 1 L"], t: Time) -> Float[Tensor, "B K"]:
        """p(k | x_t): how likely each family is."""
        return self.parts(xt, t)[0]

    def forward(self, xt: Float[Tensor, "B 1 L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """The posterior mean, at times 0 < t ≤ T."""
        x0 = torch.einsum("bk,bkcl->bcl", *self.parts(xt, t))
        return Prediction.from_x0(x0, xt, *self.schedule.at(t, xt)[1:])

    def covariance(self, xt: Float[Tensor, "B 1 L"], t: Time) -> Float[Tensor, "B L L"]:
        """Cov[x_0 | x_t]: the mean of the families' covariances, and how far apart their means are."""
        weights, means = self.parts(xt, t)
        within = torch.stack([one.covariance(xt, t) for one in self._known()], 1)
        return torch.einsum("bk,bkij->bij", weights, within) + weighted_covariance(weights, means.flatten(2))

    def _known(self) -> list[FamilyOracle]:
        return list(self.oracles)  # type: ignore[arg-type]


ALL = (MixtureOracle,)
