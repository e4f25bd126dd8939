"""Equations (26)-(39): from the log-ratio of whole paths to a sum of divergences."""

from __future__ import annotations

import math

import numpy as np
import torch

from ddpm_lib import L_T

from .core import BOUND, CORRECT, SE, SLIP, UNSTATED, WRONG, Equation, Finding
from .eight_steps import log_gauss
from .likelihood import CHAIN, PATHS, X0
from .toys import HO, from_betas, gauss_bound, gauss_entropy, tables, two_humps

X = PATHS[:1000]
LAST = CHAIN.T
ALPHA, BETA, AB, ABP, BT = tables()


def _reference() -> np.ndarray:
    """log q(x_{1:T}|x_0) - log p_θ(x_{0:T}) from the two joint Gaussians, without a product of steps."""
    m, P, mean, Q = CHAIN.precisions(X0)
    return log_gauss(X[:, 1:], m, P) - log_gauss(X, mean, Q)


def check_path(form) -> Finding:
    """Each line of (26)-(37): the same number on every path."""
    return Finding("log-ratio on 1000 paths", float(np.abs(form(CHAIN, X) - _reference()).max()), 1e-10)


def forward(c, x, first=1):
    return sum(c.log_q(x, t) for t in range(first, c.T + 1))


def reverse(c, x, first=1):
    return sum(c.log_p(x, t) for t in range(first, c.T + 1))


def posterior(c, x):
    """Σ_{t≥2} log q(x_{t-1}|x_t, x_0)."""
    return sum(c.log_post(x, t) for t in range(2, c.T + 1))


def marginals(c, x):
    """Σ_{t≥2} log q(x_t|x_0) - log q(x_{t-1}|x_0)."""
    return sum(c.log_jump(x, t) - c.log_jump(x, t - 1) for t in range(2, c.T + 1))


def decoder(c, x):
    """log q(x_1|x_0) - log p_θ(x_0|x_1)."""
    return c.log_q(x, 1) - c.log_p(x, 1)


def line_26(c, x):
    return forward(c, x) - (c.log_prior(x) + reverse(c, x))


def line_28(c, x, first=1):
    return -c.log_prior(x) + sum(c.log_q(x, t) - c.log_p(x, t) for t in range(first, c.T + 1))


def line_29(c, x):
    return line_28(c, x, first=2) + decoder(c, x)


def line_32(c, x, sign=1):
    terms = (
        c.log_post(x, t) + sign * (c.log_jump(x, t) - c.log_jump(x, t - 1)) - c.log_p(x, t) for t in range(2, c.T + 1)
    )
    return -c.log_prior(x) + sum(terms) + decoder(c, x)


def line_33(c, x, sign=1):
    return -c.log_prior(x) + posterior(c, x) - reverse(c, x, 2) + sign * marginals(c, x) + decoder(c, x)


def line_35(c, x, left=1):
    ends = c.log_jump(x, c.T) - left * c.log_jump(x, 1)
    return -c.log_prior(x) + posterior(c, x) - reverse(c, x, 2) + ends + decoder(c, x)


def line_37(c, x, sign=1):
    return c.log_jump(x, c.T) - c.log_prior(x) + posterior(c, x) - reverse(c, x, 2) - sign * c.log_p(x, 1)


def check_30(reversal) -> Finding:
    """Bayes between the unknown marginals q(x_t), by quadrature on two humps."""
    data, t = two_humps(), 200
    z = torch.linspace(-6, 6, 6001, dtype=torch.float64)[:, None, None]
    before, x_t = data.log_prob(z, t - 1).exp().numpy(), torch.full((1, 1, 1), 0.4, dtype=torch.float64)
    step = np.exp(-0.5 * (0.4 - math.sqrt(ALPHA[t]) * z.flatten().numpy()) ** 2 / BETA[t]) / math.sqrt(
        2 * math.pi * BETA[t]
    )
    evidence = float(data.log_prob(x_t, t).exp())  # q(x_t) in closed form
    joint = step * before
    back = joint / (joint.sum() * 0.002)  # q(x_{t-1}|x_t), normalised on the grid
    keep = before > 1e-6
    error = np.abs(reversal(back, evidence, before)[keep] - step[keep]).max()
    return Finding("q(x_t|x_{t-1}) on a grid", float(error), 1e-8)


def check_31(eta) -> Finding:
    """Is q(x_t|x_{t-1}, x_0) = q(x_t|x_{t-1})? Processes with the same q(x_t|x_0), from DDIM (0) to Markov (1)."""
    t, power = 500, 0.25
    add = eta**2 * BT[t]
    given = math.sqrt((1 - ABP[t] - add) * (1 - AB[t]))  # Cov[x_{t-1}, x_t | x_0]
    var_given = 1 - AB[t] - given**2 / (1 - ABP[t])
    total = given + power * math.sqrt(AB[t] * ABP[t])
    var = 1 - AB[t] + power * AB[t] - total**2 / (1 - ABP[t] + power * ABP[t])
    return Finding(
        "Var[x_t|x_{t-1}] and Var[x_t|x_{t-1}, x_0] against β_t, relative",
        max(abs(var / BETA[t] - 1), abs(var_given / BETA[t] - 1)), 1e-9,
    )  # fmt: skip


def check_34(telescoped) -> Finding:
    return Finding(
        "sum of the marginals on 1000 paths", float(np.abs(telescoped(CHAIN, X) - marginals(CHAIN, X)).max()), 1e-10
    )


def check_36(form) -> Finding:
    left = CHAIN.log_jump(X, LAST) - CHAIN.log_jump(X, 1) + decoder(CHAIN, X)
    return Finding("last two terms on 1000 paths", float(np.abs(left - form(CHAIN, X)).max()), 1e-10)


def line_38(c, x):
    """As printed: a number of each path, random through x_t and x_1."""
    return c.kl_prior(X0) + sum(c.kl_step(x, t) for t in range(2, c.T + 1)) - c.log_p(x, 1)


def check_38(form) -> Finding:
    values, every = np.atleast_1d(form(CHAIN, PATHS)), line_38(CHAIN, PATHS)
    z = np.abs(values - CHAIN.bound(X0)).max() / (every.std() / math.sqrt(len(every)))
    return Finding(f"the worst value that is claimed to be L_vlb, {SE}", float(z), 4)


def check_39(reported) -> Finding:
    """What is reported as a bound must not fall below the NLL; T = 50 with the β of T = 1000, data of unit power."""
    t = torch.tensor([[[0.7]]], dtype=torch.float64)
    if abs(L_T(t, HO).item() / 9.88819013e-6 - 1) > 1e-8:
        return Finding("L_T in closed form against quadrature", math.inf, 1e-8)
    short = from_betas(1e-4, 0.02, 50)
    first = float(0.5 * (-torch.log(-torch.expm1(short.log_alpha_bar(50)))))  # E‖x_0‖² = N: D8 has no other term
    bound = gauss_bound(1.0, short)
    return Finding(
        "by how much it falls below the NLL, nats per dimension",
        gauss_entropy(1.0) - reported(first, bound - first),
        1e-6,
    )


P, Q = r"p_\theta(x_{t-1}\mid x_t)", r"q(x_t\mid x_{t-1})"
LEFT = r"\log\frac{q(x_{1:T}\mid x_0)}{p_\theta(x_{0:T})}"
PRIOR, END = r"-\log p(x_T)", r"\log\frac{q(x_1\mid x_0)}{p_\theta(x_0\mid x_1)}"
POST = r"q(x_{t-1}\mid x_t,x_0)"
RATIO = rf"\sum_{{t=2}}^T\log\frac{{{POST}}}{{{P}}}"
KLS, KL_T = rf"D_{{KL}}({POST}\Vert {P})", r"D_{KL}(q(x_T\mid x_0)\Vert p(x_T))"
PATHWISE = "True of each path; a training objective only in the mean."


def _line(number, printed, form, step="D6", why=PATHWISE, **controls):
    return Equation(number, BOUND, printed, CORRECT, step, check_path, form, why=why, controls=controls["controls"])


ALL = (
    _line(26, LEFT + rf"=\log\frac{{\prod_t{Q}}}{{p(x_T)\prod_t{P}}}", line_26, "D3",
          controls={"without p(x_T)": lambda c, x: forward(c, x) - reverse(c, x)}),
    _line(27, rf"\dots={PRIOR}+\log\frac{{\prod_t{Q}}}{{\prod_t{P}}}",
          lambda c, x: -c.log_prior(x) + (forward(c, x) - reverse(c, x)),
          controls={"the sign of log p(x_T)": lambda c, x: c.log_prior(x) + forward(c, x) - reverse(c, x)}),
    _line(28, rf"\dots={PRIOR}+\sum_{{t=1}}^T\log\frac{{{Q}}}{{{P}}}", line_28,
          controls={"the sum from t = 2": lambda c, x: line_28(c, x, 2)}),
    _line(29, rf"\dots={PRIOR}+\sum_{{t=2}}^T\log\frac{{{Q}}}{{{P}}}+{END}", line_29,
          controls={"t = 1 counted twice": lambda c, x: line_28(c, x) + decoder(c, x)}),
    Equation(
        30, BOUND, r"q(x_t\mid x_{t-1})=\frac{q(x_{t-1}\mid x_t)\,q(x_t)}{q(x_{t-1})}", CORRECT, "D5", check_30,
        lambda back, evidence, before: back * evidence / before,
        why="Its parts are unknown (they need q(x_0)), not of high variance.",
        controls={"the marginals exchanged": lambda back, evidence, before: back * before / evidence},
    ),
    Equation(
        31, BOUND, rf"{Q}=\frac{{{POST}\,q(x_t\mid x_0)}}{{q(x_{{t-1}}\mid x_0)}}", UNSTATED, "D5", check_31, 1.0,
        right=rf"{Q}\overset{{\text{{Markov}}}}=q(x_t\mid x_{{t-1}},x_0)="
        rf"\frac{{{POST}\,q(x_t\mid x_0)}}{{q(x_{{t-1}}\mid x_0)}},\ t\ge2",
        why="Needs the Markov property and t ≥ 2; conditioning is not a free choice.",
        controls={"as printed, without Markov: DDIM's process": 0.0},
    ),
    _line(32, rf"\dots={PRIOR}+\sum_{{t=2}}^T\log\frac{{{POST}\,q(x_t\mid x_0)}}{{{P}\,q(x_{{t-1}}\mid x_0)}}+{END}",
    line_32,
          controls={"the marginals upside down": lambda c, x: line_32(c, x, -1)}),
    _line(33, rf"={PRIOR}+{RATIO}+\sum_{{t=2}}^T\log\frac{{q(x_t\mid x_0)}}{{q(x_{{t-1}}\mid x_0)}}+{END}", line_33,
          controls={"the second sum forgotten": lambda c, x: line_33(c, x, 0)}),
    Equation(
        34, BOUND,
        r"\sum_{t=2}^T\log\frac{q(x_t\mid x_0)}{q(x_{t-1}\mid x_0)}=\log\frac{q(x_T\mid x_0)}{q(x_1\mid x_0)}",
        CORRECT,
        "D6", check_34, lambda c, x: c.log_jump(x, c.T) - c.log_jump(x, 1), why=PATHWISE,
        controls={"down to q(x_0|x_0)": lambda c, x: c.log_jump(x, c.T)},
    ),
    _line(35, rf"={PRIOR}+{RATIO}+\log\frac{{q(x_T\mid x_0)}}{{q(x_1\mid x_0)}}+{END}", line_35,
          controls={"without q(x_1|x_0)": lambda c, x: line_35(c, x, 0)}),
    Equation(
        36, BOUND,
        r"\dots-\log(q(x_1\mid q(x_0)))+\log(q(x_1\mid q(x_0)))\dots=\log q(x_T\mid x_0)-\log p_\theta(x_0\mid x_1)",
        SLIP, "D6", check_36, lambda c, x: c.log_jump(x, c.T) - c.log_p(x, 1),
        right=r"\dots-\log q(x_1\mid x_0)+\log q(x_1\mid x_0)\dots=\log q(x_T\mid x_0)-\log p_\theta(x_0\mid x_1)",
        why="q(x_0) stands where x_0 is meant; the result is right.",
        controls={"the sign of the last term": lambda c, x: c.log_jump(x, c.T) + c.log_p(x, 1)},
    ),
    _line(37, rf"=\log\frac{{q(x_T\mid x_0)}}{{p(x_T)}}+{RATIO}-\log p_\theta(x_0\mid x_1)", line_37,
          controls={"the sign of the last term": lambda c, x: line_37(c, x, -1)}),
    Equation(
        38, BOUND, rf"={KL_T}+\sum_{{t=2}}^T{KLS}-\log p_\theta(x_0\mid x_1)", WRONG, "D7", check_38,
        lambda c, x: line_38(c, x).mean(),
        right=rf"L_{{\rm vlb}}={KL_T}+\sum_{{t=2}}^T\mathbb E_{{q(x_t\mid x_0)}}\big[{KLS}\big]"
        r"-\mathbb E_{q(x_1\mid x_0)}[\log p_\theta(x_0\mid x_1)]",
        why="Still random through x_t and x_1: the outer expectations are missing.",
        controls={"as printed: path by path": line_38},
    ),
    Equation(
        39, BOUND, rf"\sum_{{t=2}}^T{KLS}-\log p_\theta(x_0\mid x_1)", UNSTATED, "D8", check_39, lambda first,
        rest: first + rest,
        right=r"\arg\min_\theta L_{\rm vlb}=\arg\min_\theta(L_{\rm vlb}-L_T)",
        why="The same minimiser, but no longer a bound; small only where ᾱ_T is.",
        controls={"as printed: L_T left out": lambda first, rest: rest},
    ),
)  # fmt: skip
