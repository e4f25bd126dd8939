"""A family of signals: a formula, a box of parameters, a distribution on the box (chapter `morlet_data`).

A family knows three things: how to draw parameters, how to turn parameters into signals, and on which
grid of positions the signals live. Everything exact in this book (the best possible loss, the distribution of
the samples) is computed from these three.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from ..checks import check_count, check_interval, check_signals
from ..shapes import Float
from .source import digest

__all__ = ["Family"]


class Family:
    """A distribution on a box of parameters and a formula that turns parameters into signals.

    Subclass it, give ``box`` (name → (low, high)) and write ``formula``; parameters are drawn uniformly
    and independently from the box, in the family's own coordinates. Where one of them multiplies the whole
    signal, ``scale`` names it, and the exact denoiser integrates it in closed form.

    Args:
        box: for each free parameter its interval, low < high. The order is the order of the columns.
        length: number of samples L ≥ 2.
        domain: first and last position of the grid.

    Raises:
        ValueError: an empty box, an inverted or non-finite interval, a length below 2.

    >>> from ddpm_lib import BenchmarkMorlet
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
            check_interval(f"Parameter {name!r}", interval)
        check_interval("The domain", domain)
        check_count(length, "The length", 2, 10**7)
        self.names = tuple(box)
        self.low = torch.tensor([low for low, _ in box.values()])
        self.high = torch.tensor([high for _, high in box.values()])
        self.length = length
        # in float64 first: the last digits of float32's linspace differ from one processor to another
        self.x = torch.linspace(*domain, length, dtype=torch.float64).float()

    def formula(self, x: Float[Tensor, "L"], *params: Float[Tensor, "n 1"]) -> Float[Tensor, "n L"]:
        """Signal values at positions x, for each parameter of n signals."""
        raise NotImplementedError(f"{type(self).__name__} needs a method formula(x, {', '.join(self.names)}).")

    def render(self, params: Float[Tensor, "n P"]) -> Float[Tensor, "n 1 L"]:
        """Parameters → signals."""
        x = self.x.to(params)
        return self.formula(x, *params[:, :, None].unbind(1))[:, None, :]

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 1 L"], Float[Tensor, "n P"]]:
        """Draw n signals: (x0, params). The generator is a CPU generator."""
        check_count(n, "The number of signals")
        params = self.low + (self.high - self.low) * torch.rand(n, len(self.names), generator=generator)
        return check_signals(self.render(params), "What the formula gives", "n"), params

    def identity(self) -> str:
        """What it prints, and what it draws: computed in float64, so that it is the same on every processor."""
        params = self.sample(8, torch.Generator().manual_seed(0))[1].double()
        return f"{self!r} {digest((1e3 * self.render(params)).round().long())}"

    def grid(self, cells: int) -> tuple[Float[Tensor, "K P"], Float[Tensor, "P"]]:
        """About `cells` cells that cover the box: their middles and their size.

        A cell is as long in each direction as the signal takes to change by the same amount (mean square,
        over the box), so a direction that the signal is sensitive to is cut finer.
        """
        check_count(cells, "The number of cells", high=10**6)
        theta = self.sample(256, torch.Generator().manual_seed(0))[1]
        jacobian = torch.func.vmap(torch.func.jacfwd(lambda p: self.render(p[None]).flatten()))(theta)
        extent = (self.high - self.low) * jacobian.square().sum(1).mean(0).sqrt()
        moves = extent.gt(0) & extent.isfinite()
        if not moves.all():
            name = self.names[int(moves.int().argmin())]
            raise ValueError(
                f"No signal changes when {name} changes a little, so it cannot be recovered from one: let the formula "
                "depend on it smoothly. An edge is averaged over the cell of each sample, as families.Edges does."
            )
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
        check_interval = zip(self.names, self.low.tolist(), self.high.tolist(), strict=True)
        box = ", ".join(f"{name} {low:g}…{high:g}" for name, low, high in check_interval)
        return f"{type(self).__name__}({box}; {self.length} samples on {self.x[0]:g}…{self.x[-1]:g})"
