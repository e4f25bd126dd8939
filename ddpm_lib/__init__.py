"""Diffusion models on signals whose exact answer is known: the library of the book *Diffusion on Wavelets*."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .augmentation import Augmented, Negate, Reverse, Scale, Shift
from .checks import check_signals
from .data import batches, stream
from .denoising import denoise, noise_time, posterior_draws
from .diffusion import (
    X0,
    Denoiser,
    Eps,
    Normal,
    Parametrisation,
    Prediction,
    U,
    V,
    q_posterior,
    q_sample,
    q_step,
)
from .distillation import Distilled, truncated
from .elbo import L_0, L_T, L_t, Terms, best_variance, elbo, gaussian_kl, vlb
from .finite import Finite, report_grid
from .grids import even_log_snr, even_steps, karras
from .guidance import Asked, Guided, LinearCovariance, ask
from .learned import AnalyticVariance, LearnedVariance, LossHistory, bound_at, hybrid, interpolated
from .likelihood import Likelihood, log_likelihood, posterior_variance
from .measurements import Measurement, posterior_given
from .metrics import Estimate, FittedSignals, fit_family, loss_over_floor, mean_loss, predicted_noise, share
from .mixture import Mixture, MixtureOracle
from .networks import Block, Conditions, LinearSkip, NoiseLevel, UNet1D
from .noisy import Cleaned, Noisy, NoisyOracle
from .objective import draw_times, flow_matching, loss, min_snr, simple
from .optim import Muon, orthogonal
from .oracle import FiniteOracle, Gaussian, Wiener, fit_gaussian
from .quadrature import FamilyOracle
from .recipes import Recipe, by_linear_error, linear_skip, longer
from .repairs import dps, repaint
from .samplers import Memory, ancestral, beta, beta_tilde, ddim, dpmpp_2m, dpmpp_2m_sde, heun, sample, walk
from .schedules import LEFTOVER, Schedule, cosine, linear, log_linear, quadratic, sigmoid, straight
from .scores import Score, Scoreboard, energy_distance, ks_uniform, memorised, scoreboard
from .signals import BenchmarkMorlet, Family, Morlet, morlet

if TYPE_CHECKING:
    from .store import cache_dir, load, pretrained, save, train_or_load
    from .training import Fit, LitDDPM, device, fit

__version__ = "0.1.0"

# Lightning takes seconds to import: what needs it is imported when it is first asked for.
_LAZY = {
    "store": ("cache_dir", "load", "pretrained", "save", "train_or_load"),
    "training": ("Fit", "LitDDPM", "device", "fit"),
}

__all__ = [
    "LEFTOVER",
    "L_0",
    "L_T",
    "X0",
    "AnalyticVariance",
    "Asked",
    "Augmented",
    "BenchmarkMorlet",
    "Block",
    "Cleaned",
    "Conditions",
    "Denoiser",
    "Distilled",
    "Eps",
    "Estimate",
    "Family",
    "FamilyOracle",
    "Finite",
    "FiniteOracle",
    "Fit",
    "FittedSignals",
    "Gaussian",
    "Guided",
    "L_t",
    "LearnedVariance",
    "Likelihood",
    "LinearCovariance",
    "LinearSkip",
    "LitDDPM",
    "LossHistory",
    "Measurement",
    "Memory",
    "Mixture",
    "MixtureOracle",
    "Morlet",
    "Muon",
    "Negate",
    "NoiseLevel",
    "Noisy",
    "NoisyOracle",
    "Normal",
    "Parametrisation",
    "Prediction",
    "Recipe",
    "Reverse",
    "Scale",
    "Schedule",
    "Score",
    "Scoreboard",
    "Shift",
    "Terms",
    "U",
    "UNet1D",
    "V",
    "Wiener",
    "ancestral",
    "ask",
    "batches",
    "best_variance",
    "beta",
    "beta_tilde",
    "bound_at",
    "by_linear_error",
    "cache_dir",
    "check_signals",
    "cosine",
    "ddim",
    "denoise",
    "device",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dps",
    "draw_times",
    "elbo",
    "energy_distance",
    "even_log_snr",
    "even_steps",
    "fit",
    "fit_family",
    "fit_gaussian",
    "flow_matching",
    "gaussian_kl",
    "heun",
    "hybrid",
    "interpolated",
    "karras",
    "ks_uniform",
    "linear",
    "linear_skip",
    "load",
    "log_likelihood",
    "log_linear",
    "longer",
    "loss",
    "loss_over_floor",
    "mean_loss",
    "memorised",
    "min_snr",
    "morlet",
    "noise_time",
    "orthogonal",
    "posterior_draws",
    "posterior_given",
    "posterior_variance",
    "predicted_noise",
    "pretrained",
    "q_posterior",
    "q_sample",
    "q_step",
    "quadratic",
    "repaint",
    "report_grid",
    "sample",
    "save",
    "scoreboard",
    "share",
    "sigmoid",
    "simple",
    "straight",
    "stream",
    "train_or_load",
    "truncated",
    "vlb",
    "walk",
]


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
