"""What an instrument says of a signal, y = A·x_0 + σ·n, and the exact law of the parameters given that (chapter 21)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import LARGEST, brief, check_signals, number
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
        if mask.ndim != 1 or mask.dtype != torch.bool:
            raise TypeError(f"A mask must be boolean and of shape (L,), got {mask.dtype} and {tuple(mask.shape)}.")
        return cls(torch.eye(len(mask))[mask], sigma)

    @classmethod
    def low_pass(cls, length: int, width: float, sigma: float, stride: int = 1) -> Measurement:
        """Gaussian means of `width` samples around every `stride`-th sample; at the ends of what is there."""
        at = torch.arange(length, dtype=torch.float32)
        weight = torch.exp(-((at[::stride, None] - at) ** 2) / (2 * width**2))
        return cls(weight / weight.sum(1, keepdim=True), sigma)

    def __call__(self, x0: Tensor) -> Tensor:
        """A·x_0 of signals (B, 1, L): (B, M), without noise."""
        if check_signals(x0).shape[1:] != (1, self.matrix.shape[1]):
            raise ValueError(f"This measures signals of shape (1, {self.matrix.shape[1]}), got {tuple(x0.shape[1:])}.")
        return x0[:, 0] @ self.matrix.to(x0).T

    def observe(self, x0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """y (B, M): A·x_0 with noise."""
        clean = self(x0)
        return clean + self.sigma * torch.randn(clean.shape, generator=generator).to(clean)


class _Seen(Family):
    """A family as an instrument sees it: the parameters are the same, a signal is A·ψ."""

    def __init__(self, family: Family, matrix: Tensor):
        limits = zip(family.names, family.low.tolist(), family.high.tolist(), strict=True)
        self.whole, self.matrix, self.scale = family, matrix, family.scale
        super().__init__({name: (low, high) for name, low, high in limits}, len(matrix), (0.0, 1.0))

    def formula(self, x: Tensor, *params: Tensor) -> Tensor:
        return self.whole.formula(self.whole.x.to(params[0]), *params) @ self.matrix.to(params[0]).T


def posterior_given(
    family: Family,
    measurement: Measurement,
    y: Tensor,
    schedule: Schedule,
    n: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """n exact draws of the parameters given y (B, M): (B, n, P). ``family.render`` turns them into signals.

    A measurement with noise is a noised signal: y is x_t/√ᾱ_t of the family that the instrument sees, at the time at
    which √(1-ᾱ)/√ᾱ = σ. So `FamilyOracle` answers, whatever A is.

    Raises:
        ValueError: a noise that the schedule does not reach; fewer than two measured numbers; a family whose
            exact denoiser is not known.
    """
    t = noise_time(schedule, measurement.sigma)
    a, _ = schedule(torch.tensor([t]), y.dtype)
    # finer than for a mean: draws are middles of cells, and an instrument may see one signal far better than another
    exact = FamilyOracle(_Seen(family, measurement.matrix), schedule, keep=1024, resolution=0.5)
    return exact.posterior(a * y[:, None], t, n, generator)
