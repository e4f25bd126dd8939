"""What signals are drawn from."""

from __future__ import annotations

import torch

from .augmentation import Augmented
from .family import Family
from .finite import Finite
from .mixture import Mixture
from .noisy import Noisy

__all__ = ["signal_shape"]


Source = Family | Finite | Noisy | Augmented | Mixture
"""What signals are drawn from."""


def signal_shape(family: Source) -> tuple[int, int]:
    """(C, L) of the signals of a family or a file."""
    _, channels, length = family.sample(1, torch.Generator())[0].shape
    return channels, length
