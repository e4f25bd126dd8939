"""What comes in is looked at before any work: one clear sentence instead of a traceback from deep inside torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_signals"]


def check_signals(x: Tensor, name: str = "x0", first: str = "B") -> Tensor:
    """Return x, or say in one sentence why it is not a batch of signals (B, C, L)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of shape ({first}, C, L), got {type(x).__name__}.")
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"{name} must have shape ({first}, C, L), none of them 0, got {tuple(x.shape)}.")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x.dtype}; convert it with .float().")
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).any(-1).any(-1).sum())
        raise ValueError(f"{name} must be finite, but {bad} of {len(x)} signals hold NaN or infinity.")
    return x


def times(
    t: Tensor | float, x: Tensor, place: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """t as (B,), on x's device unless told otherwise; a single number serves the whole batch."""
    t = torch.as_tensor(t, device=place or x.device, dtype=dtype)
    if t.ndim == 0:
        t = t.expand(len(x))
    if t.shape != (len(x),):
        raise ValueError(f"t must be one number or have shape ({len(x)},), one time a signal; got {tuple(t.shape)}.")
    return t


def exact_times(t: Tensor | float, x: Tensor) -> Tensor:
    """t as (B, 1, 1) in float64 on the CPU, where β is computed without loss."""
    return times(t, x, "cpu", torch.float64)[:, None, None]


def same_shape(x: Tensor, y: Tensor, what: str) -> None:
    if x.shape != y.shape:
        raise ValueError(f"{what} must have the same shape, got {tuple(x.shape)} and {tuple(y.shape)}.")
