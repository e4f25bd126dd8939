"""The U-Net, what it is given besides the signal, and the linear skip around it.

Chapters `unet` and `conditioning`.
"""

from .embeddings import Conditions, NoiseLevel
from .skip import LinearSkip, by_linear_error, linear_skip, plain_unet
from .unet import Block, UNet1D

__all__ = ["Block", "Conditions", "LinearSkip", "NoiseLevel", "UNet1D", "by_linear_error", "linear_skip", "plain_unet"]
