"""Noise schedules: how much of the signal is left after t of T steps (chapter `forward_process`).

A schedule is one table, ᾱ_t for t = 0…T with ᾱ_0 = 1: index 0 is the data. Everything else (α, β, the
signal-to-noise ratio) is computed from it. The table is kept as log ᾱ in float64, because β_t is a small
difference of two numbers close to 1: from a float32 table of ᾱ it would be off by one part in a thousand.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import check_count, check_number
from ..shapes import Float, Real, Shaped, Time

__all__ = ["LEFTOVER", "Schedule", "cosine", "linear", "log_linear", "noise_time", "quadratic", "sigmoid", "straight"]


LEFTOVER = 0.05
"""A schedule that leaves more than this share of the amplitude, √ᾱ_T, at t = T warns."""


class Schedule:
    """An immutable table of log ᾱ_t over t = 0…T.

    Args:
        log_alpha_bar: (T+1,), float; starts at 0 and decreases strictly.

    Raises:
        ValueError: T < 1, a table that is not finite, does not start at 0 or does not decrease.

    Warns:
        UserWarning: √ᾱ_T > `LEFTOVER`: x_T still holds signal, so sampling from N(0, I) starts wrong.

    >>> ho = linear(1000)
    >>> ho.T, f"{ho.alpha_bar(1000):.6e}", f"{ho.beta(1):.1e}"
    (1000, '4.035830e-05', '1.0e-04')
    """

    def __init__(self, log_alpha_bar: Tensor):
        table = torch.as_tensor(log_alpha_bar, dtype=torch.float64, device="cpu").detach().clone()
        if table.ndim != 1 or len(table) < 2 or table[0] != 0:
            raise ValueError(f"A schedule is T + 1 >= 2 values of log ᾱ, the first of them 0, got {_brief(table)}.")
        wrong = (~(table.diff() < 0) | table[1:].isinf()).nonzero()
        if len(wrong):
            t = int(wrong[0]) + 1
            raise ValueError(
                f"ᾱ must fall at every step and stay above 0 (0 < β < 1), but ᾱ_{t} = {table[t].exp():.6g} "
                f"comes after ᾱ_{t - 1} = {table[t - 1].exp():.6g}."
            )
        self._table = table
        self._cache: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        leftover = math.exp(0.5 * table[-1].item())
        if leftover > LEFTOVER:
            warnings.warn(
                f"At t = T = {self.T} this schedule still holds {leftover:.1%} of the signal's amplitude "
                f"(more than {LEFTOVER:.0%}): sampling from pure noise starts from the wrong distribution.",
                stacklevel=3,
            )

    @classmethod
    def from_betas(cls, betas: Tensor) -> Schedule:
        """From β_1…β_T, report equations (2) and (3): log ᾱ_t = Σ_{s≤t} log(1 - β_s).

        >>> Schedule.from_betas(torch.linspace(0.01, 0.3, 50, dtype=torch.float64)).T
        50
        """
        betas = torch.as_tensor(betas, dtype=torch.float64, device="cpu")
        return cls(torch.nn.functional.pad(torch.log1p(-torch.atleast_1d(betas)).cumsum(-1), (1, 0)))

    @classmethod
    def from_alpha_bar(cls, alpha_bar: Tensor) -> Schedule:
        """From the table ᾱ_0 = 1, ᾱ_1, …, ᾱ_T."""
        return cls(torch.as_tensor(alpha_bar, dtype=torch.float64, device="cpu").log())

    @property
    def T(self) -> int:
        """Number of steps."""
        return len(self._table) - 1

    def log_alpha_bar(self, t: Real[Tensor, "*t"] | float, dtype: torch.dtype = torch.float64) -> Float[Tensor, "*t"]:
        """log ᾱ_t, on t's device; between integers it is interpolated linearly."""
        t = torch.as_tensor(t)
        if t.device.type == "cpu" and t.numel() and not (t.min() >= 0 and t.max() <= self.T):  # a GPU would wait
            raise ValueError(f"t must lie in 0…{self.T}, got values from {t.min()} to {t.max()}.")
        table = self._on(t.device, dtype)
        if not t.is_floating_point():
            return table[t.long()]  # an index of uint8 or bool would be a mask
        low = t.floor().long().clamp(0, self.T - 1)
        return torch.lerp(table[low], table[low + 1], (t - low).to(dtype))

    def _on(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The table where it is needed, copied once."""
        key = (device, dtype)
        if key not in self._cache:  # MPS has no float64: convert first, then move
            self._cache[key] = self._table.to(dtype).to(device)
        return self._cache[key]

    def __call__(
        self, t: Real[Tensor, "B"], dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "B 1 1"], Float[Tensor, "B 1 1"]]:
        """(√ᾱ_t, √(1-ᾱ_t)): what multiplies signal and noise in report (9)."""
        log_ab = self.log_alpha_bar(t, dtype if dtype.is_floating_point else torch.float32).reshape(-1, 1, 1)
        return (0.5 * log_ab).exp(), (-torch.expm1(log_ab)).sqrt()

    def at(
        self, t: Time, xt: Float[Tensor, "B C L"]
    ) -> tuple[Real[Tensor, "B"], Float[Tensor, "B 1 1"], Float[Tensor, "B 1 1"]]:
        """What a denoiser needs to know of t, 0 < t ≤ T: t, √ᾱ_t and √(1-ᾱ_t), as x_t is."""
        t = times(t, xt)
        if t.device.type == "cpu" and not (t > 0).all():
            raise ValueError(f"A denoiser needs times in 0 < t <= {self.T}, got {t.min()}: there is no noise at 0.")
        return t, *self(t, xt.dtype)

    def alpha_bar(self, t: Real[Tensor, "*t"] | float) -> Float[Tensor, "*t"]:
        """ᾱ_t = Π_{s≤t} α_s, report (3); ᾱ_0 = 1."""
        return self.log_alpha_bar(t).exp()

    def noise(self, t: Real[Tensor, "*t"] | float) -> Float[Tensor, "*t"]:
        """1 - ᾱ_t, the variance of the noise in x_t, without cancellation."""
        return -torch.expm1(self.log_alpha_bar(t))

    def beta(self, t: Tensor | float, s: Tensor | float | None = None) -> Tensor:
        """β of the step from s to t, s ≤ t: 1 - ᾱ_t/ᾱ_s. With s = t - 1, the default, it is the β_t of report (1)."""
        t = torch.as_tensor(t)
        return -torch.expm1(self.log_alpha_bar(t) - self.log_alpha_bar(t - 1 if s is None else s))

    def beta_tilde(self, t: Tensor | float, s: Tensor | float | None = None) -> Tensor:
        """β̃ = (1-ᾱ_s)/(1-ᾱ_t)·β, report (43): the variance of x_s given x_t and x_0. s = t - 1 by default."""
        t = torch.as_tensor(t)
        s = t - 1 if s is None else s
        return self.noise(s) / self.noise(t) * self.beta(t, s)

    def snr(self, t: Real[Tensor, "*t"] | float) -> Float[Tensor, "*t"]:
        """Signal-to-noise ratio ᾱ_t/(1-ᾱ_t), for signals of unit power; infinite at t = 0."""
        return self.log_snr(t).exp()

    def log_snr(self, t: Real[Tensor, "*t"] | float, dtype: torch.dtype = torch.float64) -> Float[Tensor, "*t"]:
        """log(ᾱ_t/(1-ᾱ_t)), natural logarithm: what networks are given as the noise level."""
        log_ab = self.log_alpha_bar(t, dtype)
        return log_ab - torch.log(-torch.expm1(log_ab))

    def at_log_snr(self, log_snr: Real[Tensor, "*t"] | float) -> Float[Tensor, "*t"]:
        """The real t at which the schedule has this log-SNR (the inverse of `log_snr`), clamped to [0, T]."""
        # log ᾱ = log sigmoid(log SNR), and the table is piecewise linear in t: invert the piece it falls in
        target = torch.nn.functional.logsigmoid(torch.as_tensor(log_snr, dtype=torch.float64))
        table = self._on(target.device, torch.float64)
        high = torch.searchsorted(-table, -target).clamp(1, self.T)
        low = high - 1
        frac = (table[low] - target) / (table[low] - table[high])
        return low + frac.clamp(0, 1)

    def shifted(self, by: float) -> Schedule:
        """The schedule with ``by`` added to log-SNR at every t ≥ 1: what this one is for data exp(by/2) times as large.

        The scaling of Chen 2023, the shift of Hoogeboom et al. 2023.

        >>> ho = linear(1000)
        >>> f"{ho.shifted(2.5).log_snr(500) - ho.log_snr(500):.3f}"
        '2.500'
        """
        log_snr = self.log_snr(torch.arange(1, self.T + 1)) + check_number(by, "by", -1e3, 1e3)
        start = torch.zeros(1, dtype=torch.float64)
        return Schedule(torch.cat([start, torch.nn.functional.logsigmoid(log_snr)]))

    def __repr__(self) -> str:
        return f"Schedule(T={self.T}, √ᾱ_T={math.exp(0.5 * self._table[-1].item()):.3g})"


def _brief(x: Tensor) -> str:
    return f"shape {tuple(x.shape)}" + (f", values from {x.min():.3g} to {x.max():.3g}" if x.numel() else "")


def _steps(T: int) -> Tensor:
    """τ = 0, 1/T, …, 1: a schedule is a curve over τ, and T says how often we look at it."""
    return torch.arange(check_count(T, "The number of steps T", high=10**6) + 1, dtype=torch.float64) / T


def _resampled(betas: Tensor, T: int) -> Schedule:
    """The curve log ᾱ(τ) that these β define, read at T + 1 places: ᾱ_T does not depend on T."""
    reference = Schedule.from_betas(betas)
    return Schedule(reference.log_alpha_bar(_steps(T) * reference.T))


def _clipped(alpha_bar: Callable[[Tensor], Tensor], T: int, max_beta: float = 0.999) -> Schedule:
    """A curve that reaches 0 at τ = 1; β_t ≤ 0.999 keeps ᾱ_T above 0 (Nichol & Dhariwal 2021, sec. 3.2)."""
    curve = alpha_bar(_steps(T))
    return Schedule.from_betas((1 - curve[1:] / curve[:-1]).clamp(max=max_beta))


def linear(T: int = 1000) -> Schedule:
    """β linear from 1e-4 to 0.02 at T = 1000 (Ho et al. 2020, sec. 4); the same curve ᾱ(τ) at any other T."""
    return _resampled(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), T)


def quadratic(T: int = 1000) -> Schedule:
    """√β linear from √1e-4 to √0.02 at T = 1000; the same curve at any other T."""
    return _resampled(torch.linspace(1e-4**0.5, 0.02**0.5, 1000, dtype=torch.float64) ** 2, T)


def cosine(T: int = 1000, offset: float = 0.008) -> Schedule:
    """ᾱ(τ) ∝ cos²(π/2·(τ + 0.008)/1.008), β ≤ 0.999 (Nichol & Dhariwal 2021, eq. 17)."""

    def curve(tau: Tensor) -> Tensor:
        f = torch.cos((tau + check_number(offset, "offset", 0.0)) / (1 + offset) * math.pi / 2) ** 2
        return f / f[0]

    return _clipped(curve, T)


def sigmoid(T: int = 1000, start: float = -3.0, end: float = 3.0) -> Schedule:
    """ᾱ(τ) falls along a logistic curve from `start` to `end`, β ≤ 0.999 (Jabri et al. 2022, algorithm 2)."""
    low, high = check_number(start, "start"), check_number(end, "end")

    def curve(tau: Tensor) -> Tensor:
        f = torch.sigmoid(-(low + (high - low) * tau))
        return (f - f[-1]) / (f[0] - f[-1])

    return _clipped(curve, T)


def log_linear(T: int = 1000, first: float = 9.21, last: float = -10.12) -> Schedule:
    """log-SNR linear in t, from `first` at t = 1 to `last` at t = T (Ho's own end points by default)."""
    _steps(T)
    high, low = check_number(first, "first"), check_number(last, "last")
    log_snr = torch.linspace(high if T > 1 else low, low, T, dtype=torch.float64)
    log_ab = torch.nn.functional.logsigmoid(log_snr)
    return Schedule(torch.cat([torch.zeros(1, dtype=torch.float64), log_ab]))


def straight(T: int = 1000) -> Schedule:
    """The line (1-τ)·x_0 + τ·ε of flow matching, scaled to ᾱ + (1-ᾱ) = 1: √SNR = (1-τ)/τ, β ≤ 0.999.

    Liu et al. 2023 and Lipman et al. 2023 (sec. 4.1, with σ_min = 0); there τ runs from noise to data. The scale of x_t
    changes neither what a network can know nor where a step along the flow leads (chapter `score_and_flow`).
    """
    return _clipped(lambda tau: (1 - tau) ** 2 / ((1 - tau) ** 2 + tau**2), T)


def times(t: Time, x: Shaped[Tensor, B * rest], dtype: torch.dtype | None = None) -> Real[Tensor, "B"]:
    """One time for each signal of x, on its device."""
    t = torch.as_tensor(t, dtype=dtype, device=x.device)
    return t.expand(len(x)) if t.ndim == 0 else t


def noise_time(schedule: Schedule, sigma: float) -> float:
    """The time, a real number from 1 to T, at which the noise over the signal, √(1-ᾱ_t)/√ᾱ_t, is sigma.

    Raises:
        ValueError: a noise that the schedule does not reach, or that is smaller than that of its first step.

    >>> from ddpm_lib import linear
    >>> round(noise_time(linear(1000), 0.3), 1)
    88.6
    """
    sigma = check_number(sigma, "sigma", 0.0, above=True)
    log_snr = torch.tensor(-2 * math.log(sigma), dtype=torch.float64)
    last, first = schedule.log_snr(torch.tensor([schedule.T, 1]))
    if not last - 1e-3 <= log_snr <= first + 1e-3:  # what is printed of the ends may be given
        low, high = (math.exp(-float(end) / 2) for end in (first, last))
        raise ValueError(f"This schedule knows noise from {low:.3g} to {high:.3g}, got sigma = {sigma:.6g}.")
    return max(1.0, float(schedule.at_log_snr(log_snr)))


ALL: tuple[Callable[[int], Schedule], ...] = (linear, quadratic, cosine, sigmoid, log_linear, straight)
