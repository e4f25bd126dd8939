"""Sentences of the book that claim a difference, held to the tables: ``python -m experiments.claims`` (make claims)."""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from scipy import stats

from .runner import Experiment

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"


@dataclass(frozen=True)
class Difference:
    """How much more one run has than another: means over seeds, a 95 % interval, and how many seeds both have."""

    value: float
    margin: float
    seeds: tuple[int, int]


@dataclass(frozen=True)
class Claim:
    """One sentence of a chapter, and the two runs of a table that it compares.

    Args:
        sentence: as it stands in the chapter, word for word (line breaks and Markdown's emphasis aside).
        column: of the table.
        more, less: the run that has more of it, and the one that has less. Two runs of which the chapter says that they
            do not differ are a claim with ``same``.
        by: at least so much more, if the sentence says so.
        same: the sentence says that no difference is seen: the interval must hold 0.
    """

    sentence: str
    column: str
    more: str
    less: str
    by: float = 0.0
    same: bool = False

    def difference(self, experiment: Experiment) -> Difference:
        """Welch's interval of the difference of two means over seeds.

        Raises:
            ValueError: a run that the table lacks, or that has fewer than three seeds.
        """
        return difference(experiment, self.column, self.more, self.less)

    def holds(self, experiment: Experiment) -> bool:
        """Whether the table bears the sentence out: the difference exceeds its interval (or ``same``: does not)."""
        found = self.difference(experiment)
        if self.same:
            return abs(found.value) <= found.margin
        return found.value - self.by > found.margin


def over_seeds(experiment: Experiment, run: str, column: str) -> tuple[float, float]:
    """Mean of a column over the seeds of a run, and half its 95 % interval (Student's)."""
    return interval([float(row[column]) for row in experiment.rows() if row["run"] == run])


def interval(values: list[float]) -> tuple[float, float]:
    """Mean of some seeds, and half its 95 % interval (Student's)."""
    margin = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), float(margin)


def difference(experiment: Experiment, column: str, more: str, less: str) -> Difference:
    """By how much `more` exceeds `less`: means over seeds, Welch's 95 % interval. Needs three seeds each."""
    values = {run: [float(r[column]) for r in experiment.rows() if r["run"] == run] for run in (more, less)}
    for run, v in values.items():
        if len(v) < 3:
            raise ValueError(f"{experiment.name}: {run!r} has {len(v)} seeds; a claim needs three.")
    shares = [statistics.variance(v) / len(v) for v in values.values()]
    whole = sum(shares)
    degrees = whole**2 / sum(s**2 / (len(v) - 1) for s, v in zip(shares, values.values(), strict=True)) if whole else 1
    return Difference(
        statistics.fmean(values[more]) - statistics.fmean(values[less]),
        float(stats.t.ppf(0.975, degrees)) * math.sqrt(whole),
        (len(values[more]), len(values[less])),
    )


def number(chapter: str) -> int:
    """The number of a chapter, which its title begins with."""
    return int(re.findall(r"^# (\d+) · ", text(chapter))[0])


def text(chapter: str) -> str:
    """The prose of a chapter, white space and emphasis evened out."""
    cells = json.loads((CHAPTERS / f"{chapter}.ipynb").read_text("utf-8"))["cells"]
    return plain(" ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"))


def plain(words: str) -> str:
    return " ".join(words.replace("*", "").split())


def main() -> None:
    """Print every claim with its figures; exit status 1 if one does not hold."""
    from .__main__ import NAMES

    failed = total = 0
    for name in NAMES:
        module = import_module(f"{__package__}.{name}")
        for claim in getattr(module, "CLAIMS", ()):
            total += 1
            try:
                found, good = claim.difference(module.EXPERIMENT), claim.holds(module.EXPERIMENT)
                figures = f"{found.value:+.4g} ± {found.margin:.2g}, {found.seeds[0]} and {found.seeds[1]} seeds"
            except ValueError as error:
                good, figures = False, str(error)
            good = good and plain(claim.sentence) in text(module.CHAPTER)
            failed += not good
            compared = f"{claim.column}: {claim.more} - {claim.less}"
            print(f"{'holds' if good else 'FAILS'}  {module.CHAPTER}: {claim.sentence}\n       {compared} = {figures}")
    print(f"{total - failed} of {total} claims hold, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
