"""Linear measurements of a signal with noise, y = A·x_0 + σ·n (chapter `repairs`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..checks import check_number, check_tensor
from ..shapes import Bool, Float

__all__ = ["Measurement"]


@dataclass(frozen=True)
class Measurement:
    """A linear measurement of a signal with noise, y = A·x_0 + σ·n.

    Args:
        matrix: A, no row zero everywhere.
        sigma: standard deviation of its noise, at least 0.01.

    Raises:
        ValueError: nothing is measured, a matrix that is not finite, a noise that is too small or not finite.

    >>> seen = Measurement.samples(torch.arange(128) % 4 == 0, sigma=0.05)
    >>> seen(torch.ones(2, 1, 128)).shape
    torch.Size([2, 32])
    """

    matrix: Float[Tensor, "M L"]
    sigma: float

    def __post_init__(self) -> None:
        check_tensor(self.matrix, "The matrix of a measurement", "M", "L")
        check_number(self.sigma, "The noise of a measurement", 0.01)
        if not (self.matrix != 0).any(1).all():
            raise ValueError("A measurement needs a matrix without a row of zeros: such a row measures nothing.")

    @cached_property
    def selects(self) -> bool:
        """Whether A·Aᵀ = 1, as of single samples: then what was measured can be put back into a signal."""
        gram = self.matrix @ self.matrix.T
        return bool(((gram - torch.eye(len(gram)).to(gram)).abs() < 1e-4).all())

    @classmethod
    def samples(cls, mask: Bool[Tensor, "L"], sigma: float) -> Measurement:
        """The samples where mask is True; the others are missing."""
        mask = torch.as_tensor(mask)
        if mask.dtype != torch.bool:
            raise TypeError(f"A mask must be a boolean tensor of shape (L,), got {mask.dtype}.")
        if not mask.any():
            raise ValueError("A mask must be True where a sample is known, and it is False everywhere: nothing is.")
        return cls(torch.eye(len(mask))[mask], sigma)

    @classmethod
    def low_pass(cls, length: int, width: float, sigma: float, stride: int = 1) -> Measurement:
        """Gaussian means of `width` samples around every `stride`-th sample; at the ends of what is there."""
        at = torch.arange(length, dtype=torch.float32)
        weight = torch.exp(-((at[::stride, None] - at) ** 2) / (2 * width**2))
        return cls(weight / weight.sum(1, keepdim=True), sigma)

    def __call__(self, x0: Float[Tensor, "B 1 L"]) -> Float[Tensor, "B M"]:
        """A·x_0, without noise."""
        if x0.shape[1:] != (1, self.matrix.shape[1]):
            raise ValueError(f"This measures signals of shape (1, {self.matrix.shape[1]}), got {tuple(x0.shape[1:])}.")
        return x0[:, 0] @ self.matrix.to(x0).T

    def residual(self, y: Float[Tensor, "B M"], x0: Float[Tensor, "B 1 L"]) -> Float[Tensor, "B M"]:
        """y - A·x_0: what signals leave of measurements unexplained."""
        found = self(x0)
        if y.shape != found.shape:
            raise ValueError(f"Measurements must have shape {tuple(found.shape)}, a row each, got {tuple(y.shape)}.")
        return y.to(x0) - found

    def observe(self, x0: Float[Tensor, "B 1 L"], generator: torch.Generator | None = None) -> Float[Tensor, "B M"]:
        """y: A·x_0 with noise."""
        clean = self(x0)
        return clean + self.sigma * torch.randn(clean.shape, generator=generator).to(clean)
