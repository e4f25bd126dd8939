"""What an entry of the list is: a number, what is printed, what is right, and one check for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

CHAPTERS = FORWARD, REVERSE, BOUND, SIMPLE = "forward_process", "reverse_process", "the_bound", "l_simple"

STEPS = {f"D{k}": REVERSE for k in (1, 2, 3, 9, 15, 20)}  # where each step of the derivation is made
STEPS |= {f"D{k}": BOUND for k in (4, 5, 6, 7, 8, 11, 12)} | {f"D{k}": SIMPLE for k in (10, 13, 14, 16, 17, 18, 19)}

CORRECT, SLIP, WRONG = "correct", "notation slip", "wrong"
UNSTATED, MISATTRIBUTED = "wrong without a stated assumption", "misattributed"
VERDICTS = (CORRECT, SLIP, WRONG, UNSTATED, MISATTRIBUTED)

SE = "standard errors"


class Finding(NamedTuple):
    """What a check measured: it holds where error ≤ limit (NaN does not)."""

    what: str
    error: float
    limit: float

    @property
    def ok(self) -> bool:
        return bool(self.error <= self.limit)

    def __str__(self) -> str:
        if self.ok and self.limit <= 1e-6:  # how small rounding is differs from one machine to another
            return f"{self.what}: below {self.limit:g}"
        return f"{self.what}: {self.error:.2g} (limit {self.limit:g})"


@dataclass(frozen=True)
class Equation:
    """One equation of the report.

    `check(form)` measures one form of the equation, given as code. It must hold for `form`, the right one, and must
    fail for each of the `controls`: what the report prints where that is wrong, a likely mistake elsewhere.
    """

    number: int
    chapter: str
    printed: str  # TeX
    verdict: str
    step: str  # the step of the derivation, "D9"
    check: Callable[[Any], Finding]
    form: Any
    right: str = ""  # TeX; empty where the printed form is right
    why: str = ""  # one sentence
    controls: dict[str, Any] = field(default_factory=dict)

    @property
    def link(self) -> str:
        """Where the book carries it."""
        return f"{self.chapter}.ipynb#eq-{self.number}"

    @property
    def derivation(self) -> str:
        """Where the step is made that it rests on."""
        return f"{STEPS[self.step]}.ipynb#eq-{self.step.lower()}"

    def run(self) -> Finding:
        return self.check(self.form)

    def run_controls(self) -> dict[str, Finding]:
        return {name: self.check(form) for name, form in self.controls.items()}
