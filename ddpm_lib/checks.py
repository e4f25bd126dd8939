"""What comes in is looked at before any work: one clear sentence instead of a traceback from deep inside torch."""

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
    """Return x, or say in one sentence why it is not a batch of signals (B, C, L)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of shape ({first}, C, L), got {type(x).__name__}.")
    if x.ndim != 3 or 0 in x.shape:
        raise ValueError(f"{name} must have shape ({first}, C, L), none of them 0, got {tuple(x.shape)}.")
    return _moderate(x, name)


def check_tensor(x: Tensor, name: str, *shape: int | str, like: Tensor | None = None, values: bool = True) -> Tensor:
    """Return x, or say in one sentence why it is not a tensor of this shape; letters stand for any size but 0.

    Args:
        like: a weight; x must be of its type, unless autocast sees to that.
        values: whether to look at the numbers too.
    """
    said = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of shape {said}, got {type(x).__name__}.")
    fits = x.ndim == len(shape) and all(
        n == m if isinstance(m, int) else n for n, m in zip(x.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} must have shape {said}, none of them 0, got {tuple(x.shape)}.")
    if like is not None:
        same_type(x, like, name)
    return _moderate(x, name) if values else x


def check_conditions(cond: Tensor, shape: Sequence[int | str] = ("B", "P")) -> Tensor:
    """Return conditions, numbers or NaN where nothing is asked, or say in one sentence why they are none."""
    known = cond.nan_to_num() if isinstance(cond, Tensor) and cond.is_floating_point() else cond
    check_tensor(torch.where(cond.isinf(), cond, known) if known is not cond else cond, "Conditions", *shape)
    return cond


def same_type(x: Tensor, like: Tensor, name: str) -> None:
    """Refuse signals of another type than the weights or signals that they will meet."""
    if x.dtype != like.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"{name} is {x.dtype} and must be {like.dtype}: convert one of them with .to().")


def _moderate(x: Tensor, name: str) -> Tensor:
    """Return x if it is floating point, finite and of a sensible size."""
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x.dtype}; convert it with .float().")
    if x.dtype == torch.float16:
        raise TypeError(f"{name} must not be float16, which ends at 65504; convert it with .float().")
    if holds(x.abs() <= LARGEST):
        return x
    rows = (~torch.isfinite(x)).reshape(len(x), -1).any(1)
    if rows.any():
        what = "signals" if x.ndim == 3 else "entries"
        raise ValueError(f"{name} must be finite, but {int(rows.sum())} of {len(x)} {what} hold NaN or infinity.")
    raise ValueError(f"{name} must lie within ±{LARGEST:g}, got values up to {x.abs().max():.3g}; scale the signals.")


def precise(x: Tensor) -> Tensor:
    """x in float32 at least, for distances: torch knows none between bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def holds(condition: Tensor) -> bool:
    """Whether a condition holds everywhere; True inside torch.compile, export and vmap, where there are no values."""
    try:
        return torch.compiler.is_compiling() or bool(condition.all())
    except RuntimeError:
        return True


def number(x: Any, name: str, low: float = -LARGEST, high: float = LARGEST, above: bool = False) -> float:
    """x as a float, or one sentence why it is not a number from low (or above it) to high. NaN is none, nor is True."""
    try:
        value = math.nan if isinstance(x, (bool, str)) else float(x)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several or complex numbers
        value = math.nan
    if not low <= value <= high or (above and value == low):
        bound = f"above {low:g}, at most" if above else f"from {low:g} to"
        raise ValueError(f"{name} must be a number {bound} {high:g}, got {brief(x)}.")
    return value


def count(x: Any, name: str, low: int = 1, high: int = 10**9) -> int:
    """x, or one sentence why it is not an integer from low to high."""
    try:
        value = low - 1 if isinstance(x, (bool, Tensor)) else operator.index(x)
    except TypeError:
        value = low - 1
    if not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, got {brief(x)}.")
    return value


def reals(x: Any, name: str, dtype: torch.dtype | None = None, place: torch.device | str | None = None) -> Tensor:
    """x as a tensor of real numbers, integers as int64; or one sentence why it is none."""
    try:
        out = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a number or a tensor of numbers, got {brief(x)}.") from error
    if out.is_complex() or out.dtype == torch.bool:
        raise TypeError(f"{name} must hold real numbers, got {out.dtype}.")
    # from x itself: a float that became a float32 tensor first would keep seven digits
    return torch.as_tensor(x, dtype=dtype or (None if out.is_floating_point() else torch.long), device=place)


def together(what: str, *values: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors of real numbers as tensors, or one sentence why they are none or do not broadcast."""
    double = torch.float64  # of a number: beside a tensor it counts for no more than the number itself would
    out = tuple(
        reals(v, what) if isinstance(v, Tensor) else torch.tensor(number(v, what), dtype=double) for v in values
    )
    shapes = [tuple(v.shape) for v in out]
    try:
        torch.broadcast_shapes(*shapes)
    except RuntimeError as error:
        raise ValueError(f"{what} must broadcast with the others, got shapes {shapes}.") from error
    return out


def limits(what: str, interval: Any) -> None:
    """Refuse what is not a pair of finite numbers, low < high."""
    if not isinstance(interval, Sequence) or len(interval) != 2 or isinstance(interval, str):
        raise ValueError(f"{what} needs a pair (low, high), got {interval!r}.")
    # compared before they become floats, which a whole number may be too large for
    fit = all(isinstance(v, (int, float)) and abs(v) <= LARGEST for v in interval)
    numbers = interval if fit else (math.nan, math.nan)
    low, high = torch.tensor(numbers, dtype=torch.float32)  # as they will be kept: two doubles may be one float
    if not -LARGEST <= low < high <= LARGEST:
        raise ValueError(f"{what} needs finite limits low < high, got ({interval[0]}, {interval[1]}).")


def moved(extent: Tensor, names: Sequence[str]) -> Tensor:
    """Return how far each parameter of a family moves its signals, or say which one does not."""
    for name, distance in zip(names, extent.tolist(), strict=True):
        if not 0 < distance < math.inf:
            raise ValueError(
                f"No signal changes when {name} changes a little, so it cannot be told from a signal: let the formula "
                "depend on it smoothly. An edge is averaged over the cell of each sample, as families.Edges does."
            )
    return extent


def brief(x: Any) -> str:
    return f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) and x.ndim else f"{x!r:.60}"


def times(
    t: Tensor | float, x: Tensor, place: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """t as (B,), on x's device unless told otherwise; a single number serves the whole batch."""
    t = reals(t, "t", dtype, place or x.device)
    if t.ndim == 0:
        t = t.expand(len(x))
    if t.shape != (len(x),):
        raise ValueError(f"t must be one number or have shape ({len(x)},), one time a signal; got {tuple(t.shape)}.")
    return t


def takes(function: Any, n: int, what: str) -> None:
    """Refuse what is not called with n arguments; `what` says what is needed."""
    try:
        inspect.signature(function).bind(*range(n))
    except (TypeError, ValueError) as error:  # ValueError: it is built in and does not tell its arguments
        name = getattr(function, "__qualname__", None) or repr(function)
        raise TypeError(f"{what}, got {name:.60}.") from error


def step_variance(variance: Any, schedule: Any, t: Any, s: Any, xt: Tensor | None = None) -> Tensor:
    """σ² of the step from t to s in float64, of a function of (schedule, t, s) or of what has one `given` x_t."""
    if xt is not None and hasattr(variance, "given"):
        variance = variance.given(xt)
    takes(variance, 3, "A variance is a function of (schedule, t, s), or for the bound a table")
    sigma2 = reals(variance(schedule, t, s), "σ²").double()
    shapes = [(), tuple(getattr(t, "shape", ())), *([] if xt is None else [tuple(xt.shape), (len(xt), 1, 1)])]
    if tuple(sigma2.shape) not in shapes or not holds((sigma2 >= 0) & (sigma2 <= LARGEST**2)):
        raise ValueError(f"σ² must lie in 0…{LARGEST**2:g} and be one number, or one for each signal or sample.")
    return sigma2


def exact_times(t: Tensor | float, x: Tensor) -> Tensor:
    """t as (B, 1, 1) in float64 on the CPU, where β is computed without loss."""
    return times(t, x, "cpu", torch.float64)[:, None, None]


def same_shape(x: Tensor, y: Tensor, what: str) -> None:
    """Refuse y, the second of `what`, unless it is finite and shaped as x is."""
    if not isinstance(y, Tensor) or x.shape != y.shape:
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{what} must have the same shape, got {tuple(x.shape)} and {got}.")
    _moderate(y, what)


def schedule_of(denoiser: Any) -> Any:
    """The schedule of a denoiser."""
    schedule = getattr(denoiser, "schedule", None)
    if not hasattr(schedule, "log_alpha_bar") or not callable(denoiser):
        raise TypeError(f"A denoiser is a function with a schedule; this {type(denoiser).__name__} is none.")
    return schedule


def noised(xt: Tensor, t: Tensor | float, schedule: Any, like: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """What a denoiser is asked: x_t (B, C, L), of the type of `like`, at 0 < t ≤ T → t (B,), √ᾱ_t, √(1-ᾱ_t)."""
    check_signals(xt, "xt")
    if like is not None:
        same_type(xt, like, "xt")
    t = times(t, xt)
    a, s = schedule(t, xt.dtype)
    if not holds(s > 0):
        raise ValueError(f"A denoiser needs times in 0 < t <= {schedule.T}, got {t.min()}: there is no noise at 0.")
    return t, a, s
