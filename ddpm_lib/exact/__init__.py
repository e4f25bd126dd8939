"""The best possible answers: the exact denoiser of Gaussian data, a finite set, a family, noisy data, a mixture.

Chapters `best_denoiser`, `noisy_data`, `other_functions` and `repairs`.
"""

from .dispatch import of
from .family import FamilyOracle
from .finite import FiniteOracle
from .gaussian import Gaussian, LowRank, Wiener, fit_gaussian
from .measured import posterior_given
from .mixture import MixtureOracle
from .noisy import Cleaned, NoisyOracle
from .truncated_normal import TruncatedNormal

__all__ = [
    "Cleaned",
    "FamilyOracle",
    "FiniteOracle",
    "Gaussian",
    "LowRank",
    "MixtureOracle",
    "NoisyOracle",
    "TruncatedNormal",
    "Wiener",
    "fit_gaussian",
    "of",
    "posterior_given",
]
