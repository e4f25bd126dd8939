"""Diffusion models on signals whose exact answer is known: the library of the book *Diffusion on Wavelets*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .diffusion import (
    L_0,
    L_T,
    X0,
    Denoiser,
    Eps,
    L_t,
    Prediction,
    Schedule,
    TableVariance,
    Terms,
    U,
    V,
    best_variance,
    beta,
    beta_tilde,
    cosine,
    elbo,
    gaussian_kl,
    linear,
    log_linear,
    loss,
    min_snr,
    q_posterior,
    q_sample,
    q_step,
    quadratic,
    sigmoid,
    simple,
    straight,
    vlb,
)
from .exact import FamilyOracle, FiniteOracle, Gaussian, fit_gaussian
from .measures import (
    Estimate,
    energy_distance,
    fit_family,
    ks_uniform,
    loss_over_floor,
    mean_loss,
    memorised,
    proportion,
    sample_quality,
)
from .networks import Block, LinearSkip, NoiseLevel, UNet1D, by_linear_error, linear_skip
from .sampling import ancestral, ddim, dpmpp_2m, dpmpp_2m_sde, even_log_snr, even_steps, heun, sample
from .signals import BenchmarkMorlet, Family, Finite, Morlet, batches, morlet, report_grid, stream
from .training import Recipe

if TYPE_CHECKING:
    from .training import Fit, device, fit, load, pretrained, save, train_or_load

__version__ = "0.1.0"

__all__ = [
    "L_0",
    "L_T",
    "X0",
    "BenchmarkMorlet",
    "Block",
    "Denoiser",
    "Eps",
    "Estimate",
    "Family",
    "FamilyOracle",
    "Finite",
    "FiniteOracle",
    "Fit",
    "Gaussian",
    "L_t",
    "LinearSkip",
    "Morlet",
    "NoiseLevel",
    "Prediction",
    "Recipe",
    "Schedule",
    "TableVariance",
    "Terms",
    "U",
    "UNet1D",
    "V",
    "ancestral",
    "batches",
    "best_variance",
    "beta",
    "beta_tilde",
    "by_linear_error",
    "cosine",
    "ddim",
    "device",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "elbo",
    "energy_distance",
    "even_log_snr",
    "even_steps",
    "fit",
    "fit_family",
    "fit_gaussian",
    "gaussian_kl",
    "heun",
    "ks_uniform",
    "linear",
    "linear_skip",
    "load",
    "log_linear",
    "loss",
    "loss_over_floor",
    "mean_loss",
    "memorised",
    "min_snr",
    "morlet",
    "pretrained",
    "proportion",
    "q_posterior",
    "q_sample",
    "q_step",
    "quadratic",
    "report_grid",
    "sample",
    "sample_quality",
    "save",
    "sigmoid",
    "simple",
    "straight",
    "stream",
    "train_or_load",
    "vlb",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # what needs Lightning, which takes seconds to import, when it is first asked for
        from . import training

        return getattr(training, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
