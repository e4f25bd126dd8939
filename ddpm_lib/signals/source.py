"""What signals are drawn from."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Source", "WithBox", "signal_shape"]


class Source(Protocol):
    """What a recipe draws its signals from: a `Family`, a `Finite` set, either of them `Noisy` or `Augmented`, ...

    Anything with these three serves. The parameters say what a signal is; a network may be told them as conditions.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the P parameters of a signal."""
        ...

    @property
    def length(self) -> int:
        """Samples of a signal, L."""
        ...

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n signals: (x0 (n, C, L), params (n, P)). The generator is a CPU generator."""
        ...


@runtime_checkable
class WithBox(Source, Protocol):
    """A source whose parameters lie in a box: a network can be told them as conditions."""

    low: Tensor
    high: Tensor


def signal_shape(source: Source) -> tuple[int, int]:
    """(C, L) of the signals of a source."""
    _, channels, length = source.sample(1, torch.Generator())[0].shape
    return channels, length
