"""Equations (12)-(25): from the likelihood to the bound."""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import dblquad, quad

from .core import BOUND, CORRECT, SE, WRONG, Equation, Finding
from .eight_steps import Chain, kl_normal, log_gauss, log_normal

CHAIN = Chain(noise=1.0)  # an imperfect p_θ
X0 = 0.3
PATHS = CHAIN.paths(100_000, X0)
RATIO = CHAIN.log_ratio(PATHS)  # log q(x_{1:T}|x_0) - log p_θ(x_{0:T}) of each path
NLL = CHAIN.nll(X0)
STARTS = (-0.5, 0.3, 0.4, 1.0)


def check_12(nll) -> Finding:
    chain = Chain(T=2, noise=1.0)

    def joint(x1, x2):
        x = np.array([[X0, x1, x2]])
        return math.exp(chain.log_p(x, 1)[0] + chain.log_p(x, 2)[0] + chain.log_prior(x)[0])

    total = dblquad(joint, -6, 6, -6, 6, epsabs=1e-9)[0]
    return Finding("-log p_θ(x_0) against the integral over x_1, x_2", abs(nll(chain) + math.log(total)), 1e-7)


def _at_the_mean_path(chain):
    x = np.array([[X0, *np.zeros(chain.T)]])
    for t in range(chain.T, 1, -1):
        x[0, t - 1] = chain.g[t] * x[0, t] + chain.h[t]
    return -float(chain.log_p(x, 1)[0])


def check_13(bound) -> Finding:
    error = max(abs(chain.bound(x) - bound(chain.nll(x), chain.gap(x))) for x in STARTS for chain in (CHAIN, Chain()))
    return Finding("L_vlb against NLL + KL of the joint Gaussians", error, 1e-10)


def check_14(kl) -> Finding:
    p, q = (0.2, 0.5), (-0.3, 0.9)

    def density(law):
        return lambda x: math.exp(log_normal(x, *law))

    return Finding("quadrature against the closed form", abs(kl(density(p), density(q)) - kl_normal(*p, *q)), 1e-8)


def _integral(p, q):
    return quad(lambda x: p(x) * math.log(p(x) / q(x)), -8, 8, epsabs=1e-12)[0]


def check_15(claimed) -> Finding:
    values = np.atleast_1d(claimed(RATIO - NLL))  # each is claimed to be the KL
    z = np.abs(values - CHAIN.gap(X0)).max() / (RATIO.std() / math.sqrt(len(RATIO)))
    return Finding(f"the worst value that is claimed to be the KL, {SE}", float(z), 4)


TABLE = np.random.default_rng(0).dirichlet(np.ones(20)).reshape(4, 5)  # P(A, B)


def check_16(bayes) -> Finding:
    A, B = TABLE.sum(1), TABLE.sum(0)
    return Finding(
        "P(A|B) of a random table", float(np.abs(bayes(TABLE / A[:, None], A[:, None], B) - TABLE / B).max()), 1e-14
    )


def _model_joint(x, chain=CHAIN):
    """log p_θ(x_{0:T}) as one Gaussian, not step by step."""
    _, _, mean, Q = chain.precisions()
    return log_gauss(x, mean, Q)


def _parts(x, chain=CHAIN):
    """log p_θ(x_0|x_{1:T}), log p_θ(x_{1:T}), log p_θ(x_0)."""
    latents = sum(chain.log_p(x, t) for t in range(2, chain.T + 1)) + chain.log_prior(x)
    return chain.log_p(x, 1), latents, -chain.nll(X0)


def check_17(bayes) -> Finding:
    x = PATHS[:1000]
    return Finding(
        "log p_θ(x_{1:T}|x_0) on 1000 paths",
        float(np.abs(bayes(*_parts(x)) - log_gauss(x[:, 1:], *CHAIN.posterior(X0))).max()),
        1e-10,
    )


def check_18(product) -> Finding:
    A, B = TABLE.sum(1, keepdims=True), TABLE.sum(0)
    return Finding("P(A, B) of a random table", float(np.abs(product(TABLE / B, B, TABLE / A, A) - TABLE).max()), 1e-14)


def check_19(quotient) -> Finding:
    x = PATHS[:1000]
    error = np.abs(quotient(_model_joint(x), -NLL) - log_gauss(x[:, 1:], *CHAIN.posterior(X0))).max()
    return Finding("log p_θ(x_{1:T}|x_0) on 1000 paths", float(error), 1e-10)


def check_20(split) -> Finding:
    x = PATHS[:1000]
    m, P, _, _ = CHAIN.precisions(X0)
    left = np.log(np.exp(log_gauss(x[:, 1:], m, P)) / (np.exp(_model_joint(x)) / math.exp(-NLL)))
    return Finding("both sides on 1000 paths", float(np.abs(left - split(RATIO[:1000], -NLL)).max()), 1e-9)


def check_21(bound) -> Finding:
    grid = np.linspace(-2, 3, 101)
    short = [chain.nll(x) - bound(chain, x) for x in grid for chain in (CHAIN, Chain(), Chain(exact_prior=True))]
    return Finding("by how much the bound falls below the NLL", max(short), 1e-10)


def check_24(values) -> Finding:
    """Also (22) and (23): every value that is claimed to be a bound must not lie below the NLL."""
    x = values(RATIO)
    short = NLL - np.atleast_1d(x).min()
    z = short / (RATIO.std() / math.sqrt(len(RATIO)))
    mean = np.exp(-RATIO)  # E_q[p_θ(x_{0:T})/q] = p_θ(x_0): the ratio has the NLL's density as its mean
    z = max(z, abs(mean.mean() - math.exp(-NLL)) / (mean.std() / math.sqrt(len(mean))))
    return Finding(f"by how much the lowest claimed bound falls below the NLL, {SE}", float(z), 4)


def _nested(ratio):
    """log(q/(p_θ(x_{0:T})/p_θ(x_0))), as (22) writes it."""
    return np.log(np.exp(ratio) * math.exp(-NLL))


def check_25(joint) -> Finding:
    x = PATHS[:1000]
    return Finding(
        "log p_θ(x_{0:T}) against one Gaussian", float(np.abs(joint(CHAIN, x) - _model_joint(x)).max()), 1e-10
    )


def _product(chain, x):
    return chain.log_prior(x) + sum(chain.log_p(x, t) for t in range(1, chain.T + 1))


NEG, LATENT = r"-\log p_\theta(x_0)", r"\frac{q(x_{1:T}\mid x_0)}{p_\theta(x_{0:T})}"
KL = r"D_{KL}(q(x_{1:T}\mid x_0)\Vert p_\theta(x_{1:T}\mid x_0))"
POST = r"\frac{q(x_{1:T}\mid x_0)}{p_\theta(x_{0:T})/p_\theta(x_0)}"
NO_MEAN = "One path's value is not its mean: the expectation over q is missing."

ALL = (
    Equation(12, BOUND, NEG, CORRECT, "D3", check_12, lambda c: c.nll(X0),
    controls={"along the mean path only": _at_the_mean_path}),
    Equation(
        13, BOUND, NEG + r"\le" + NEG + "+" + KL, CORRECT, "D4", check_13, lambda nll, kl: nll + kl,
        controls={"the KL subtracted": lambda nll, kl: nll - kl},
    ),
    Equation(
        14, BOUND, r"D_{KL}(p\Vert q)=\int_xp(x)\log\frac{p(x)}{q(x)}\,dx", CORRECT, "D4", check_14, _integral,
        why="It measures how far apart two laws are, not how similar; it is not symmetric.",
        controls={"p and q exchanged": lambda p, q: _integral(q, p)},
    ),
    Equation(
        15, BOUND, KL + r"=\log\frac{q(x_{1:T}\mid x_0)}{p_\theta(x_{1:T}\mid x_0)}", WRONG, "D4", check_15, np.mean,
        right=KL + r"=\mathbb E_{q(x_{1:T}\mid x_0)}\Big[\log\frac{q(x_{1:T}\mid x_0)}{p_\theta(x_{1:T}\mid x_0)}\Big]",
        why=NO_MEAN, controls={"as printed: path by path": lambda r: r},
    ),
    Equation(
        16, BOUND, r"P(A\mid B)=\frac{P(B\mid A)P(A)}{P(B)}", CORRECT, "D4", check_16, lambda ba, a, b: ba * a / b,
        controls={"not divided by P(B)": lambda ba, a, b: ba * a},
    ),
    Equation(
        17, BOUND,
        r"p_\theta(x_{1:T}\mid x_0)=\frac{p_\theta(x_0\mid x_{1:T})\,p_\theta(x_{1:T})}{p_\theta(x_0)}", CORRECT,
        "D4", check_17, lambda lik, lat, ev: lik + lat - ev,
        controls={"not divided by p_θ(x_0)": lambda lik, lat, ev: lik + lat},
    ),
    Equation(
        18, BOUND, r"P(A,B)=P(A\mid B)P(B)=P(B\mid A)P(A)", CORRECT, "D4", check_18, lambda ab, b, ba,
        a: np.stack([ab * b, ba * a]),
        controls={"as if independent": lambda ab, b, ba, a: a * b},
    ),
    Equation(
        19, BOUND, r"p_\theta(x_{1:T}\mid x_0)=\dots=\frac{p_\theta(x_{0:T})}{p_\theta(x_0)}", CORRECT, "D4", check_19,
        lambda joint, ev: joint - ev, controls={"not divided by p_θ(x_0)": lambda joint, ev: joint},
    ),
    Equation(
        20, BOUND, r"\log\Big(" + POST + r"\Big)=\log" + LATENT + r"+\log p_\theta(x_0)", CORRECT, "D4", check_20,
        lambda r, ev: r + ev, why="True of each path; a KL only in the mean.",
        controls={"the sign of log p_θ(x_0)": lambda r, ev: r - ev},
    ),
    Equation(
        21, BOUND, NEG + r"\le" + NEG + "+" + KL, CORRECT, "D4", check_21, lambda c, x: c.bound(x), why="Repeats (13).",
        controls={"without L_T": lambda c, x: c.bound(x) - c.kl_prior(x)},
    ),
    Equation(
        22, BOUND, NEG + r"\le" + NEG + r"+\log\Big(" + POST + r"\Big)", WRONG, "D4", check_24,
        lambda r: NLL + _nested(r).mean(),
        right=NEG + r"\le" + NEG + r"+\mathbb E_q\Big[\log\Big(" + POST + r"\Big)\Big]", why=NO_MEAN,
        controls={"as printed: path by path": lambda r: NLL + _nested(r)},
    ),
    Equation(
        23, BOUND, NEG + r"\le" + NEG + r"+\log" + LATENT + r"+\log p_\theta(x_0)", WRONG, "D4", check_24,
        lambda r: NLL + r.mean() - NLL,
        right=NEG + r"\le" + NEG + r"+\mathbb E_q\Big[\log" + LATENT + r"\Big]+\log p_\theta(x_0)",
        why=NO_MEAN, controls={"as printed: path by path": lambda r: NLL + r - NLL},
    ),
    Equation(
        24, BOUND, NEG + r"\le\log" + LATENT, WRONG, "D4", check_24, np.mean,
        right=NEG + r"\le\mathbb E_q\Big[\log" + LATENT + r"\Big]",
        why=NO_MEAN, controls={"as printed: path by path": lambda r: r},
    ),
    Equation(
        25, BOUND, r"p_\theta(x_{0:T})=p(x_T)\prod_{t=1}^Tp_\theta(x_{t-1}\mid x_t)", CORRECT, "D3", check_25, _product,
        controls={"without p(x_T)": lambda c, x: _product(c, x) - c.log_prior(x)},
    ),
)  # fmt: skip
