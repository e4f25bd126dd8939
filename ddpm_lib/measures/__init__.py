"""How far from perfect: loss over floor, samples fitted by their family, the quality of samples.

Chapters `training` and `is_it_any_good`.
"""

from .estimates import Estimate, share
from .evaluation import fresh, oracle, scores
from .fit import FittedSignals, fit_family
from .loss import loss_over_floor, mean_loss, predicted_noise
from .quality import Score, Scoreboard, energy_distance, ks_uniform, laws, memorised, scoreboard

__all__ = [
    "Estimate",
    "FittedSignals",
    "Score",
    "Scoreboard",
    "energy_distance",
    "fit_family",
    "fresh",
    "ks_uniform",
    "laws",
    "loss_over_floor",
    "mean_loss",
    "memorised",
    "oracle",
    "predicted_noise",
    "scoreboard",
    "scores",
    "share",
]
