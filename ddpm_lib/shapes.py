"""Shapes in signatures: ``Float[Tensor, "B C L"]`` is a floating point tensor of these sizes.

The letters mean the same everywhere: B signals in a batch, C channels, L samples, P parameters, K members of a set,
M measured numbers, T steps; n is as many as were asked for. A size that is no letter is that number, ``C*L`` a product,
``#B`` is B or 1, and ``*t`` any number of sizes.

jaxtyping and beartype check them while the tests run. The library needs neither: without them a shape is a note.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Real, Shaped
else:
    try:
        from jaxtyping import Bool, Float, Int, Real, Shaped
    except ImportError:
        from typing import Annotated

        Bool = Float = Int = Real = Shaped = Annotated

__all__ = ["Bool", "Float", "Int", "PerSignal", "Real", "Shaped", "Time"]

Time: TypeAlias = Real[Tensor, "B"] | Real[Tensor, ""] | float
"""A time for each signal, or one for all: whole or not."""

PerSignal: TypeAlias = Float[Tensor, "B C L"] | Float[Tensor, "B"] | Float[Tensor, ""]
"""A number for each sample, for each signal, or for all."""
