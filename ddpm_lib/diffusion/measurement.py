"""What an instrument says of a signal, y = A·x_0 + σ·n (chapter `repairs`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import LARGEST, brief, check_signals, check_tensor, count, number

__all__ = ["Measurement"]


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
