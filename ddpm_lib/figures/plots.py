"""The figures that more than one chapter draws, in the book's one visual language.

A colour has one meaning everywhere: the signal, the noise (and what is noisy), the model, the exact answer, the best
linear denoiser. The five can be distinguished by readers who are colour-blind, and by their line styles in print.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["EXACT", "LINEAR", "MODEL", "NOISE", "SIGNAL", "curves", "loss_by_t", "losses", "panels", "style"]


SIGNAL = "#0072B2"
"""Clean signals, and what is known of them."""


NOISE = "#9A9A9A"
"""Noise, and what is noisy."""


MODEL = "#D55E00"
"""Outputs of a network."""


EXACT = "#111111"
"""The exact answer."""


LINEAR = "#009E73"
"""The best linear denoiser."""


def style() -> None:
    """Set the book's look, and leave out of a PNG what would change it from one machine to another."""
    plt.rcParams.update({
        "figure.dpi": 110, "figure.figsize": (7.2, 2.6), "figure.constrained_layout.use": True,
        "font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.alpha": 0.25, "lines.linewidth": 1.4, "legend.frameon": False,
    })  # fmt: skip
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is not None and "InlineBackend" not in shell.config:
        shell.run_line_magic("matplotlib", "inline")
        shell.run_line_magic("config", "InlineBackend.print_figure_kwargs = {'metadata': {'Software': None}}")


def panels(rows: int, columns: int, height: float = 1.3, width: float = 7.2, **kwargs: Any) -> tuple[Figure, Any]:
    """A grid of small axes without ticks, (rows, columns): for many signals at one glance."""
    fig, axes = plt.subplots(rows, columns, figsize=(width, height * rows), squeeze=False, **kwargs)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    return fig, axes


def curves(ax: Axes, x: Tensor, signals: Tensor | Sequence[Tensor], color: str = SIGNAL, **kwargs: Any) -> None:
    """Draw one signal (L,) or several (n, L) over positions x (L,)."""
    y = torch.stack(list(signals)) if not isinstance(signals, Tensor) else signals
    ax.plot(x, y.reshape(-1, y.shape[-1]).T, color=color, **kwargs)


def losses(ax: Axes, values: Tensor, floor: float, linear: float | None = None, window: int = 50) -> None:
    """Training loss over steps, smoothed over `window` steps, with the exact floor and the best linear denoiser."""
    smooth = values.unfold(0, window, 1).mean(1)
    ax.plot(torch.arange(len(values)), values, color=MODEL, alpha=0.2, linewidth=0.6)
    ax.plot(torch.arange(window - 1, len(values)), smooth, color=MODEL, label=f"U-Net, mean of {window} steps")
    if linear is not None:
        ax.axhline(linear, color=LINEAR, linestyle="--", label=f"best linear denoiser, {linear:.3g}")
    ax.axhline(floor, color=EXACT, linestyle=":", label=f"exact floor, {floor:.3g}")
    ax.set(yscale="log", xlabel="step", ylabel="L_simple")
    ax.legend()


def loss_by_t(ax: Axes, t: Tensor, groups: dict[str, tuple[Tensor, str]]) -> None:
    """Loss against t on logarithmic axes: name → (loss at each t, colour)."""
    for name, (values, color) in groups.items():
        ax.plot(t, values, "o-", color=color, markersize=3, label=name)
    ax.set(xscale="log", yscale="log", xlabel="t", ylabel="mean (ε - ε̂)²")
    ax.legend()
