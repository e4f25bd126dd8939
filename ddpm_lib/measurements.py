"""What an instrument says of a signal, y = A·x_0 + σ·n, and the exact law of the parameters given that.

Chapter `repairs`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import LARGEST, brief, check_signals, check_tensor, count, number
from .denoising import noise_time
from .quadrature import FamilyOracle
from .schedules import Schedule
from .signals import Family

__all__ = ["Measurement", "posterior_given"]


@dataclass(frozen=True)
class Measurement:
    """y = A·x_0 + σ·n: what an instrument says of a signal.

    Args:
        matrix: A, (M, L), no row zero everywhere.
        sigma: standard deviation of its noise, at least 0.01.

    Raises:
        ValueError: nothing is measured, a matrix that is not finite, a noise that is too small or not finite.

    >>> seen = Measurement.samples(torch.arange(128) % 4 == 0, sigma=0.05)
    >>> seen(torch.ones(2, 1, 128)).shape
    torch.Size([2, 32])
    """

    matrix: Tensor
    sigma: float

    def __post_init__(self) -> None:
        a = self.matrix
        sound = isinstance(a, Tensor) and a.ndim == 2 and len(a) and a.is_floating_point() and a.dtype != torch.float16
        if not sound or not (a.abs() <= LARGEST).all() or not (a != 0).any(1).all():
            raise ValueError(
                "A measurement needs a finite matrix (M, L) with M >= 1 and no row of zeros, "
                f"got {brief(a)}: with nothing measured there is nothing to agree with."
            )
        number(self.sigma, "The noise of a measurement", 0.01)

    @classmethod
    def samples(cls, mask: Tensor, sigma: float) -> Measurement:
        """The samples where mask (L,) is True; the others are missing."""
        if not isinstance(mask, Tensor) or mask.ndim != 1 or mask.dtype != torch.bool:
            got = f"{mask.dtype} and {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"A mask must be a boolean tensor of shape (L,), got {got}.")
        if not mask.any():
            raise ValueError("A mask must be True where a sample is known, and it is False everywhere: nothing is.")
        return cls(torch.eye(len(mask))[mask], sigma)

    @classmethod
    def low_pass(cls, length: int, width: float, sigma: float, stride: int = 1) -> Measurement:
        """Gaussian means of `width` samples around every `stride`-th sample; at the ends of what is there."""
        at = torch.arange(count(length, "The length", high=10**5), dtype=torch.float32)
        number(width, "The width of a mean", 0.01), count(stride, "The stride")
        weight = torch.exp(-((at[::stride, None] - at) ** 2) / (2 * width**2))
        return cls(weight / weight.sum(1, keepdim=True), sigma)

    def __call__(self, x0: Tensor) -> Tensor:
        """A·x_0 of signals (B, 1, L): (B, M), without noise."""
        if check_signals(x0).shape[1:] != (1, self.matrix.shape[1]):
            raise ValueError(f"This measures signals of shape (1, {self.matrix.shape[1]}), got {tuple(x0.shape[1:])}.")
        return x0[:, 0] @ self.matrix.to(x0).T

    def check(self, y: Tensor, x: Tensor | None = None) -> Tensor:
        """Return y (B, M), of x's type where x is given; or say why it is not what this measures, of x (B, 1, L)."""
        check_tensor(y, "y", "B", len(self.matrix))
        if x is None:
            return y
        if len(x) != len(y):
            raise ValueError(f"There are {len(y)} measurements for {len(x)} signals: give one for each.")
        return y.to(x)

    def observe(self, x0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """y (B, M): A·x_0 with noise."""
        clean = self(x0)
        return clean + self.sigma * torch.randn(clean.shape, generator=generator).to(clean)


class _Seen(Family):
    """A family as an instrument sees it: the parameters are the same, a signal is A·ψ."""

    def __init__(self, family: Family, matrix: Tensor):
        limits = zip(family.names, family.low.tolist(), family.high.tolist(), strict=True)
        self.whole, self.matrix, self.scale = family, matrix, family.scale
        # single samples need no others: the formula is asked at their positions only
        self.single = bool(((matrix == 1).sum(1) == 1).all() and ((matrix != 0).sum(1) == 1).all())
        self.positions = family.x[matrix.argmax(1)] if self.single else family.x
        super().__init__({name: (low, high) for name, low, high in limits}, len(matrix), (0.0, 1.0))

    def formula(self, x: Tensor, *params: Tensor) -> Tensor:
        seen = self.whole.formula(self.positions.to(params[0]), *params)
        return seen if self.single else seen @ self.matrix.to(params[0]).T


def posterior_given(
    family: Family,
    measurement: Measurement,
    y: Tensor,
    schedule: Schedule,
    n: int,
    generator: torch.Generator | None = None,
    moves: int = 200,
) -> Tensor:
    """n exact draws of the parameters given y (B, M): (B, n, P). ``family.render`` turns them into signals.

    A measurement with noise is a noised signal: y is x_t/√ᾱ_t of the family that the instrument sees, at the time at
    which √(1-ᾱ)/√ᾱ = σ. So `FamilyOracle` answers, whatever A is. Its draws are middles of cells, and of a law that
    is wide and needs fine cells it keeps too few. So each draw then makes some moves of Metropolis et al. 1953, which
    leave the exact law as it is: half of them to anywhere in the box, half of them near by.

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
    measurement.check(y)
    count(moves, "The number of moves", 0, 10**6)
    t = noise_time(schedule, measurement.sigma)
    a, _ = schedule(torch.tensor([t]), y.dtype)
    # finer than for a mean: draws are middles of cells, and an instrument may see one signal far better than another
    seen = _Seen(family, measurement.matrix)
    exact = FamilyOracle(seen, schedule, keep=1024, resolution=0.5)
    theta = exact.posterior(a * y[:, None], t, n, generator)
    return _moved(theta, seen, y, measurement.sigma, moves, generator)


@torch.no_grad()
def _moved(
    theta: Tensor, seen: Family, y: Tensor, sigma: float, moves: int, generator: torch.Generator | None
) -> Tensor:
    """Metropolis' moves of draws (B, n, P), which leave the law of the parameters given y as it is."""
    size, low, high = seen.high - seen.low, seen.low, seen.high

    def misfit(theta: Tensor) -> Tensor:
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
