"""What a denoiser is, what it answers, and what its network predicts (chapters `l_simple` and `targets_and_weights`).

Shapes: signals (B, C, L); times t (B,), 0 = data, T = noise. Notation of Ho et al. 2020.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..shapes import Float, Time
from .schedules import Schedule

__all__ = [
    "X0",
    "Denoiser",
    "DenoiserLike",
    "Eps",
    "Parametrisation",
    "Prediction",
    "U",
    "V",
    "WithCovariance",
    "device_of",
]  # fmt: skip


class Prediction(NamedTuple):
    """A denoiser's answer to x_t: both views of one estimate, x_t = √ᾱ_t·x0 + √(1-ᾱ_t)·eps."""

    x0: Float[Tensor, "B C L"]
    eps: Float[Tensor, "B C L"]

    @classmethod
    def from_x0(cls, x0: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction:
        """Both views of an estimate of x_0, with a = √ᾱ_t and s = √(1-ᾱ_t) (B, 1, 1)."""
        return cls(x0, (xt - a * x0) / s)

    @classmethod
    def from_eps(cls, eps: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction:
        """Both views of an estimate of ε: report (44) solved for x_0."""
        return cls((xt - s * eps) / a, eps)


class DenoiserLike(Protocol):
    """What every sampler, loss and measure takes: a function that estimates x_0 from x_t, and a schedule.

    A denoiser looks at x_t, a signal that is noised to the time t of its ``schedule``, and returns its estimate of
    E[x_0 | x_t]: exact (`ddpm_lib.exact`), learned (`Denoiser`), or made of another denoiser that it wraps (guidance, a
    measurement, ...). Conditions, ``cond``, are (B, P), NaN where there is no condition; one that knows no
    conditions ignores it. Denoisers are modules, so that they move between devices with their tables and weights.
    """

    @property
    def schedule(self) -> Schedule:
        """Which noise belongs to which t."""
        ...

    def __call__(self, xt: Float[Tensor, "B C L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """What is known of x_t at times 0 < t ≤ T."""
        ...


@runtime_checkable
class WithCovariance(DenoiserLike, Protocol):
    """A denoiser that also knows how sure it is."""

    def covariance(self, xt: Float[Tensor, "B C L"], t: Time) -> Float[Tensor, "#B C*L C*L"]:
        """Cov[x_0 | x_t]."""
        ...


class Parametrisation(Protocol):
    """What the network's output means: `target` is what it should be, `predict` turns it into x̂_0 and ε̂."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor: ...

    def predict(self, out: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction: ...


class Eps:
    """The network predicts the noise ε: the report's and Ho et al.'s choice, report (44) put right."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return eps

    def predict(self, out: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction:
        return Prediction.from_eps(out, xt, a, s)


class X0:
    """The network predicts the signal x_0."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return x0

    def predict(self, out: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction:
        return Prediction.from_x0(out, xt, a, s)


class U:
    """The network predicts u = ε - x_0, the velocity of flow matching (Lipman et al. 2023; Liu et al. 2023)."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return eps - x0

    def predict(self, out: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction:
        return Prediction(x0=(xt - s * out) / (a + s), eps=(xt + a * out) / (a + s))


class V:
    """The network predicts v = √ᾱ_t·ε - √(1-ᾱ_t)·x_0 (Salimans & Ho 2022, sec. 4)."""

    def target(self, x0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        return a * eps - s * x0

    def predict(self, out: Tensor, xt: Tensor, a: Tensor, s: Tensor) -> Prediction:
        return Prediction(x0=a * xt - s * out, eps=s * xt + a * out)


class Denoiser(nn.Module):
    """A network, a schedule and a parametrisation: everything that p_θ is made of.

    Called with noisy signals it returns both views of its estimate, so a sampler never asks what was trained.

    Args:
        network: (x (B, C, L), log_snr (B,), cond (B, P) or None) → (B, C, L).
        schedule: the noise schedule; the network is given log-SNR, so it can be sampled on another grid.
        parametrisation: `Eps()`, `X0()`, `V()`, `U()` or your own.

    >>> import torch
    >>> from ddpm_lib import UNet1D, linear
    >>> untrained = Denoiser(UNet1D(), linear(), V())  # an untrained UNet1D returns 0
    >>> untrained(torch.ones(2, 1, 8), torch.tensor([1, 1000])).x0[:, 0, 0].detach()
    tensor([0.9999, 0.0064])
    """

    def __init__(self, network: nn.Module, schedule: Schedule, parametrisation: Parametrisation):
        super().__init__()
        self.network, self.schedule, self.parametrisation = network, schedule, parametrisation

    def forward(self, xt: Float[Tensor, "B C L"], t: Time, cond: Float[Tensor, "B P"] | None = None) -> Prediction:
        """Both views of the estimate, at times 0 < t ≤ T."""
        t, a, s = self.schedule.at(t, xt)
        out = self.network(xt, self.schedule.log_snr(t, xt.dtype), cond)
        if out.shape != xt.shape:  # which broadcasting would hide
            raise ValueError(f"The network must return signals of shape {tuple(xt.shape)}, got {tuple(out.shape)}.")
        return self.parametrisation.predict(out, xt, a, s)


def device_of(denoiser: DenoiserLike) -> torch.device:
    """Where a denoiser computes: where its weights and tables are; a plain function is taken to work on the CPU."""
    tensors = [*denoiser.parameters(), *denoiser.buffers()] if isinstance(denoiser, nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")


ALL = (Eps, X0, V, U)
