"""A diffusion model of eight steps in one dimension, linear and Gaussian: likelihood, bound and gap are exact (G2)."""

from __future__ import annotations

import math

import numpy as np


def log_normal(x, mean, var):
    return -0.5 * ((x - mean) ** 2 / var + np.log(2 * np.pi * var))


def log_gauss(x, mean, precision):
    """log N(x; mean, precision⁻¹) of rows x (n, d)."""
    d = x - mean
    log_det = np.linalg.slogdet(precision)[1] - len(precision) * math.log(2 * math.pi)
    return 0.5 * (log_det - np.einsum("ni,ij,nj->n", d, precision, d))


def kl_normal(m1, v1, m2, v2):
    """D_KL(N(m1, v1) ‖ N(m2, v2)), one dimension."""
    return 0.5 * (v1 / v2 - 1 + np.log(v2 / v1) + (m1 - m2) ** 2 / v2)


class Chain:
    """Data N(0.4, 0.3), T steps with β linear from 0.05 to 0.45, reverse steps N(g_t·x_t + h_t, s_t).

    `noise` > 0 disturbs the true reverse steps; `exact_prior` starts from q(x_T) in place of N(0, 1).
    """

    def __init__(self, T: int = 8, noise: float = 0.0, exact_prior: bool = False, mean=0.4, var=0.3):
        self.T, self.mean, self.var = T, mean, var
        self.b = np.concatenate([[np.nan], np.linspace(0.05, 0.45, T)])
        self.a = 1 - self.b
        self.ab = np.concatenate([[1.0], np.cumprod(self.a[1:])])
        self.bt = np.concatenate([[np.nan], (1 - self.ab[:-1]) / (1 - self.ab[1:]) * self.b[1:]])
        v = self.ab * var + 1 - self.ab
        m = np.sqrt(self.ab) * mean
        self.m, self.v = m, v
        xi = noise * np.random.default_rng(0).standard_normal((3, T))
        true = np.sqrt(self.a[1:]) * v[:-1] / v[1:]
        self.g = np.append(np.nan, true * (1 + 0.1 * xi[0]))
        self.h = np.append(np.nan, m[:-1] - true * m[1:] + 0.1 * xi[1])
        self.s = np.append(np.nan, self.b[1:] * v[:-1] / v[1:] * np.exp(0.3 * xi[2]))
        self.prior = (m[T], v[T]) if exact_prior else (0.0, 1.0)

    # densities on paths x (n, T+1)
    def log_q(self, x, t):
        """log q(x_t | x_{t-1})."""
        return log_normal(x[:, t], np.sqrt(self.a[t]) * x[:, t - 1], self.b[t])

    def log_jump(self, x, t):
        """log q(x_t | x_0)."""
        return log_normal(x[:, t], np.sqrt(self.ab[t]) * x[:, 0], 1 - self.ab[t])

    def mu_tilde(self, x, t):
        """μ̃_t(x_t, x_0), report (42)."""
        A = np.sqrt(self.a[t]) * (1 - self.ab[t - 1]) / (1 - self.ab[t])
        return A * x[:, t] + np.sqrt(self.ab[t - 1]) * self.b[t] / (1 - self.ab[t]) * x[:, 0]

    def log_post(self, x, t):
        """log q(x_{t-1} | x_t, x_0), t ≥ 2."""
        return log_normal(x[:, t - 1], self.mu_tilde(x, t), self.bt[t])

    def log_p(self, x, t):
        """log p_θ(x_{t-1} | x_t)."""
        return log_normal(x[:, t - 1], self.g[t] * x[:, t] + self.h[t], self.s[t])

    def log_prior(self, x):
        """log p(x_T)."""
        return log_normal(x[:, self.T], *self.prior)

    def log_ratio(self, x):
        """log q(x_{1:T}|x_0) - log p_θ(x_{0:T}), the right side of (24)."""
        steps = range(1, self.T + 1)
        return sum(self.log_q(x, t) - self.log_p(x, t) for t in steps) - self.log_prior(x)

    def kl_step(self, x, t):
        """D_KL(q(x_{t-1}|x_t, x_0) ‖ p_θ(x_{t-1}|x_t)): random through x_t."""
        return kl_normal(self.mu_tilde(x, t), self.bt[t], self.g[t] * x[:, t] + self.h[t], self.s[t])

    def kl_prior(self, x0=None):
        """D_KL(q(x_T|x_0) ‖ p(x_T))."""
        return kl_normal(np.sqrt(self.ab[-1]) * x0, 1 - self.ab[-1], *self.prior)

    def paths(self, n: int, x0: float = 0.3, seed: int = 0):
        """n forward paths from x_0, (n, T+1)."""
        rng = np.random.default_rng(seed)
        x = np.full((n, self.T + 1), float(x0))
        for t in range(1, self.T + 1):
            x[:, t] = np.sqrt(self.a[t]) * x[:, t - 1] + np.sqrt(self.b[t]) * rng.standard_normal(n)
        return x

    # exact answers
    def model(self):
        """Mean and variance of p_θ(x_0)."""
        M, V = self.prior
        for t in range(self.T, 0, -1):
            M, V = self.g[t] * M + self.h[t], self.g[t] ** 2 * V + self.s[t]
        return M, V

    def nll(self, x0: float = 0.3) -> float:
        """-log p_θ(x_0)."""
        return float(-log_normal(x0, *self.model()))

    def precisions(self, x0: float = 0.3):
        """Mean and precision matrix of q(x_{1:T}|x_0) and of p_θ(x_{0:T}), without a product of steps."""
        A, B = np.eye(self.T), np.eye(self.T + 1)
        for t in range(2, self.T + 1):
            A[t - 1, t - 2] = -math.sqrt(self.a[t])  # x_t - √α_t·x_{t-1} is noise
        for t in range(1, self.T + 1):
            B[t - 1, t] = -self.g[t]  # x_{t-1} - g_t·x_t is h_t + noise
        P = A.T @ np.diag(1 / self.b[1:]) @ A
        Q = B.T @ np.diag(1 / np.append(self.s[1:], self.prior[1])) @ B
        return np.sqrt(self.ab[1:]) * x0, P, np.linalg.solve(B, np.append(self.h[1:], self.prior[0])), Q

    def posterior(self, x0: float = 0.3):
        """Mean and precision matrix of p_θ(x_{1:T}|x_0)."""
        _, _, mean, Q = self.precisions(x0)
        return mean[1:] - np.linalg.solve(Q[1:, 1:], Q[1:, 0] * (x0 - mean[0])), Q[1:, 1:]

    def gap(self, x0: float = 0.3) -> float:
        """D_KL(q(x_{1:T}|x_0) ‖ p_θ(x_{1:T}|x_0)) of two T-dimensional Gaussians."""
        m, P, _, _ = self.precisions(x0)
        m1, Q = self.posterior(x0)
        log_det = np.linalg.slogdet(P)[1] - np.linalg.slogdet(Q)[1]
        return float(0.5 * (np.trace(Q @ np.linalg.inv(P)) + (m1 - m) @ Q @ (m1 - m) - self.T + log_det))

    def bound(self, x0: float = 0.3) -> float:
        """L_vlb(x_0), (38) with its expectations: each KL is quadratic in x_t, so ±1 noises give its mean exactly."""
        total = self.kl_prior(x0)
        for t in range(1, self.T + 1):
            x = np.full((2, self.T + 1), float(x0))
            x[:, t] = np.sqrt(self.ab[t]) * x0 + np.sqrt(1 - self.ab[t]) * np.array([1, -1])
            total += self.kl_step(x, t).mean() if t > 1 else -self.log_p(x, 1).mean()
        return float(total)
