"""The process and its maths: schedules, the jump, the posterior, the bound, losses, variances, the likelihood.

Chapters `forward_process`, `reverse_process`, `the_bound`, `l_simple`, `targets_and_weights` and
`variance_and_likelihood`.
"""

from .bound import L_0, L_T, L_t, Terms, bound_at, elbo, gaussian_kl
from .denoiser import X0, Denoiser, DenoiserLike, Eps, Parametrisation, Prediction, U, V, WithCovariance, device_of
from .forward import Normal, q_posterior, q_sample, q_step
from .likelihood import Likelihood, log_likelihood
from .losses import flow_matching, hybrid, loss, min_snr, simple, truncated, vlb
from .measurement import Measurement
from .schedules import LEFTOVER, Schedule, cosine, linear, log_linear, noise_time, quadratic, sigmoid, straight
from .times import LossHistory, draw_times
from .variances import (
    AnalyticVariance,
    LearnedVariance,
    TableVariance,
    Variance,
    best_variance,
    beta,
    beta_tilde,
    interpolated,
    posterior_covariance,
    posterior_variance,
)

__all__ = [
    "LEFTOVER",
    "L_0",
    "L_T",
    "X0",
    "AnalyticVariance",
    "Denoiser",
    "DenoiserLike",
    "Eps",
    "L_t",
    "LearnedVariance",
    "Likelihood",
    "LossHistory",
    "Measurement",
    "Normal",
    "Parametrisation",
    "Prediction",
    "Schedule",
    "TableVariance",
    "Terms",
    "U",
    "V",
    "Variance",
    "WithCovariance",
    "best_variance",
    "beta",
    "beta_tilde",
    "bound_at",
    "cosine",
    "device_of",
    "draw_times",
    "elbo",
    "flow_matching",
    "gaussian_kl",
    "hybrid",
    "interpolated",
    "linear",
    "log_likelihood",
    "log_linear",
    "loss",
    "min_snr",
    "noise_time",
    "posterior_covariance",
    "posterior_variance",
    "q_posterior",
    "q_sample",
    "q_step",
    "quadratic",
    "sigmoid",
    "simple",
    "straight",
    "truncated",
    "vlb",
]
