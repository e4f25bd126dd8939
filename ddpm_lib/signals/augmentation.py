"""Augmentation: more signals from those that are there, by changes that ought not to matter.

A change keeps the distribution of a family if changed signals are again draws of the family; then it adds nothing
false. The benchmark's wavelets are even, and they stand as often left as right: `Reverse` keeps their distribution
exactly. `Shift` pushes some of them over the edge of the box; `Scale` and `Negate` make signals that the family does
not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_callable, check_count, check_interval, check_number, check_tensor
from ..shapes import Bool, Float
from .source import Source, identity, name_of

__all__ = ["Augmented", "Negate", "Reverse", "Scale", "Shift"]


Transform = Callable[[Float[Tensor, "n C L"], torch.Generator | None], Float[Tensor, "n C L"]]
"""(x0, generator) → x0 changed; all that is random comes from the generator."""


@dataclass(frozen=True)
class Reverse:
    """Time reversal, x(l) → x(L-1-l), of a share p of the signals.

    >>> Reverse(p=1.0)(torch.tensor([[[1.0, 2.0, 3.0]]]), None)
    tensor([[[3., 2., 1.]]])
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        check_number(self.p, "The share of signals that are reversed", 0.0, 1.0)

    def __call__(self, x0: Float[Tensor, "n C L"], generator: torch.Generator | None = None) -> Float[Tensor, "n C L"]:
        return torch.where(_some(self.p, x0, generator), x0.flip(-1), x0)


@dataclass(frozen=True)
class Negate:
    """The other sign, x → -x, for a share p of the signals.

    >>> Negate(p=1.0)(torch.tensor([[[1.0, -2.0]]]), None)
    tensor([[[-1.,  2.]]])
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        check_number(self.p, "The share of signals whose sign changes", 0.0, 1.0)

    def __call__(self, x0: Float[Tensor, "n C L"], generator: torch.Generator | None = None) -> Float[Tensor, "n C L"]:
        return torch.where(_some(self.p, x0, generator), -x0, x0)


@dataclass(frozen=True)
class Scale:
    """Another amplitude: x → a·x, a ~ U(low, high) for each signal.

    >>> Scale(2.0, 2.1)(torch.ones(1, 1, 2)).round(decimals=0)
    tensor([[[2., 2.]]])
    """

    low: float = 0.8
    high: float = 1.2

    def __post_init__(self) -> None:
        check_interval("The interval of amplitudes", (self.low, self.high))

    def __call__(self, x0: Float[Tensor, "n C L"], generator: torch.Generator | None = None) -> Float[Tensor, "n C L"]:
        u = torch.rand(len(x0), 1, 1, generator=generator).to(x0)
        return (self.low + (self.high - self.low) * u) * x0


@dataclass(frozen=True)
class Shift:
    """Moved by a whole number of samples from -most to most, all equally likely, around the ends of the grid.

    >>> Shift(0)(torch.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[1., 2., 3.]]])
    """

    most: int = 8

    def __post_init__(self) -> None:
        check_count(self.most, "The greatest shift", 0)

    def __call__(self, x0: Float[Tensor, "n C L"], generator: torch.Generator | None = None) -> Float[Tensor, "n C L"]:
        length = x0.shape[-1]
        by = torch.randint(-self.most, self.most + 1, (len(x0), 1, 1), generator=generator).to(x0.device)
        return x0.gather(-1, ((torch.arange(length, device=x0.device) - by) % length).expand_as(x0))


class Augmented:
    """A source of signals, each of which is changed at random whenever it is drawn.

    Args:
        source: what the signals come from.
        transforms: functions (x0, generator) → x0 of the same shape, applied one after the other.

    >>> from ddpm_lib import BenchmarkMorlet, Finite
    >>> training = Finite(BenchmarkMorlet().sample(250, torch.Generator().manual_seed(0))[0])
    >>> more = Augmented(training, Reverse(), Shift(8))
    >>> more
    Augmented(Finite(250 signals of shape (1, 128)), Reverse(p=0.5), Shift(most=8))
    >>> more.sample(4, torch.Generator().manual_seed(0))[0].shape
    torch.Size([4, 1, 128])
    """

    def __init__(self, source: Source, *transforms: Transform):
        if not transforms:
            raise ValueError("An augmented source needs at least one transform, got none.")
        for transform in transforms:
            check_callable(transform, 2, "A transform is a function of (x0, generator)")
        self.source, self.transforms = source, transforms
        self.names, self.length = source.names, source.length

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n C L"], Float[Tensor, "n P"]]:
        """Draw n signals and change them: (x0, params); the parameters are those before the change."""
        x0, params = self.source.sample(n, generator)
        for transform in self.transforms:
            changed = transform(x0, generator)
            check_tensor(changed, "What a transform returns", *x0.shape)
            x0 = changed
        return x0, params

    def identity(self) -> str:
        """That of the source, and the names of the transforms."""
        return " then ".join([identity(self.source), *map(name_of, self.transforms)])

    def __repr__(self) -> str:
        return f"Augmented({', '.join(map(repr, (self.source, *self.transforms)))})"


def _some(p: float, x0: Float[Tensor, "n C L"], generator: torch.Generator | None) -> Bool[Tensor, "n 1 1"]:
    """True for a share p of the signals."""
    return (torch.rand(len(x0), 1, 1, generator=generator) < p).to(x0.device)


ALL = (Reverse, Negate, Scale, Shift)
