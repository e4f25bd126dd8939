"""The 52 equations of the report, each with one check: the list behind the chapters, the tests and `make equations`."""

from __future__ import annotations

from . import divergences, forward, likelihood, loss, reverse
from .core import CHAPTERS, STEPS, VERDICTS, Equation, Finding

__all__ = ["ALL", "CHAPTERS", "STEPS", "VERDICTS", "Equation", "Finding", "equation"]

ALL: tuple[Equation, ...] = tuple(
    sorted((e for m in (forward, reverse, likelihood, divergences, loss) for e in m.ALL), key=lambda e: e.number)
)


def equation(number: int) -> Equation:
    """The entry of one number, 1…52."""
    return ALL[number - 1]
