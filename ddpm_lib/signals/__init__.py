"""What signals are drawn from: families with a formula, finite sets, files; and batches of them.

Chapters `morlet_data`, `few_data` and `other_functions`.
"""

from .augmentation import Augmented, Negate, Reverse, Scale, Shift
from .batches import batches, stream
from .families import Chirp, DampedSine, Edges, PulsePair, Ricker, Sawtooth, TwoMorlets
from .family import Family
from .finite import Finite, report_grid
from .mixture import Mixture
from .noisy import Noisy
from .source import Source, WithBox, signal_shape
from .wavelets import BenchmarkMorlet, Morlet, morlet

__all__ = [
    "Augmented",
    "BenchmarkMorlet",
    "Chirp",
    "DampedSine",
    "Edges",
    "Family",
    "Finite",
    "Mixture",
    "Morlet",
    "Negate",
    "Noisy",
    "PulsePair",
    "Reverse",
    "Ricker",
    "Sawtooth",
    "Scale",
    "Shift",
    "Source",
    "TwoMorlets",
    "WithBox",
    "batches",
    "morlet",
    "report_grid",
    "signal_shape",
    "stream",
]
