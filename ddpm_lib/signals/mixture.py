"""Several families at once: signals of one or the other (chapter `other_functions`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_count
from ..shapes import Float
from .family import Family

__all__ = ["Mixture"]


class Mixture:
    """Signals of several families, each as likely as the others: first a family is drawn, then a signal of it.

    Args:
        families: two or more, of the same length.

    >>> from ddpm_lib.signals import Edges, Ricker
    >>> x0, which = Mixture([Ricker(), Edges()]).sample(4, torch.Generator().manual_seed(0))
    >>> x0.shape, which.flatten().tolist()
    (torch.Size([4, 1, 128]), [0.0, 1.0, 1.0, 0.0])
    """

    names = ("family",)

    def __init__(self, families: Sequence[Family]):
        known = isinstance(families, Sequence) and all(isinstance(one, Family) for one in families)
        if not known or len(families) < 2 or len({one.length for one in families}) > 1:
            raise ValueError("A mixture is made of two or more families of signals of one length, in a list.")
        self.families, self.length = tuple(families), families[0].length

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 1 L"], Float[Tensor, "n 1"]]:
        """Draw n signals: (x0, the number of the family of each)."""
        check_count(n, "The number of signals")
        which = torch.randint(len(self.families), (n,), generator=generator)
        x0 = torch.empty(n, 1, self.length)
        for k, family in enumerate(self.families):
            rows = (which == k).nonzero()[:, 0]
            if len(rows):
                x0[rows] = family.sample(len(rows), generator)[0]
        return x0, which[:, None].to(x0)

    def identity(self) -> str:
        """That of all families."""
        return " or ".join(family.identity() for family in self.families)

    def __repr__(self) -> str:
        return f"Mixture({', '.join(map(repr, self.families))})"
