"""Other families of signals, on the same footing as the wavelets: a formula, a box.

Each has at most three parameters, so its exact denoiser is known, but for `TwoMorlets`, which has six. Positions run
over [-4, 4].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .family import Family
from .wavelets import morlet

__all__ = ["Chirp", "DampedSine", "Edges", "PulsePair", "Ricker", "Sawtooth", "TwoMorlets"]


DOMAIN = (-4.0, 4.0)


Pair = tuple[float, float]


class Ricker(Family):
    """The Mexican hat A·(1-u²)·exp(-u²/2), u = (x-b)/s: the second derivative of a Gaussian, in seismology a wavelet.

    Its amplitude A is free, and integrated in closed form by the exact denoiser.
    """

    scale = "A"

    def __init__(self, length: int = 128, A: Pair = (0.5, 1.5), b: Pair = (-2.0, 2.0), s: Pair = (0.2, 0.8)):
        super().__init__({"A": A, "b": b, "s": s}, length, DOMAIN)
        _positive(s, "width s")

    def formula(self, x: Tensor, A: Tensor, b: Tensor, s: Tensor) -> Tensor:  # type: ignore[override]
        u = (x - b) / s
        return A * (1 - u**2) * torch.exp(-(u**2) / 2)


class Chirp(Family):
    """exp(-x²/4)·cos(2π(f·x + r·x²/2) + φ): the frequency at x is f + r·x cycles per unit."""

    def __init__(self, length: int = 128, f: Pair = (0.5, 1.5), r: Pair = (-0.3, 0.3), phase: Pair = (0.0, math.pi)):
        super().__init__({"f": f, "r": r, "phase": phase}, length, DOMAIN)
        self._warn_above_nyquist(f[1] + 4 * max(abs(r[0]), abs(r[1])))

    def formula(self, x: Tensor, f: Tensor, r: Tensor, phase: Tensor) -> Tensor:  # type: ignore[override]
        return torch.exp(-(x**2) / 4) * torch.cos(2 * math.pi * (f * x + r * x**2 / 2) + phase)


class DampedSine(Family):
    """exp(-d·(x-b))·sin(2πf·(x-b)) from x = b on, and 0 before: something is struck, and rings. It has a kink at b."""

    def __init__(self, length: int = 128, b: Pair = (-3.0, 0.0), f: Pair = (0.5, 1.5), d: Pair = (0.5, 1.5)):
        super().__init__({"b": b, "f": f, "d": d}, length, DOMAIN)
        _positive(d, "damping d")
        self._warn_above_nyquist(f[1])

    def formula(self, x: Tensor, b: Tensor, f: Tensor, d: Tensor) -> Tensor:  # type: ignore[override]
        since = (x - b).clamp(min=0)
        return torch.exp(-d * since) * torch.sin(2 * math.pi * f * since)


class PulsePair(Family):
    """Two Gaussian pulses of width s, the second upside down: exp(-u₋²/2) - exp(-u₊²/2), u± = (x-c±g/2)/s."""

    def __init__(self, length: int = 128, c: Pair = (-1.5, 1.5), g: Pair = (1.0, 4.0), s: Pair = (0.15, 0.4)):
        super().__init__({"c": c, "g": g, "s": s}, length, DOMAIN)
        _positive(s, "width s")

    def formula(self, x: Tensor, c: Tensor, g: Tensor, s: Tensor) -> Tensor:  # type: ignore[override]
        first, second = ((x - c + sign * g / 2) / s for sign in (1, -1))
        return torch.exp(-(first**2) / 2) - torch.exp(-(second**2) / 2)


class Edges(Family):
    """A box of height A from a to a + d, averaged over the cell of each sample, so that an edge may lie between two.

    Without the average the signal would not change while an edge moves from one sample to the next, and where the edge
    lies could not be recovered from it.
    """

    scale = "A"

    def __init__(self, length: int = 128, A: Pair = (0.5, 1.5), a: Pair = (-3.0, 0.0), d: Pair = (0.5, 2.5)):
        super().__init__({"A": A, "a": a, "d": d}, length, DOMAIN)
        _positive(d, "length d of the box")

    def formula(self, x: Tensor, A: Tensor, a: Tensor, d: Tensor) -> Tensor:  # type: ignore[override]
        cell = x[1] - x[0]

        def past(edge: Tensor) -> Tensor:  # share of the cell that lies behind the edge
            return ((x - edge) / cell + 0.5).clamp(0, 1)

        return A * (past(a) - past(a + d))


class Sawtooth(Family):
    """Falls from h to -h once a period p and jumps back, averaged over the cell of each sample as `Edges` is."""

    def __init__(self, length: int = 128, h: Pair = (0.3, 0.8), p: Pair = (1.5, 4.0), phase: Pair = (0.0, 1.0)):
        super().__init__({"h": h, "p": p, "phase": phase}, length, DOMAIN)
        _positive(p, "period p")

    scale = "h"

    def formula(self, x: Tensor, h: Tensor, p: Tensor, phase: Tensor) -> Tensor:  # type: ignore[override]
        half = (x[1] - x[0]) / 2

        def integral(x: Tensor) -> Tensor:  # of 1 - 2·frac, from a jump on: over whole periods it is 0
            share = torch.remainder(x / p + phase, 1.0)
            return p * (share - share**2)

        return h * (integral(x + half) - integral(x - half)) / (2 * half)


class TwoMorlets(Family):
    """The sum of two wavelets like the benchmark family's, one on each side. Six parameters: nothing is exact."""

    def __init__(self, length: int = 128):
        one: dict[str, Pair] = {"b": (-2.5, -0.5), "s": (0.3, 0.6), "w": (4.0, 7.0)}
        two: dict[str, Pair] = {**one, "b": (0.5, 2.5)}
        box = {f"{k}1": v for k, v in one.items()} | {f"{k}2": v for k, v in two.items()}
        super().__init__(box, length, DOMAIN)

    def formula(self, x: Tensor, *params: Tensor) -> Tensor:
        pairs = (params[:3], params[3:])
        return sum((morlet(x, frequency=w / (2 * math.pi * s), width=s, shift=b) for b, s, w in pairs), torch.zeros(()))


def _positive(interval: Pair, what: str) -> None:
    if not interval[0] > 0:
        raise ValueError(f"The {what} must be positive, got {interval}.")


ALL: tuple[Callable[[], Family], ...] = (Ricker, Chirp, DampedSine, PulsePair, Edges, Sawtooth, TwoMorlets)
