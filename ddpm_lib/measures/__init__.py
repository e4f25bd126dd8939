"""How far from perfect: loss over floor, samples fitted by their family, the quality of samples.

Chapters `training` and `is_it_any_good`.
"""

from .estimates import Estimate, proportion
from .evaluation import held_out, oracle, quality_of_samples
from .fit import FittedSignals, fit_family
from .loss import loss_over_floor, mean_loss, predicted_noise
from .quality import Quality, QualityTable, energy_distance, ks_uniform, memorised, parameter_distances, sample_quality

__all__ = [
    "Estimate",
    "FittedSignals",
    "Quality",
    "QualityTable",
    "energy_distance",
    "fit_family",
    "held_out",
    "ks_uniform",
    "loss_over_floor",
    "mean_loss",
    "memorised",
    "oracle",
    "parameter_distances",
    "predicted_noise",
    "proportion",
    "quality_of_samples",
    "sample_quality",
]
