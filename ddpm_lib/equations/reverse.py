"""Equations (11) and (40)-(43): the reverse process and the posterior."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch

from ddpm_lib import Gaussian, ancestral, beta, q_posterior

from .core import CORRECT, REVERSE, SE, SLIP, Equation, Finding
from .eight_steps import Chain
from .toys import HO, tables

ALPHA, BETA, AB, ABP, BT = tables()
TIMES = (2, 3, 10, 100, 500, 1000)


def check_11(step) -> Finding:
    chain, n, rng = Chain(noise=1.0), 200_000, np.random.default_rng(0)
    x = chain.prior[0] + math.sqrt(chain.prior[1]) * rng.standard_normal(n)
    for t in range(chain.T, 0, -1):
        x = step(chain.g[t] * x + chain.h[t], chain.s[t], rng.standard_normal(n))
    mean, var = chain.model()
    worst = max(abs(x.mean() - mean) / math.sqrt(var / n), abs(x.var() / var - 1) / math.sqrt(2 / n))
    return Finding(f"samples of an eight-step chain against the propagated law, {SE}", worst, 4)


def _grid(t, x0, xt):
    """x_{t-1} on a grid and log q(x_t|x_{t-1}) + log q(x_{t-1}|x_0) there: Bayes without a formula for the result."""
    precision = ALPHA[t] / BETA[t] + 1 / (1 - ABP[t])
    centre = (math.sqrt(ALPHA[t]) / BETA[t] * xt + math.sqrt(ABP[t]) / (1 - ABP[t]) * x0) / precision
    z = centre + np.linspace(-10, 10, 4001) / math.sqrt(precision)
    log = -0.5 * ((xt - math.sqrt(ALPHA[t]) * z) ** 2 / BETA[t] + (z - math.sqrt(ABP[t]) * x0) ** 2 / (1 - ABP[t]))
    return z, log


def _posterior(x0, xt, t):
    """The library's q(x_{t-1}|x_t, x_0) for numbers."""
    a, b = (torch.full((1, 1, 1), v, dtype=torch.float64) for v in (x0, xt))
    mean, var = q_posterior(a, b, t, HO)
    return mean.item(), var.item()


def _cases():
    rng = np.random.default_rng(0)
    for t in TIMES:
        x0, eps = rng.normal(size=2)
        yield t, x0, math.sqrt(AB[t]) * x0 + math.sqrt(1 - AB[t]) * eps


def check_40(posterior) -> Finding:
    worst = 0.0
    for t, x0, xt in _cases():
        z, log = _grid(t, x0, xt)
        mean, var = posterior(x0, xt, t)
        mid = slice(1600, 2401)
        rest = (log + 0.5 * (z - mean) ** 2 / var)[mid]  # constant, if the posterior is this Gaussian
        worst = max(worst, float(np.ptp(rest)))
    return Finding("log Bayes ratio less log of the Gaussian, against a constant", worst, 1e-7)


def check_41(step) -> Finding:
    n, power, t, g = 400_000, 0.25, 300, torch.Generator().manual_seed(0)
    exact = Gaussian(torch.zeros(1, 1).double(), power * torch.eye(1).double(), HO)
    x = torch.full((n, 1, 1), 0.8, dtype=torch.float64)
    y = step(exact, x, t, t - 1, torch.randn(x.shape, generator=g, dtype=x.dtype))
    mean = math.sqrt(ALPHA[t]) * (ABP[t] * power + 1 - ABP[t]) / (AB[t] * power + 1 - AB[t]) * 0.8
    z = abs(y.mean().item() - mean) / math.sqrt(BETA[t] / n)
    return Finding(
        f"one reverse step: mean E[x_{{t-1}}|x_t], variance σ², {SE}",
        max(z, abs(y.var().item() / BETA[t] - 1) / math.sqrt(2 / n)), 4,
    )  # fmt: skip


def _variance_for_deviation(denoiser, xt, t, s, noise):
    return ancestral(denoiser, xt, t, s, noise * math.sqrt(BETA[t]), beta)


def check_42(mean) -> Finding:
    worst = 0.0
    for t, x0, xt in _cases():
        z, log = _grid(t, x0, xt)
        w = np.exp(log - log.max())
        worst = max(worst, abs(mean(x0, xt, t) - (w * z).sum() / w.sum()))
    worst = max(worst, abs(mean(0.7, 0.3, 1) - 0.7))  # at t = 1 it is x_0
    return Finding("mean against Bayes on a grid", worst, 1e-10)


def check_43(var) -> Finding:
    worst = abs(var(1))  # β̃_1 = 0
    for t, x0, xt in _cases():
        z, log = _grid(t, x0, xt)
        w = np.exp(log - log.max())
        m = (w * z).sum() / w.sum()
        worst = max(worst, abs(var(t) / ((w * (z - m) ** 2).sum() / w.sum()) - 1))
    return Finding("variance against Bayes on a grid, relative", worst, 1e-10)


def _swapped(x0, xt, t):
    a, b = math.sqrt(ALPHA[t]) * (1 - ABP[t]) / (1 - AB[t]), math.sqrt(ABP[t]) * BETA[t] / (1 - AB[t])
    return a * x0 + b * xt


ALL = (
    Equation(
        11, REVERSE,
        r"p(x_{t-1}\mid x_t)=\mathcal N(x_{t-1};\mu_\theta(x_t,t),\Sigma_\theta(x_t,t))", SLIP, "D3", check_11,
        lambda mean, var, z: mean + math.sqrt(var) * z,
        right=r"p_\theta(x_{t-1}\mid x_t)=\mathcal N(x_{t-1};\mu_\theta(x_t,t),\Sigma_\theta(x_t,t)),\quad"
        r" p(x_T)=\mathcal N(0,I)",
        why="p for p_θ, and where the chain starts is never said.",
        controls={"no noise added": lambda mean, var, z: mean},
    ),
    Equation(
        40, REVERSE, r"q(x_{t-1}\mid x_t,x_0)=\mathcal N(x_{t-1};\tilde\mu_t(x_t,x_0),\tilde\beta_tI)", CORRECT, "D9",
        check_40, _posterior, why="For t ≥ 2; at t = 1 it is a point.",
        controls={"variance β_t": lambda x0, xt, t: (_posterior(x0, xt, t)[0], BETA[t])},
    ),
    Equation(
        41, REVERSE,
        r"p_\theta(x_{t-1}\mid x_t)=\mathcal N(x_{t-1};\mu_\theta(x_t,t),\Sigma_\theta(x_t,t))", CORRECT, "D3",
        check_41, partial(ancestral, variance=beta), controls={"σ² where σ belongs": _variance_for_deviation},
    ),
    Equation(
        42, REVERSE,
        r"\tilde\mu_t=\frac{\sqrt{\alpha_t}(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}x_t"
        r"+\frac{\sqrt{\bar\alpha_{t-1}}\beta_t}{1-\bar\alpha_t}x_0",
        CORRECT, "D9", check_42, lambda x0, xt, t: _posterior(x0, xt, t)[0],
        controls={"the factors exchanged": _swapped},
    ),
    Equation(
        43, REVERSE, r"\tilde\beta_t=\frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\beta_t", CORRECT, "D9", check_43,
        lambda t: _posterior(0.3, 0.5, t)[1], controls={"beta for beta_tilde": lambda t: BETA[t]},
    ),
)  # fmt: skip
