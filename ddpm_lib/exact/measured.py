"""The exact distribution of the parameters given a measurement (chapter `repairs`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_tensor
from ..diffusion.measurement import Measurement
from ..diffusion.schedules import Schedule, noise_time
from ..shapes import Float
from ..signals.family import Family
from .family import FamilyOracle

__all__ = ["posterior_given"]


class _Seen(Family):
    """A family as an instrument sees it: the parameters are the same, a signal is A·ψ."""

    def __init__(self, family: Family, matrix: Float[Tensor, "M L"]):
        limits = zip(family.names, family.low.tolist(), family.high.tolist(), strict=True)
        self.whole, self.matrix, self.scale = family, matrix, family.scale
        # single samples need no others: the formula is evaluated at their positions only
        self.single = bool(((matrix == 1).sum(1) == 1).all() and ((matrix != 0).sum(1) == 1).all())
        self.positions = family.x[matrix.argmax(1)] if self.single else family.x
        super().__init__({name: (low, high) for name, low, high in limits}, len(matrix), (0.0, 1.0))

    def formula(self, x: Float[Tensor, "M"], *params: Float[Tensor, "n 1"]) -> Float[Tensor, "n M"]:
        seen = self.whole.formula(self.positions.to(params[0]), *params)
        return seen if self.single else seen @ self.matrix.to(params[0]).T


def posterior_given(
    family: Family,
    measurement: Measurement,
    y: Float[Tensor, "B M"],
    schedule: Schedule,
    n: int,
    generator: torch.Generator | None = None,
    moves: int = 200,
) -> Float[Tensor, "B n P"]:
    """n exact draws of the parameters given y. ``family.render`` turns them into signals.

    A measurement with noise is a noised signal: y is x_t/√ᾱ_t of the family that the instrument sees, at the time at
    which √(1-ᾱ)/√ᾱ = σ. So `FamilyOracle` answers, whatever A is. Its draws are middles of cells, and of a distribution
    that is wide and needs fine cells it keeps too few. So each draw then makes some moves of Metropolis et al. 1953,
    which leave the exact distribution as it is: half of them to anywhere in the box, half of them near by.

    Args:
        moves: how many; 0 for the draws of the quadrature.

    Raises:
        ValueError: a measurement of signals of another length; a noise that the schedule does not reach; fewer than two
            measured numbers; a family whose exact denoiser is not known.
    """
    length = measurement.matrix.shape[1]
    if length != family.length:
        raise ValueError(
            f"This measures signals of {length} samples, but those of {family!r} have {family.length}: "
            "make the mask as long as the signals."
        )
    check_tensor(y, "y", "B", len(measurement.matrix))
    t = noise_time(schedule, measurement.sigma)
    a, _ = schedule(torch.tensor([t]), y.dtype)
    # finer than for a mean: draws are middles of cells, and an instrument may see one signal far better than another
    seen = _Seen(family, measurement.matrix)
    exact = FamilyOracle(seen, schedule, keep=1024, resolution=0.5)
    theta = exact.posterior(a * y[:, None], t, n, generator)
    return _moved(theta, seen, y, measurement.sigma, moves, generator)


@torch.no_grad()
def _moved(
    theta: Float[Tensor, "B n P"],
    seen: Family,
    y: Float[Tensor, "B M"],
    sigma: float,
    moves: int,
    generator: torch.Generator | None,
) -> Float[Tensor, "B n P"]:
    """Metropolis' moves of draws, which leave the distribution of the parameters given y as it is."""
    size, low, high = seen.high - seen.low, seen.low, seen.high

    def misfit(theta: Float[Tensor, "B n P"]) -> Float[Tensor, "B n"]:
        signals = seen.render(theta.flatten(0, 1)).view(*theta.shape[:2], -1)
        return (signals - y[:, None].to(signals)).square().sum(2) / (2 * sigma**2)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    now = misfit(theta)
    for move in range(moves):
        if move % 2:  # near by: at a distance of any order of magnitude, from the size of the box down to 1e-4 of it
            reach = 10 ** (-4 * uniform(*theta.shape[:2], 1))
            there = theta + reach * size * torch.randn(theta.shape, generator=generator)
        else:
            there = low + size * uniform(*theta.shape)
        inside = ((there >= low) & (there <= high)).all(2)
        then = misfit(torch.where(inside[..., None], there, theta))
        taken = inside & (uniform(*theta.shape[:2]).log() < now - then)
        theta, now = torch.where(taken[..., None], there, theta), torch.where(taken, then, now)
    return theta
