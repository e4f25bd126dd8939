"""Families of one-dimensional signals: a formula, a box of parameters, a law on the box (chapter `morlet_data`).

A family knows three things: how to draw parameters, how to turn parameters into signals, and on which
grid of positions the signals live. Everything exact in this book (the best possible loss, the law of
the samples) is computed from these three.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .checks import check_signals, check_tensor, count, holds, limits, moved, number, reals, together

__all__ = ["BenchmarkMorlet", "Family", "Morlet", "morlet"]


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
    psi = wavelet(*together("An argument of a wavelet", reals(x, "x"), amplitude, frequency, width, shift, phase))
    if not holds(torch.isfinite(psi)):
        raise ValueError("A wavelet needs a width other than 0, and finite arguments.")
    return psi


def wavelet(x: Any, amplitude: Any = 1, frequency: Any = 1, width: Any = 1, shift: Any = 0, phase: Any = 0) -> Any:
    """`morlet` without a look at what comes in, for the formulas of families."""
    d = x - shift
    return amplitude * torch.exp(-0.5 * (d / width) ** 2) * torch.cos(2 * math.pi * frequency * d + phase)


class Family:
    """A law on a box of parameters and a formula that turns parameters into signals.

    Subclass it, give ``box`` (name → (low, high)) and write ``formula``; parameters are drawn uniformly
    and independently from the box, in the family's own coordinates. Where one of them multiplies the whole
    signal, ``scale`` names it, and the exact denoiser integrates it in closed form.

    Args:
        box: for each free parameter its interval, low < high. The order is the order of the columns.
        length: number of samples L ≥ 2.
        domain: first and last position of the grid.

    Raises:
        ValueError: an empty box, an inverted or non-finite interval, a length below 2.

    >>> family = BenchmarkMorlet()
    >>> x0, params = family.sample(5, torch.Generator().manual_seed(0))
    >>> x0.shape, params.shape, family.names
    (torch.Size([5, 1, 128]), torch.Size([5, 3]), ('b', 's', 'w'))
    """

    scale: str | None = None

    def __init__(self, box: Mapping[str, tuple[float, float]], length: int, domain: tuple[float, float]):
        if not isinstance(box, Mapping) or not box:
            raise ValueError("A family needs at least one free parameter, got an empty box.")
        for name, interval in box.items():
            limits(f"Parameter {name!r}", interval)
        limits("The domain", domain)
        count(length, "The length", 2, 10**7)
        self.names = tuple(box)
        self.low = torch.tensor([low for low, _ in box.values()])
        self.high = torch.tensor([high for _, high in box.values()])
        self.length = length
        # in float64 first: the last digits of float32's linspace differ from one processor to another
        self.x = torch.linspace(*domain, length, dtype=torch.float64).float()

    def formula(self, x: Tensor, *params: Tensor) -> Tensor:
        """Signal values at positions x (L,); each parameter has shape (n, 1). Returns (n, L)."""
        raise NotImplementedError(f"{type(self).__name__} needs a method formula(x, {', '.join(self.names)}).")

    def render(self, params: Tensor) -> Tensor:
        """Parameters (n, P) → signals (n, 1, L)."""
        check_tensor(params, f"Parameters {self.names}", "n", len(self.names))
        x = self.x.to(params)
        return self.formula(x, *params[:, :, None].unbind(1))[:, None, :]

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n signals: (x0 (n, 1, L), params (n, P)). The generator is a CPU generator."""
        count(n, "The number of signals")
        params = self.low + (self.high - self.low) * torch.rand(n, len(self.names), generator=generator)
        return check_signals(self.render(params), "What the formula gives", "n"), params

    def check_length(self, x: Tensor) -> None:
        """Refuse signals x (n, 1, L) that are not on this family's grid."""
        if x.shape[1:] != (1, self.length):
            raise ValueError(f"{self!r} has signals of shape (1, {self.length}), got {tuple(x.shape[1:])}.")

    def grid(self, cells: int) -> tuple[Tensor, Tensor]:
        """About `cells` cells that cover the box: their middles (K, P) and their size (P,).

        A cell is as long in each direction as the signal takes to change by the same amount (mean square,
        over the box), so a direction that the signal is sensitive to is cut finer.
        """
        count(cells, "The number of cells", high=10**6)
        theta = self.sample(256, torch.Generator().manual_seed(0))[1]
        jacobian = torch.func.vmap(torch.func.jacfwd(lambda p: self.render(p[None]).flatten()))(theta)
        extent = moved((self.high - self.low) * jacobian.square().sum(1).mean(0).sqrt(), self.names)
        for k in range(len(extent), 0, -1):  # a direction narrower than a cell has two; the k widest share the rest
            wide = extent.topk(k).values
            edge = (wide.log().sum() - math.log(cells / 2 ** (len(extent) - k))).div(k).exp()
            if wide[-1] >= edge:
                break
        n = (extent / edge).ceil().clamp(min=2).long()
        size = (self.high - self.low) / n
        axes = [lo + h * (torch.arange(k) + 0.5) for lo, h, k in zip(self.low, size, n.tolist(), strict=True)]
        return torch.cartesian_prod(*axes).view(-1, len(n)), size

    def _warn_above_nyquist(self, frequency: float) -> None:
        nyquist = 0.5 / float(self.x[1] - self.x[0])
        if frequency > nyquist:
            warnings.warn(
                f"The highest frequency {frequency:.3g} lies above the Nyquist frequency {nyquist:.3g} of "
                f"{self.length} samples on this grid: such signals alias. Use a greater length.",
                stacklevel=3,
            )

    def __repr__(self) -> str:
        limits = zip(self.names, self.low.tolist(), self.high.tolist(), strict=True)
        box = ", ".join(f"{name} {low:g}…{high:g}" for name, low, high in limits)
        return f"{type(self).__name__}({box}; {self.length} samples on {self.x[0]:g}…{self.x[-1]:g})"


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
        self.fixed = {k: number(v, k) for k, v in values.items() if not isinstance(v, Sequence)}
        super().__init__({k: v for k, v in values.items() if isinstance(v, Sequence)}, length, domain)
        self.scale = "amplitude" if "amplitude" in self.names else None
        lowest, highest = (dict(zip(self.names, v.tolist(), strict=True)) | self.fixed for v in (self.low, self.high))
        if lowest["width"] <= 0:
            raise ValueError(f"The width must be positive, got {width}.")
        self._warn_above_nyquist(highest["frequency"])

    def formula(self, x: Tensor, *params: Tensor) -> Tensor:
        return wavelet(x, **self.fixed, **dict(zip(self.names, params, strict=True)))


class BenchmarkMorlet(Family):
    """The family that runs through the book: ψ(x) = exp(-u²/2)·cos(wu), u = (x-b)/s, 128 samples on [-4, 4].

    Shift b ~ U(-2, 2), width s ~ U(0.4, 1), centre frequency w ~ U(4, 7) (radians per width); amplitude 1.
    As a `Morlet` it has σ = s and f = w/2πs, but its law is a box only in its own coordinates (b, s, w).
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
        return wavelet(x, frequency=w / (2 * math.pi * s), width=s, shift=b)


ALL: tuple[Callable[[], Family], ...] = (BenchmarkMorlet, Morlet)
