"""Morlet wavelets, and the family of them that runs through the book (chapter `morlet_data`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..checks import check_number
from ..shapes import Float
from .family import Family

__all__ = ["BenchmarkMorlet", "Morlet", "morlet"]


def morlet(
    x: Tensor,
    amplitude: Tensor | float = 1.0,
    frequency: Tensor | float = 1.0,
    width: Tensor | float = 1.0,
    shift: Tensor | float = 0.0,
    phase: Tensor | float = 0.0,
) -> Tensor:
    """Real Morlet wavelet: a cosine under a Gaussian window.

    ψ(x) = A · exp(-(x-b)²/2σ²) · cos(2πf(x-b) + φ), with amplitude A, frequency f (cycles per unit of x),
    width σ and shift b (units of x) and phase φ (radians). All arguments broadcast together.

    Source: the report's section 5.1 with b = φ = 0; PyWavelets' ``morl`` is A = σ = 1, f = 5/2π.

    >>> morlet(torch.tensor([0.0, 0.25]), frequency=2.0)
    tensor([ 1.0000, -0.9692])
    """
    d = x - shift
    return amplitude * torch.exp(-0.5 * (d / width) ** 2) * torch.cos(2 * math.pi * frequency * d + phase)


class Morlet(Family):
    """Morlet wavelets in the report's coordinates: any subset of the five parameters of `morlet` is free.

    An argument that is a pair (low, high) is a free parameter, a number is fixed. The defaults are the
    continuous family around the report's grid: A 0.5…1.5, f 5…25, σ 0.05…0.2 on [-1, 1].

    >>> Morlet(length=2000)
    Morlet(amplitude 0.5…1.5, frequency 5…25, width 0.05…0.2; 2000 samples on -1…1)
    >>> Morlet(amplitude=1.0, shift=(-0.5, 0.5), length=256).names
    ('frequency', 'width', 'shift')
    """

    def __init__(
        self,
        length: int = 128,
        domain: tuple[float, float] = (-1.0, 1.0),
        amplitude: float | tuple[float, float] = (0.5, 1.5),
        frequency: float | tuple[float, float] = (5.0, 25.0),
        width: float | tuple[float, float] = (0.05, 0.2),
        shift: float | tuple[float, float] = 0.0,
        phase: float | tuple[float, float] = 0.0,
    ):
        values = dict(amplitude=amplitude, frequency=frequency, width=width, shift=shift, phase=phase)
        self.fixed = {k: check_number(v, k) for k, v in values.items() if not isinstance(v, Sequence)}
        super().__init__({k: v for k, v in values.items() if isinstance(v, Sequence)}, length, domain)
        self.scale = "amplitude" if "amplitude" in self.names else None
        lowest, highest = (dict(zip(self.names, v.tolist(), strict=True)) | self.fixed for v in (self.low, self.high))
        if lowest["width"] <= 0:
            raise ValueError(f"The width must be positive, got {width}.")
        self._warn_above_nyquist(highest["frequency"])

    def formula(self, x: Float[Tensor, "L"], *params: Float[Tensor, "n 1"]) -> Float[Tensor, "n L"]:
        return morlet(x, **self.fixed, **dict(zip(self.names, params, strict=True)))


class BenchmarkMorlet(Family):
    """The family that runs through the book: ψ(x) = exp(-u²/2)·cos(wu), u = (x-b)/s, 128 samples on [-4, 4].

    Shift b ~ U(-2, 2), width s ~ U(0.4, 1), centre frequency w ~ U(4, 7) (radians per width); amplitude 1.
    As a `Morlet` it has σ = s and f = w/2πs, but its distribution is a box only in its own coordinates (b, s, w).
    Power 0.0769 a sample.
    """

    def __init__(
        self,
        length: int = 128,
        b: tuple[float, float] = (-2.0, 2.0),
        s: tuple[float, float] = (0.4, 1.0),
        w: tuple[float, float] = (4.0, 7.0),
    ):
        super().__init__(dict(b=b, s=s, w=w), length, (-4.0, 4.0))
        if self.low[1] <= 0:
            raise ValueError(f"The width s must be positive, got {s}.")
        self._warn_above_nyquist(float(self.high[2] / (2 * math.pi * self.low[1])))

    def formula(self, x: Tensor, b: Tensor, s: Tensor, w: Tensor) -> Tensor:  # type: ignore[override]
        return morlet(x, frequency=w / (2 * math.pi * s), width=s, shift=b)


ALL: tuple[Callable[[], Family], ...] = (BenchmarkMorlet, Morlet)
