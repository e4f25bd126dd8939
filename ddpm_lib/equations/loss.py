"""Equations (44)-(52): from the bound to L_simple."""

from __future__ import annotations

import math

import numpy as np
import sympy as sp
import torch

from ddpm_lib import Eps, Gaussian, Prediction, gaussian_kl, loss, q_posterior
from ddpm_lib.diffusion import draw_times

from .core import CORRECT, MISATTRIBUTED, SE, SIMPLE, UNSTATED, WRONG, Equation, Finding
from .toys import HO, tables

ALPHA, BETA, AB, ABP, BT = tables()
T = np.arange(1, 1001)
RNG = np.random.default_rng(0)
X0, E, E_HAT = RNG.normal(size=(3, 1000))  # a signal, its noise and an estimate of the noise, for each t
XT = np.sqrt(AB[1:]) * X0 + np.sqrt(1 - AB[1:]) * E


def _columns():
    return ALPHA[1:], BETA[1:], AB[1:]


def _mu_tilde(x0):
    """μ̃_t(x_t, x_0) of the library, (42), at every t."""
    as_signals = (torch.from_numpy(v)[:, None, None] for v in (x0, XT))
    return q_posterior(*as_signals, torch.from_numpy(T), HO).mean.flatten().numpy()


def check_44(solve) -> Finding:
    error = np.abs(solve(XT, E, *_columns()) - X0).max()
    a = torch.from_numpy(np.sqrt(AB[1:])), torch.from_numpy(np.sqrt(1 - AB[1:]))
    library = Eps().predict(torch.from_numpy(E), torch.from_numpy(XT), *a).x0.numpy()
    return Finding("x_0 → x_t → x_0 over all t", float(max(error, np.abs(library - X0).max())), 1e-10)


def _right_x0(x, e, a, b, ab):
    return (x - np.sqrt(1 - ab) * e) / np.sqrt(ab)


def right_mu(x, e, a, b, ab):
    """μ̃ in terms of the noise: (45) put right, step D10."""
    return (x - b / np.sqrt(1 - ab) * e) / np.sqrt(a)


def check_45(mu) -> Finding:
    """Also (48): the mean from the noise is the mean from x_0, for all t, symbolically and in numbers."""
    a, p, x, e = sp.symbols("a p x e", positive=True)  # α_t, ᾱ_{t-1}
    ab = a * p
    x0 = (x - sp.sqrt(1 - ab) * e) / sp.sqrt(ab)
    tilde = sp.sqrt(a) * (1 - p) / (1 - ab) * x + sp.sqrt(p) * (1 - a) / (1 - ab) * x0
    if sp.simplify(tilde - (x - (1 - a) / sp.sqrt(1 - ab) * e) / sp.sqrt(a)) != 0:
        return Finding("symbolic form of D10", math.inf, 0)
    x0_hat = _right_x0(XT, E_HAT, *_columns())
    error = np.abs(mu(XT, E_HAT, *_columns()) - _mu_tilde(x0_hat)).max()
    return Finding("μ from the noise against μ̃(x_t, x̂_0) over t", float(error), 1e-10)


def _without_root(x, e, a, b, ab):
    return x / np.sqrt(a) - b / np.sqrt(1 - ab) * e


def _printed_45_middle(x, e, a, b, ab):
    abp = np.append(1.0, ab[:-1])
    return (
        np.sqrt(a) * (1 - abp) / (1 - ab) * x
        + np.sqrt(abp) * b / (1 - ab) / np.sqrt(a) * x
        - np.sqrt(1 - a) / np.sqrt(a) * e
    )


def check_46(kl) -> Finding:
    worst, n, rng = 0.0, 5, np.random.default_rng(1)
    for t in (2, 10, 100, 1000):
        sigma2 = BT[t] * math.exp(rng.normal())
        m = torch.from_numpy(rng.normal(size=(2, n))) * math.sqrt(sigma2)
        laws = (
            torch.distributions.MultivariateNormal(v, c * torch.eye(n, dtype=torch.float64))
            for v, c in zip(m, (BT[t], sigma2), strict=True)
        )
        right = torch.distributions.kl_divergence(*laws)
        worst = max(worst, abs(float(kl((m[0] - m[1]).square().sum(), BT[t], sigma2, n)) - float(right)))
    return Finding("KL of two Gaussians in five dimensions, random σ²", worst, 1e-10)


def _kl(square, var_1, var_2, n):
    return gaussian_kl(square, *torch.tensor([var_1, var_2], dtype=torch.float64), n)


def check_47(term) -> Finding:
    mu = right_mu(XT, E_HAT, *_columns())
    right = (_mu_tilde(X0) - mu) ** 2 / (2 * BETA[1:])
    return Finding(
        "½‖μ̃ - μ_θ‖²/σ² over t, relative", float(np.abs(term(XT, E, mu, *_columns()) / right - 1).max()), 1e-8
    )


def _term_47(mu):
    return lambda x, e, mu_hat, a, b, ab: (mu(x, e, a, b, ab) - mu_hat) ** 2 / (2 * b)


def check_49(term) -> Finding:
    """Which c minimises the loss of ε_θ = c·ε? A quadratic in c, so three values give its minimum."""
    low, mid, high = (term(XT, E, c * E, *_columns()).sum() for c in (-1, 0, 1))
    best = 0.5 * (low - high) / (low - 2 * mid + high)
    return Finding("best c in ε_θ = c·ε, distance from 1", abs(best - 1), 1e-8)


def _term_49(sign):
    def term(x, e, e_hat, a, b, ab):
        k = b / (np.sqrt(1 - ab) * (np.sqrt(a) if sign == 1 else 1))
        return (x / np.sqrt(a) - k * e - x / np.sqrt(a) + sign * k * e_hat) ** 2 / (2 * b)

    return term


def check_50(weight) -> Finding:
    """Σ w·mse + Σ C + const against the sum of the KLs and the decoder, on Gaussian data of three powers."""
    a, b, ab = _columns()
    abp, bt = ABP[1:], BT[1:]
    worst = 0.0
    for power in (1.0, 0.0769363232, 0.0025):
        v = power * (1 - ab) / (ab * power + 1 - ab)  # Var[x_0|x_t]
        square = abp * b**2 / (1 - ab) ** 2 * v  # E‖μ̃ - μ_θ‖²
        kls = 0.5 * (square[1:] / b[1:] + bt[1:] / b[1:] - 1 + np.log(b[1:] / bt[1:]))
        decoder = 0.5 * (np.log(2 * np.pi * b[0]) + v[0] / b[0])
        mse = ab * power / (ab * power + 1 - ab)
        constants = 0.5 * (bt[1:] / b[1:] - 1 + np.log(b[1:] / bt[1:])).sum() + 0.5 * math.log(2 * math.pi * b[0])
        worst = max(worst, abs((weight(a, b, ab) * mse).sum() + constants - kls.sum() - decoder))
    return Finding("assembled bound against the sum of its KLs, nats per dimension", worst, 1e-9)


def check_51(relation) -> Finding:
    a, b, ab = _columns()
    w, mse = b / (2 * a * (1 - ab)), (E - E_HAT) ** 2
    return Finding(
        "what is called L_t against ‖ε - ε_θ‖², relative", float(np.abs(relation(w * mse, w) / mse - 1).max()), 1e-10
    )


def check_52(estimate) -> Finding:
    """L_simple of the exact denoiser of N(0, S) is the mean over t of ᾱS/(ᾱS + 1 - ᾱ); of ε_θ = 0 it is 1."""
    n, power, g = 100_000, 0.0769363232, torch.Generator().manual_seed(0)
    exact = Gaussian(torch.zeros(1, 1).double(), power * torch.eye(1).double(), HO)
    x0 = math.sqrt(power) * torch.randn(n, 1, 1, generator=g, dtype=torch.float64)
    eps, (t, _) = torch.randn(n, 1, 1, generator=g, dtype=torch.float64), draw_times(n, HO, g)
    values, nothing = estimate(exact, x0, t, eps), eps.square().mean((1, 2))
    z = abs(values.mean().item() - (AB[1:] * power / (AB[1:] * power + 1 - AB[1:])).mean()) / (
        values.std().item() / math.sqrt(n)
    )
    return Finding(
        f"mean over 100 000 draws against the closed form, {SE}",
        max(z, abs(nothing.mean().item() - 1) / math.sqrt(2 / n)),
        4,
    )


class _Negative:
    """What a network learns from (49): minus the noise."""

    def __init__(self, denoiser):
        self.denoiser, self.schedule = denoiser, denoiser.schedule

    def __call__(self, xt, t, cond=None):
        return Prediction(None, -self.denoiser(xt, t).eps)


X, N = r"\frac1{\sqrt{\alpha_t}}x_t", r"\frac{\beta_t}{\sqrt{1-\bar\alpha_t}}"
HALF, EPS_HAT = r"\frac1{2\sigma_t^2}", r"\epsilon_\theta(x_t,t)"
BRACKET = r"\frac1{\sqrt{\alpha_t}}\Big(x_t-" + N + r"\,\epsilon\Big)"

ALL = (
    Equation(
        44, SIMPLE,
        r"x_t=\sqrt{\alpha_t}x_0+\sqrt{1-\alpha_t}\epsilon\Rightarrow x_0=" + X + r"-\sqrt{1-\alpha_t}\,\epsilon",
        WRONG,
        "D10", check_44, _right_x0,
        right=r"x_0=\frac1{\sqrt{\bar\alpha_t}}\big(x_t-\sqrt{1-\bar\alpha_t}\,\epsilon\big)",
        why="α for ᾱ, and ε is not divided by the root.",
        controls={
            "as printed": lambda x, e, a, b, ab: x / np.sqrt(a) - np.sqrt(1 - a) * e,
            "bars restored": lambda x, e, a, b, ab: x / np.sqrt(ab) - np.sqrt(1 - ab) * e,
        },
    ),
    Equation(
        45, SIMPLE, r"\tilde\mu_t=\dots=" + X + r"-\frac{\beta_t}{\sqrt{1-\alpha_t}}\epsilon", WRONG, "D10", check_45,
        right_mu,
        right=r"\tilde\mu_t=" + BRACKET,
        why="α for ᾱ (so it subtracts √β·ε), 1/√α is missing, and its middle is not its right side.",
        controls={
            "as printed": lambda x, e, a, b, ab: x / np.sqrt(a) - np.sqrt(b) * e,
            "the middle as printed": _printed_45_middle,
            "bars restored": _without_root,
        },
    ),
    Equation(
        46, SIMPLE,
        r"L_t=" + HALF + r"\lVert\tilde\mu_t(x_t,x_0)-\mu_\theta(x_t,t)\rVert^2", UNSTATED, "D11", check_46, _kl,
        right=r"L_t=\mathbb E_q\Big[" + HALF + r"\lVert\tilde\mu_t-\mu_\theta\rVert^2\Big]+\tfrac N2"
        r"\Big(\tfrac{\tilde\beta_t}{\sigma_t^2}-1+\log\tfrac{\sigma_t^2}{\tilde\beta_t}\Big)",
        why="Right up to a constant that is 0 only for σ² = β̃; needs Σ_θ = σ²I.",
        controls={"as printed: without the constant": lambda square, v1, v2, n: square / (2 * v2)},
    ),
    Equation(
        47, SIMPLE, r"L_t=" + HALF + r"\big\lVert" + X + "-" + N + r"\epsilon-\mu_\theta\big\rVert^2", WRONG, "D10",
        check_47,
        _term_47(right_mu), right=HALF + r"\big\lVert" + BRACKET + r"-\mu_\theta\big\rVert^2",
        why="1/√α_t in front of ε is missing.", controls={"as printed": _term_47(_without_root)},
    ),
    Equation(
        48, SIMPLE, r"\mu_\theta=" + X + "-" + N + EPS_HAT, WRONG, "D10", check_45, right_mu,
        right=r"\mu_\theta=\frac1{\sqrt{\alpha_t}}\Big(x_t-" + N + r"\," + EPS_HAT + r"\Big)",
        why="The same root; samples do not show it, this check does.", controls={"as printed": _without_root},
    ),
    Equation(
        49, SIMPLE,
        HALF + r"\big\lVert" + X + "-" + N + r"\epsilon-" + X + "-" + N + r"\epsilon_\theta\big\rVert^2",
        WRONG,
        "D10", check_49, _term_49(1),
        right=HALF + r"\big\lVert" + BRACKET + r"-\frac1{\sqrt{\alpha_t}}\Big(x_t-" + N
        + r"\,\epsilon_\theta\Big)\big\rVert^2",
        why="The sign of ε_θ: its minimum is at ε_θ = -ε.", controls={"as printed": _term_49(-1)},
    ),
    Equation(
        50, SIMPLE,
        r"L_t=\frac{\beta_t^2}{2\sigma_t^2\alpha_t(1-\bar\alpha_t)}\lVert\epsilon-\epsilon_\theta(x_t,t)\rVert^2",
        CORRECT,
        "D13", check_50, lambda a, b, ab: b / (2 * a * (1 - ab)),
        why="But it does not follow from the lines printed above it.",
        controls={"what (47)-(48) would give": lambda a, b, ab: b / (2 * (1 - ab))},
    ),
    Equation(
        51, SIMPLE,
        r"L_t=\lVert\epsilon-\epsilon_\theta(x_t,t)\rVert^2", MISATTRIBUTED, "D14", check_51, lambda L, w: L / w,
        right=r"\lVert\epsilon-\epsilon_\theta\rVert^2=L_t\Big/\frac{\beta_t^2}{2\sigma_t^2\alpha_t(1-\bar\alpha_t)}",
        why="Ho et al. 2020, sec. 3.4, dropped the weight; it is not the L_t of (50).",
        controls={"read as the L_t of (50)": lambda L, w: L},
    ),
    Equation(
        52, SIMPLE, r"L_{simple}=\mathbb E_{t,x_0,\epsilon}\big[\lVert\epsilon-\epsilon_\theta(x_t,t)\rVert^2\big]",
        MISATTRIBUTED, "D14",
        check_52, loss, right=r"\text{the same, with }t\sim\mathcal U\{1,\dots,T\}",
        why="It is Ho et al. 2020, eq. (14); that t is uniform from 1 to T is not said.",
        controls={"trained by (49)": lambda d, x0, t, eps: loss(_Negative(d), x0, t, eps)},
    ),
)  # fmt: skip
