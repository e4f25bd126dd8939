"""Are the samples any good? Every figure beside what real signals score (chapter `is_it_any_good`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from ..checks import at_least_float32, check_count, check_signals, check_tensor
from ..shapes import Float
from ..signals.family import Family
from .estimates import Estimate, proportion
from .fit import FittedSignals, fit_family

__all__ = [
    "Quality",
    "QualityTable",
    "energy_distance",
    "ks_uniform",
    "memorised",
    "parameter_distances",
    "sample_quality",
]


class Quality(NamedTuple):
    """A figure, the half-width of its 95 % interval, and its floor: what as many real signals score."""

    value: float
    margin: float
    floor: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.margin:.4f}   real {self.floor:.4f}"


@dataclass(frozen=True)
class QualityTable:
    """Scores by name; prints as a table."""

    rows: dict[str, Quality]

    def __getitem__(self, name: str) -> Quality:
        return self.rows[name]

    def __str__(self) -> str:
        width = max(map(len, self.rows))
        return "\n".join(f"{name:<{width}}  {score}" for name, score in self.rows.items())


def ks_uniform(u: Float[Tensor, "n"]) -> Quality:
    """Kolmogorov and Smirnov's distance between numbers u and the uniform distribution on [0, 1].

    Its floor is the critical value: as many real numbers stay below it 95 times in 100.
    """
    n = len(check_tensor(u, "What Kolmogorov and Smirnov's distance is of", "n"))
    found = stats.kstest(u.detach().double().numpy(), "uniform")
    at = float((u <= found.statistic_location).double().mean())  # share below the place of the greatest gap
    return Quality(float(found.statistic), 1.96 * math.sqrt(at * (1 - at) / n), float(stats.kstwo.ppf(0.95, n)))


def energy_distance(
    x: Float[Tensor, "n C L"],
    y: Float[Tensor, "m C L"],
    permutations: int = 200,
    generator: torch.Generator | None = None,
) -> tuple[Estimate, float]:
    """Energy distance 2·E‖x-y‖ - E‖x-x′‖ - E‖y-y′‖ of signals x and y: 0 if and only if one distribution.

    Székely & Rizzo 2013, (2.5), without the pairs of a signal with itself: its mean is 0 for equal distributions.

    Returns:
        The distance with its interval, and what it stays below 95 times in 100 when the two sets are shuffled.
    """
    n, m = len(check_signals(x, "x", "n")), len(check_signals(y, "y", "m"))
    check_count(permutations, "The number of permutations", high=10**6)
    check_tensor(y, "y", m, *x.shape[1:])
    if min(n, m) < 2:
        raise ValueError(f"An energy distance needs at least 2 signals on both sides, got {n} and {m}.")
    both = at_least_float32(torch.cat([x, y.to(x)])).flatten(1)
    apart = torch.cdist(both, both).double()
    order = torch.stack([torch.randperm(n + m, generator=generator) for _ in range(permutations)])
    first = torch.zeros(n + m, permutations + 1, dtype=apart.dtype)
    first[:n, 0] = 1
    first[:, 1:].scatter_(0, order[:, :n].T, 1.0)
    to_first = apart @ first  # (n + m, 1 + permutations): summed distance to the first set
    to_second = apart.sum(1, keepdim=True) - to_first
    within_x, across = (first * to_first).sum(0), (first * to_second).sum(0)
    within_y = ((1 - first) * to_second).sum(0)
    distance = 2 * across / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))
    # how much each signal moves the distance: to first order the distance is a mean of these
    pull_x = to_second[:n, 0] / m - to_first[:n, 0] / (n - 1)
    pull_y = to_first[n:, 0] / n - to_second[n:, 0] / (m - 1)
    error = 2 * math.sqrt(float(pull_x.var() / n + pull_y.var() / m))
    return Estimate(float(distance[0]), 1.96 * error), float(distance[1:].quantile(0.95))


def memorised(x: Float[Tensor, "n C L"], training: Float[Tensor, "m C L"]) -> Estimate:
    """Share of signals x that copy one of the training set, which has two at least.

    A copy lies three times nearer to one training signal than to the next (Yoon et al. 2023).
    """
    check_signals(x, "x", "n")
    check_tensor(training, "training", "m", *x.shape[1:])
    if len(training) < 2:
        raise ValueError("Whether a signal is a copy needs at least 2 training signals, got 1.")
    x = at_least_float32(x)
    near = torch.cdist(x.flatten(1), training.to(x).flatten(1)).topk(2, largest=False).values
    return proportion(near[:, 0] < near[:, 1] / 3)


def parameter_distances(fits: FittedSignals, family: Family) -> dict[str, Quality]:
    """`ks_uniform` of each parameter, over the signals that some member of the family fits within 5 %."""
    near = fits.params[fits.residual < 0.05]
    if not len(near):  # then there is no distribution: the distance is the largest there is
        return dict.fromkeys(family.names, Quality(1.0, 0.0, float(stats.kstwo.ppf(0.95, len(fits.params)))))
    shares = (near - family.low) / (family.high - family.low)
    return {name: ks_uniform(u) for name, u in zip(family.names, shares.T, strict=True)}


def _quantile(x: Float[Tensor, "n"], q: float) -> Estimate:
    """A quantile, with the interval between the order statistics that hold it 95 times in 100."""
    x, n = x.double().sort().values, len(x)
    low, high = (int(min(max(n * q + z * math.sqrt(n * q * (1 - q)), 0), n - 1)) for z in (-1.96, 1.96))
    value = float(x.quantile(q))
    return Estimate(value, max(float(x[high]) - value, value - float(x[low])))


def sample_quality(
    x: Float[Tensor, "n 1 L"],
    family: Family,
    *,
    training: Float[Tensor, "m 1 L"] | None = None,
    generator: torch.Generator | None = None,
) -> QualityTable:
    """Are these samples of the family any good? Every figure with its interval and with what real signals score.

    - valid: share of signals within 5 % of a member of the family and inside its box;
    - residual: ‖x - ψ‖/‖ψ‖ to the nearest member, its median and 90th percentile;
    - law of …: `ks_uniform` of each parameter, over the signals that some member fits within 5 %;
    - distance: `energy_distance` to as many real signals;
    - memorised: with ``training``, the share of copies.

    Args:
        x: 20 signals at least.
        family: what they should be samples of; at most three parameters, uniform on a box.
        training: the set that the model was trained on, if it was finite.
        generator: draws the real signals.

    >>> from ddpm_lib import BenchmarkMorlet
    >>> family = BenchmarkMorlet()
    >>> x, _ = family.sample(100, torch.Generator().manual_seed(0))
    >>> scores = sample_quality(x, family, generator=torch.Generator().manual_seed(1))
    >>> scores["valid"].value, scores["law of b"].value < scores["law of b"].floor
    (1.0, True)
    """
    if len(check_signals(x, "x", "n")) < 20:
        raise ValueError(
            f"A scoreboard needs at least 20 signals, got {len(x)}: fewer say nothing about a distribution."
        )
    real, _ = family.sample(len(x), generator)
    fits, best = fit_family(x, family), fit_family(real, family)
    rows = {"valid": Quality(*proportion(fits.valid), float(best.valid.double().mean()))}
    for name, q in (("residual, median", 0.5), ("residual, 90 %", 0.9)):
        rows[name] = Quality(*_quantile(fits.residual, q), float(best.residual.quantile(q)))
    rows |= {f"law of {name}": score for name, score in parameter_distances(fits, family).items()}
    distance, floor = energy_distance(x, real, generator=generator)
    rows["distance"] = Quality(*distance, floor)
    if training is not None:
        rows["memorised"] = Quality(*memorised(x, training), memorised(real, training).value)
    return QualityTable(rows)
