"""From noise to signals: the times visited, the steps, the loop; conditions and measurements.

Chapters `sampling`, `grids_and_solvers`, `noisy_data`, `conditioning` and `repairs`.
"""

from .conditioning import ClassifierFreeGuidance, conditions
from .denoising import denoise, posterior_draws
from .grids import even_log_snr, even_steps, karras
from .inverse import LinearCovariance, PseudoinverseGuidance, dps, repaint
from .loop import Chunked, Counted, algorithm_2, sample, walk
from .steps import Evaluation, advance, ancestral, ddim, dpmpp_2m, dpmpp_2m_sde, heun

__all__ = [
    "Chunked",
    "ClassifierFreeGuidance",
    "Counted",
    "Evaluation",
    "LinearCovariance",
    "PseudoinverseGuidance",
    "advance",
    "algorithm_2",
    "ancestral",
    "conditions",
    "ddim",
    "denoise",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dps",
    "even_log_snr",
    "even_steps",
    "heun",
    "karras",
    "posterior_draws",
    "repaint",
    "sample",
    "walk",
]
