"""Equations (1)-(10): the forward process."""

from __future__ import annotations

import math

import numpy as np
import sympy as sp
import torch
from scipy import stats

from ddpm_lib import Schedule, q_sample, q_step

from .core import CORRECT, FORWARD, SE, SLIP, UNSTATED, WRONG, Equation, Finding
from .toys import HO, tables

ALPHA, BETA, AB, _, _ = tables()


def _z_scores(x, mean, var, n) -> float:
    """The worse of mean and variance of draws x, in standard errors."""
    return max(abs(float(x.mean()) - mean) / math.sqrt(var / n), abs(float(x.var()) / var - 1) / math.sqrt(2 / n))


def check_1(step) -> Finding:
    n, g = 200_000, torch.Generator().manual_seed(0)
    x = torch.full((n, 1, 1), 0.7, dtype=torch.float64)
    worst = 0.0
    for t in (1, 100, 1000):
        y = step(x, t, torch.randn(x.shape, generator=g, dtype=torch.float64), HO)
        worst = max(worst, _z_scores(y, math.sqrt(1 - BETA[t]) * 0.7, BETA[t], n))
    return Finding(f"mean and variance of 200 000 steps, {SE}", worst, 4)


def _mean_not_rooted(x, t, eps, schedule):
    return (1 - schedule.beta(t)) * x + schedule.beta(t).sqrt() * eps


def check_2(alpha) -> Finding:
    betas = np.linspace(1e-4, 0.02, 1000)  # Ho's table, written down a second time
    ratio = np.exp(np.diff(HO.log_alpha_bar(torch.arange(1001)).numpy()))
    return Finding("ᾱ_t/ᾱ_{t-1} - α_t over t", float(np.abs(ratio - alpha(betas)).max()), 1e-12)


def check_3(product) -> Finding:
    table = HO.alpha_bar(torch.arange(1, 1001)).numpy()
    error = np.abs(product(1 - np.linspace(1e-4, 0.02, 1000)) / table - 1).max()
    pinned = abs(table[-1] / 4.035829765e-5 - 1)
    return Finding("ᾱ_t against the table, relative", float(max(error, pinned)), 1e-9)


ALPHA_0 = 1 - (1e-4 - (0.02 - 1e-4) / 999)  # what the linear schedule would have at t = 0


def check_4(draw) -> Finding:
    x = draw(0.3, 0.5, np.random.default_rng(0).standard_normal(20_000))
    return Finding(
        "√n·Kolmogorov-Smirnov distance to N(μ, σ²)", stats.kstest(x, stats.norm(0.3, 0.5).cdf).statistic * 141.4, 1.95
    )


def check_5(step) -> Finding:
    n, t = 50_000, 500
    y = step(torch.full((n, 1, 4), 0.7, dtype=torch.float64), t, torch.Generator().manual_seed(0))[:, 0]
    cov = np.cov(y.numpy().T) / BETA[t]
    z = np.abs(cov - np.eye(4)) / np.sqrt((1 + np.eye(4)) / n)
    mean = np.abs(y.mean(0).numpy() - math.sqrt(1 - BETA[t]) * 0.7) / math.sqrt(BETA[t] / n)
    return Finding(f"mean and covariance of four neighbouring samples, {SE}", float(max(z.max(), mean.max())), 4.5)


def _noise(shape):
    def step(x, t, g):
        return q_step(x, t, torch.randn(shape(x), generator=g, dtype=x.dtype).expand_as(x), HO)

    return step


def check_6(form) -> Finding:
    x, eps = torch.randn(2, 1000, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.arange(1, 1001)
    a = torch.from_numpy(np.stack([ALPHA[1:], AB[1:]]))[..., None, None]
    return Finding("difference to (5) over t", float((form(x, eps, *a) - q_step(x, t, eps, HO)).abs().max()), 1e-12)


def check_7(two_steps) -> Finding:
    a, b = sp.symbols("a b", positive=True)  # α_t, α_{t-1}
    if sp.simplify(a * (1 - b) + (1 - a) - (1 - a * b)) != 0:
        return Finding("symbolic sum of the variances", math.inf, 0)
    n, t = 400_000, 101
    noise = two_steps(ALPHA[t], ALPHA[t - 1], *np.random.default_rng(0).standard_normal((2, n)))
    ratio = noise.var() / (1 - ALPHA[t] * ALPHA[t - 1])
    return Finding(f"variance of two merged steps, {SE}", abs(ratio - 1) / math.sqrt(2 / n), 4)


def _two_steps(a, b, e1, e2):
    return np.sqrt(a * (1 - b)) * e1 + np.sqrt(1 - a) * e2


def check_8(product) -> Finding:
    signal, noise, worst = 1.0, 0.0, 0.0
    for t in range(1, 1001):  # step by step: what happens to the signal and to the variance
        signal, noise = math.sqrt(ALPHA[t]) * signal, ALPHA[t] * noise + 1 - ALPHA[t]
        ab = product(ALPHA[1 : t + 1])
        worst = max(worst, abs(ab / signal**2 - 1), abs((1 - ab) / noise - 1))
    return Finding("signal and variance against the steps, relative", worst, 1e-10)


def check_9(jump) -> Finding:
    n, rng, worst = 40_000, np.random.default_rng(0), 0.0
    x = np.full(n, 0.7)
    one, zero = torch.ones(1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, dtype=torch.float64)
    for t in range(1, 1001):
        x = math.sqrt(ALPHA[t]) * x + math.sqrt(BETA[t]) * rng.standard_normal(n)
        if t in (1, 10, 100, 1000):
            mean, std = jump(0.7 * one, t, zero, HO).item(), jump(zero, t, one, HO).item()
            worst = max(worst, _z_scores(x, mean, std**2, n))
    return Finding(f"40 000 sequential paths against one jump, {SE}", worst, 4)


def _alpha_for_alpha_bar(x0, t, eps, schedule):
    return math.sqrt(ALPHA[t]) * x0 + math.sqrt(1 - ALPHA[t]) * eps


def check_10(law) -> Finding:
    mean, var, worst = 0.7, 0.0, 0.0
    for t in range(1, 1001):
        mean, var = math.sqrt(ALPHA[t]) * mean, ALPHA[t] * var + BETA[t]
        m, v = law(0.7, HO, t)
        worst = max(worst, abs(m - mean), abs(v - var))
    return Finding("mean and variance against the recursion", worst, 1e-12)


def _law(x0, schedule: Schedule, t):
    ab = float(schedule.alpha_bar(t))
    return math.sqrt(ab) * x0, 1 - ab


def _law_with_std(x0, schedule: Schedule, t):
    mean, var = _law(x0, schedule, t)
    return mean, math.sqrt(var)


ALL = (
    Equation(
        1, FORWARD,
        r"q(x_t\mid x_{t-1})=\mathcal N(x_t;\sqrt{1-\beta_t}\,x_{t-1},\beta_tI)", CORRECT, "D1", check_1, q_step,
        controls={"mean (1-β)·x": _mean_not_rooted},
    ),
    Equation(
        2, FORWARD, r"\alpha_t=1-\beta_t", CORRECT, "D1", check_2, lambda b: 1 - b,
        controls={"the factor √(1-β) taken for α": lambda b: np.sqrt(1 - b)},
    ),
    Equation(
        3, FORWARD, r"\bar\alpha_t=\prod_{s=1}^t\alpha_s", CORRECT, "D2", check_3, np.cumprod,
        why="The sentence beside it counts from 0.",
        controls={"“from 0 to t”": lambda a: ALPHA_0 * np.cumprod(a)},
    ),
    Equation(
        4, FORWARD, r"\mathcal N(\mu,\sigma^2)=\mu+\sigma\cdot\epsilon", SLIP, "D2", check_4, lambda m, s, e: m + s * e,
        right=r"x=\mu+\sigma\epsilon\ \Leftrightarrow\ x\sim\mathcal N(\mu,\sigma^2I)",
        why="A distribution is not a sample.", controls={"μ + σ²ε": lambda m, s, e: m + s**2 * e},
    ),
    Equation(
        5, FORWARD, r"q(x_t\mid x_{t-1})=\sqrt{1-\beta_t}\,x_{t-1}+\sqrt{\beta_t}\,\epsilon", SLIP, "D1", check_5,
        _noise(lambda x: x.shape), right=r"x_t=\sqrt{1-\beta_t}\,x_{t-1}+\sqrt{\beta_t}\,\epsilon_t",
        why="Left side is a sample; ε has one independent value for each sample and step.",
        controls={"one number ε ~ N(0, 1) a signal": _noise(lambda x: (len(x), 1, 1))},
    ),
    Equation(
        6, FORWARD, r"q(x_t\mid x_{t-1})=\sqrt{\alpha_t}\,x_{t-1}+\sqrt{1-\alpha_t}\,\epsilon", SLIP, "D1", check_6,
        lambda x, e, a, ab: a.sqrt() * x + (1 - a).sqrt() * e,
        right=r"x_t=\sqrt{\alpha_t}\,x_{t-1}+\sqrt{1-\alpha_t}\,\epsilon_t", why="As (5).",
        controls={"ᾱ for α": lambda x, e, a, ab: ab.sqrt() * x + (1 - ab).sqrt() * e},
    ),
    Equation(
        7, FORWARD,
        r"q(x_t\mid x_{t-1})=\sqrt{\alpha_t\alpha_{t-1}}\,x_{t-2}+\sqrt{1-\alpha_t\alpha_{t-1}}\,\epsilon=\dots",
        WRONG, "D2", check_7, _two_steps,
        right=r"x_t=\sqrt{\alpha_t\alpha_{t-1}}\,x_{t-2}+\sqrt{\alpha_t(1-\alpha_{t-1})}\,\epsilon_{t-1}"
        r"+\sqrt{1-\alpha_t}\,\epsilon_t\overset{d}{=}\sqrt{\alpha_t\alpha_{t-1}}\,x_{t-2}"
        r"+\sqrt{1-\alpha_t\alpha_{t-1}}\,\bar\epsilon",
        why="The left side is x_t given x_{t-2}; two independent ε merge in law, one shared ε does not.",
        controls={"as printed: one ε": lambda a, b, e1, e2: _two_steps(a, b, e1, e1)},
    ),
    Equation(
        8, FORWARD,
        r"q(x_t\mid x_0)=\sqrt{\alpha_t\cdots\alpha_1\alpha_0}\,x_0+\sqrt{1-\alpha_t\cdots\alpha_1\alpha_0}\,\epsilon",
        UNSTATED, "D2", check_8, np.prod,
        right=r"x_t=\sqrt{\alpha_t\cdots\alpha_1}\,x_0+\sqrt{1-\alpha_t\cdots\alpha_1}\,\epsilon",
        why="α_0 is defined nowhere; right only with α_0 = 1.",
        controls={"as printed: α_0 from the schedule": lambda a: ALPHA_0 * np.prod(a)},
    ),
    Equation(
        9, FORWARD,
        r"q(x_t\mid x_0)=\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\epsilon", SLIP, "D2", check_9, q_sample,
        right=r"x_t=\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\epsilon", why="As (5).",
        controls={"α for ᾱ, as in (44)": _alpha_for_alpha_bar},
    ),
    Equation(
        10, FORWARD,
        r"q(x_t\mid x_0)=\mathcal N(x_t;\sqrt{\bar\alpha_t}\,x_0,(1-\bar\alpha_t)I)", CORRECT, "D2", check_10,
        _law,
        controls={"the deviation for the variance": _law_with_std},
    ),
)  # fmt: skip
