"""What signals are drawn from."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..shapes import Float

__all__ = ["Source", "WithBox", "signal_shape"]


class Source(Protocol):
    """What a recipe draws its signals from: a `Family`, a `Finite` set, either of them `Noisy` or `Augmented`, ...

    Anything with these three serves. The parameters say what a signal is; a network may take them as conditions.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the P parameters of a signal."""
        ...

    @property
    def length(self) -> int:
        """Samples of a signal, L."""
        ...

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n C L"], Float[Tensor, "n P"]]:
        """Draw n signals: (x0, params). The generator is a CPU generator."""
        ...


@runtime_checkable
class WithBox(Source, Protocol):
    """A source whose parameters lie in a box: a network can take them as conditions."""

    low: Float[Tensor, "P"]
    high: Float[Tensor, "P"]


@runtime_checkable
class Identified(Source, Protocol):
    """A source that says itself what it is known by."""

    def identity(self) -> str:
        """A text that changes with whatever is drawn, and is the same on every processor."""
        ...


def identity(source: Source) -> str:
    """What a source is known by: what it says of itself, or else what it prints and the first signals that it draws.

    Of those the thousandths count: the last digits of float32 differ from one processor to another.
    """
    if isinstance(source, Identified):
        return source.identity()
    drawn, _ = source.sample(8, torch.Generator().manual_seed(0))
    return f"{source!r} {digest((1e3 * drawn).round().long())}"


def name_of(function: Any) -> str:
    """A name that stays when a function moves to another file; of an object that is called, what it prints."""
    if isinstance(function, partial):
        return f"{name_of(function.func)}({function.args}, {sorted(function.keywords.items())})"
    return getattr(function, "__qualname__", None) or repr(function)


def digest(x: Tensor) -> str:
    """Ten digits that change with any bit of a tensor."""
    return hashlib.sha256(x.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:10]


def signal_shape(source: Source) -> tuple[int, int]:
    """(C, L) of the signals of a source."""
    _, channels, length = source.sample(1, torch.Generator())[0].shape
    return channels, length
