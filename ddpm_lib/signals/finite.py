"""A finite set of signals instead of a family: a training set, recordings, the report's sixty.

Chapters `morlet_data` and `best_denoiser`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_count, check_signals, check_tensor
from ..shapes import Float
from .batches import stream
from .source import Source, digest, identity
from .wavelets import Morlet

__all__ = ["Finite", "report_grid"]


class Finite:
    """A finite set of signals, each equally likely: a training set, the report's grid, your own recordings.

    Args:
        signals: floating point and finite.
        params: what each signal is; the row number by default.
        names: the names of the columns of ``params``.

    Raises:
        TypeError, ValueError: signals that are not floating point, finite and of shape (K, C, L).

    >>> mine = Finite(torch.randn(10, 1, 64))
    >>> mine.sample(3, torch.Generator().manual_seed(0))[0].shape
    torch.Size([3, 1, 64])
    """

    def __init__(
        self,
        signals: Float[Tensor, "K C L"],
        params: Float[Tensor, "K P"] | None = None,
        names: Sequence[str] = ("index",),
    ):
        self.signals = check_signals(signals, "signals", "K")
        rows = torch.arange(len(signals))[:, None].to(signals.dtype) if params is None else params
        self.params = check_tensor(rows, "params", "K", "P")
        if self.params.shape != (len(signals), len(names)):
            shape = len(signals), len(names)
            needed = f"{shape[0]} signals and {shape[1]} names need params of shape {shape}"
            raise ValueError(f"{needed}, got {tuple(rows.shape)}.")
        self.names, self.length, self.origin = tuple(names), signals.shape[-1], ""

    @classmethod
    def drawn(cls, source: Source, n: int, *key: int) -> Finite:
        """n signals of a source, drawn once, with the generator that `stream` makes of these numbers.

        >>> from ddpm_lib import BenchmarkMorlet
        >>> Finite.drawn(BenchmarkMorlet(), 250, 0, 1)
        Finite(250 signals of shape (1, 128))
        """
        drawn = cls(source.sample(n, stream(*key))[0])
        drawn.origin = f"{n} drawn with {key} from {identity(source)}"
        return drawn

    def identity(self) -> str:
        """Where the signals come from, if that is known: their last digits differ from one processor to another."""
        return self.origin or f"{self!r} {digest(self.signals)}"

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n C L"], Float[Tensor, "n P"]]:
        """Draw n signals with replacement: (x0, params)."""
        check_count(n, "The number of signals")
        k = torch.randint(len(self.signals), (n,), generator=generator)
        return self.signals[k], self.params[k]

    def __repr__(self) -> str:
        return f"Finite({len(self.signals)} signals of shape {tuple(self.signals.shape[1:])})"


def report_grid(length: int = 2000) -> Finite:
    """The report's data set: the 60 wavelets A·cos(2πft)·exp(-t²/2σ²) on t ∈ [-1, 1].

    A ∈ {0.5, 1, 1.5}, f ∈ {5, 10, 15, 20, 25}, σ ∈ {0.05, 0.1, 0.15, 0.2}; 2000 samples in the report.

    >>> report_grid()
    Finite(60 signals of shape (1, 2000))
    """
    family = Morlet(length)
    values = ([0.5, 1.0, 1.5], [5.0, 10, 15, 20, 25], [0.05, 0.1, 0.15, 0.2])
    grid = torch.cartesian_prod(*map(torch.tensor, values))
    return Finite(family.render(grid), grid, family.names)


ALL = (report_grid,)
