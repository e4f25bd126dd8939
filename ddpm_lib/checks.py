"""What comes in is checked once, at the door: an error that helps, instead of a traceback from deep inside torch."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_signals"]

LARGEST = 1e12
"""No signal, and no number, is larger: its square, and its square over a tiny noise, would leave float32."""


def check_signals(x: Tensor, name: str = "x0", first: str = "B") -> Tensor:
    """Return x; raise unless it is a finite batch of signals (B, C, L)."""
    return check_tensor(x, name, first, "C", "L")


def check_tensor(x: Tensor, name: str, *shape: int | str) -> Tensor:
    """Return x; raise unless it is a finite tensor of this shape, in which letters stand for any size but 0."""
    wanted = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of shape {wanted}, got {type(x).__name__}.")
    sizes = zip(x.shape, shape, strict=False)
    if x.ndim != len(shape) or 0 in x.shape or any(isinstance(m, int) and n != m for n, m in sizes):
        raise ValueError(f"{name} must have shape {wanted}, none of them 0, got {tuple(x.shape)}.")
    if not x.is_floating_point() or x.dtype == torch.float16:  # which ends at 65504
        raise TypeError(f"{name} must be floating point, and not float16, got {x.dtype}; convert it with .float().")
    if not (x.abs() <= LARGEST).all():
        rows = int((~torch.isfinite(x)).reshape(len(x), -1).any(1).sum())
        what = f"hold NaN or infinity in {rows} of {len(x)} rows" if rows else f"reach {x.abs().max():.3g}"
        raise ValueError(f"{name} must be finite and lie within ±{LARGEST:g}, but its values {what}.")
    return x


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32 at least, for distances: torch knows none between bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def check_number(x: Any, name: str, low: float = -LARGEST, high: float = LARGEST, above: bool = False) -> float:
    """Return x as a float; raise unless it is a number from low (or above it) to high. NaN is not one, nor is True."""
    try:
        value = math.nan if isinstance(x, (bool, str)) else float(x)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several or complex numbers
        value = math.nan
    if not low <= value <= high or (above and value == low):
        bound = f"above {low:g}, at most" if above else f"from {low:g} to"
        raise ValueError(f"{name} must be a number {bound} {high:g}, got {describe(x)}.")
    return value


def check_count(x: Any, name: str, low: int = 1, high: int = 10**9) -> int:
    """Return x; raise unless it is an integer from low to high."""
    try:
        value = low - 1 if isinstance(x, (bool, Tensor)) else operator.index(x)
    except TypeError:
        value = low - 1
    if not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, got {describe(x)}.")
    return value


def check_interval(what: str, interval: Any) -> None:
    """Raise unless this is a pair of finite numbers, low < high."""
    if not isinstance(interval, Sequence) or len(interval) != 2 or isinstance(interval, str):
        raise ValueError(f"{what} needs a pair (low, high), got {interval!r}.")
    # compared before they become floats, which a whole number may be too large for
    fit = all(isinstance(v, (int, float)) and abs(v) <= LARGEST for v in interval)
    numbers = interval if fit else (math.nan, math.nan)
    low, high = torch.tensor(numbers, dtype=torch.float32)  # as they will be kept: two doubles may be one float
    if not -LARGEST <= low < high <= LARGEST:
        raise ValueError(f"{what} needs finite limits low < high, got ({interval[0]}, {interval[1]}).")


def check_callable(function: Any, n: int, what: str) -> None:
    """Raise unless a function can be called with n arguments; `what` says what is needed."""
    try:
        inspect.signature(function).bind(*range(n))
    except (TypeError, ValueError) as error:  # ValueError: it is built in and does not tell its arguments
        raise TypeError(f"{what}, got {describe(function)}.") from error


def describe(x: Any) -> str:
    """Say what was given, in a few words."""
    return f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) and x.ndim else f"{x!r:.60}"
