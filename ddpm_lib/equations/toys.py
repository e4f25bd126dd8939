"""Two small worlds in which every quantity of the report is known exactly (the third is `eight_steps.Chain`).

`gauss_bound`, `gauss_sampler` (G1): Gaussian data, any sampler's output mean and variance by recursion, no draws.
`Mixture` (M): blurred atoms, exact score and likelihood, for everything where Gaussian data would hide a mistake.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from ddpm_lib import Prediction, Schedule, linear

HO = linear(1000)
"""Ho et al. 2020: T = 1000, β linear from 1e-4 to 0.02."""


def from_betas(first: float, last: float, T: int) -> Schedule:
    """β linear from `first` to `last` in T steps, without a word about what is left of the signal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Schedule.from_betas(torch.linspace(first, last, T, dtype=torch.float64))


def tables(schedule: Schedule = HO) -> tuple[np.ndarray, ...]:
    """α, β, ᾱ_t, ᾱ_{t-1} and β̃ over t = 1…T, float64; all have length T + 1 and NaN in place 0."""
    t = torch.arange(1, schedule.T + 1)
    beta = schedule.beta(t)
    noise_t, noise_s = (-torch.expm1(schedule.log_alpha_bar(v)) for v in (t, t - 1))
    columns = (1 - beta, beta, schedule.alpha_bar(t), schedule.alpha_bar(t - 1), noise_s / noise_t * beta)
    return tuple(np.concatenate([[np.nan], c.numpy()]) for c in columns)


# --- G1 -----------------------------------------------------------------------------------------------


def gauss_sampler(step, schedule: Schedule = HO, mean=0.5, std=0.25, sign=1.0, variance="beta") -> tuple[float, float]:
    """Mean and standard deviation of x_0 from x_{t-1} = A·x_t + B·ε̂ + σ·z, started from N(0, 1), z = 0 at t = 1.

    `step(a, b, ab, abp, bt)` gives (A, B) at one t; ε̂ = sign·E[ε|x_t] is exact and affine, so no draws are needed.
    """
    alpha, beta, ab, abp, bt = tables(schedule)
    M, V = 0.0, 1.0
    for t in range(schedule.T, 0, -1):
        A, B = step(alpha[t], beta[t], ab[t], abp[t], bt[t])
        k = sign * math.sqrt(1 - ab[t]) / (ab[t] * std**2 + 1 - ab[t])
        g = A + B * k
        sigma2 = 0.0 if t == 1 or variance == "none" else (beta if variance == "beta" else bt)[t]
        M, V = g * M - B * k * math.sqrt(ab[t]) * mean, g**2 * V + sigma2
    return M, math.sqrt(V)


def right_step(a, b, ab, abp, bt):
    """(A, B) of the reverse step: (48) put right."""
    return 1 / math.sqrt(a), -b / math.sqrt(a * (1 - ab))


def gauss_bound(power: float, schedule: Schedule = HO, variance: str = "beta", sigma2_1: float | None = None) -> float:
    """E[L_vlb] per dimension in nats for data N(m, power) and the exact denoiser: step D13 without a draw.

    variance: "beta", "beta_tilde" or "best" (step D11; at t = 1 it is the best σ_1² too).
    """
    a, b, ab, _, bt = (c[1:] for c in tables(schedule))
    mse = ab * power / (ab * power + 1 - ab)
    best = bt + b**2 / (a * (1 - ab)) * mse
    s2 = {"beta": b, "beta_tilde": bt, "best": best}[variance].copy()
    s2[0] = sigma2_1 if sigma2_1 is not None else best[0] if variance == "best" else b[0]
    w = b**2 / (2 * s2 * a * (1 - ab))
    C = 0.5 * (bt[1:] / s2[1:] - 1 + np.log(s2[1:] / bt[1:]))
    L_T = 0.5 * (ab[-1] * (power - 1) - math.log1p(-ab[-1]))
    return float(L_T + (w * mse).sum() + C.sum() + 0.5 * math.log(2 * math.pi * s2[0]))


def gauss_entropy(power: float) -> float:
    """-E log q(x_0) per dimension in nats: what no bound can go below."""
    return 0.5 * math.log(2 * math.pi * math.e * power)


# --- M ------------------------------------------------------------------------------------------------


class Mixture:
    """Data Σ_k N(ψ_k, τ_k²·I)/K: the exact denoiser and the exact log-density of blurred atoms.

    Args:
        atoms: (K, C, L).
        std: τ, one number or (K,).
    """

    def __init__(self, atoms: Tensor, std: Tensor | float, schedule: Schedule = HO):
        self.atoms, self.schedule = atoms, schedule
        self.var = torch.as_tensor(std, dtype=atoms.dtype).expand(len(atoms)) ** 2

    def _fit(self, x: Tensor, a: Tensor, s2: Tensor) -> tuple[Tensor, Tensor]:
        """Log-weight of each atom (B, K) at x = a·x_0 + √s2·ε, and its variance (B, K)."""
        var = a**2 * self.var + s2
        x, atoms = x.flatten(1), self.atoms.flatten(1)
        square = x.square().sum(1, keepdim=True) - 2 * a * (x @ atoms.T) + a**2 * atoms.square().sum(1)
        return -0.5 * (square / var + x.shape[1] * torch.log(2 * math.pi * var)) - math.log(len(self.atoms)), var

    def __call__(self, xt: Tensor, t: Tensor | float, cond: None = None) -> Prediction:
        """E[x_0|x_t] and E[ε|x_t]: xt (B, C, L), t (B,) → Prediction."""
        xt = xt.to(self.atoms.dtype)
        a, s = (v.flatten(1) for v in self.schedule(torch.as_tensor(t).expand(len(xt)), xt.dtype))
        log_w, var = self._fit(xt, a, s**2)
        w = log_w.softmax(1)
        gain = a * self.var / var  # each atom's own Wiener gain
        x0 = (w * (1 - gain * a)) @ self.atoms.flatten(1) + (w * gain).sum(1, keepdim=True) * xt.flatten(1)
        x0 = x0.view_as(xt)
        return Prediction(x0, (xt - a[..., None] * x0) / s[..., None])

    def log_prob(self, x: Tensor, t: Tensor | float = 0) -> Tensor:
        """log q(x_t) (B,), by default of the data, in nats."""
        a, s = (v.flatten(1) for v in self.schedule(torch.as_tensor(t).expand(len(x)), x.dtype))
        return self._fit(x, a, s**2)[0].logsumexp(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws (n, C, L)."""
        k = torch.randint(len(self.atoms), (n,), generator=generator)
        noise = torch.randn(self.atoms[k].shape, generator=generator, dtype=self.atoms.dtype)
        return self.atoms[k] + self.var[k].sqrt()[:, None, None] * noise


def two_humps(schedule: Schedule = HO) -> Mixture:
    """½N(-0.6, 0.05²) + ½N(0.7, 0.1²) as signals of one sample."""
    atoms = torch.tensor([-0.6, 0.7], dtype=torch.float64)[:, None, None]
    return Mixture(atoms, torch.tensor([0.05, 0.1], dtype=torch.float64), schedule)
