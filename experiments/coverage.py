"""How often intervals cover what they should: the exact posterior, and what passes for it, on measured wavelets.

Nothing is trained. A run is one way to draw signals given a measurement; a row is one seed of it, some fresh cases. Of
each case there are 19 draws. If they and the true signal come from one law, the rank of the truth among them is uniform
on 0…19, and it lies between the smallest and the largest in 18 of 20 cases: the interval between those two covers 90 %.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from ddpm_lib import (
    BenchmarkMorlet,
    Denoiser,
    FamilyOracle,
    dpmpp_2m_sde,
    fit_family,
    linear,
    pretrained,
    sample,
    stream,
)
from ddpm_lib.diffusion import Measurement
from ddpm_lib.exact import posterior_given
from ddpm_lib.sampling import LinearCovariance, PseudoinverseGuidance, dps, repaint
from ddpm_lib.training import shipped_recipe

from .runner import Experiment

FAMILY, SCHEDULE = BenchmarkMorlet(), linear(1000)
DRAWS = 19
TRUTH, INSTRUMENT, METHOD = 71_001, 71_002, 71_003  # seeds that no training run has
AT = torch.arange(128)
MEASUREMENTS = {
    "a hole": Measurement.samples((AT < 54) | (AT > 73), 0.05),
    "every eighth": Measurement.samples(AT % 8 == 0, 0.05),
    "low pass": Measurement.low_pass(128, 3.0, 0.05, stride=4),
}
EXACT = "exact posterior"
CASES = {EXACT: 400, "exact covariance": 12}  # of a row; of the others 24
METHODS = ("RePaint", "DPS", "ΠGDM", "linear covariance", "exact covariance")


@cache
def network() -> Denoiser:
    return pretrained()


@cache
def oracle() -> FamilyOracle:
    """The exact denoiser from a coarser first grid: where there is much noise, its covariance sums over all cells."""
    return FamilyOracle(FAMILY, SCHEDULE, cells=2048)


def draw(method: str, measured: Measurement, y: Tensor, generator: torch.Generator) -> Tensor:
    """A signal (1, L) for every row of y (n, M), by a method: a denoiser, the number of steps, a step."""
    given = {"measurement": measured, "y": y}
    denoiser, steps, step = {
        "RePaint": (network(), 20, partial(repaint, **given, rounds=10, generator=generator)),
        "DPS": (network(), 250, partial(dps, **given, zeta=0.3)),
        "ΠGDM": (PseudoinverseGuidance(network(), measured, y), 80, dpmpp_2m_sde),
        "linear covariance": (PseudoinverseGuidance(LinearCovariance(network()), measured, y), 80, dpmpp_2m_sde),
        "exact covariance": (PseudoinverseGuidance(oracle(), measured, y), 40, dpmpp_2m_sde),
    }[method]
    *_, x = sample(denoiser, (len(y), 1, FAMILY.length), steps, step, generator)
    return x


@dataclass(frozen=True)
class Repair:
    """What a row is made of: a measurement and a method by name, how many cases, a seed. It stands for a recipe."""

    measured: str
    method: str
    cases: int
    seed: int = 0

    def fingerprint(self) -> str:
        """Of this, and of the network that ships."""
        return hashlib.sha256(f"{self!r} {shipped_recipe().fingerprint()}".encode()).hexdigest()[:16]

    def case(self) -> tuple[Measurement, Tensor, Tensor, Tensor]:
        """The measurement, true signals (n, L), their parameters (n, P), and what was measured of them, (n, M)."""
        measured = MEASUREMENTS[self.measured]
        x0, params = FAMILY.sample(self.cases, stream(TRUTH, self.seed, 0))
        return measured, x0[:, 0], params, measured.observe(x0, stream(INSTRUMENT, self.seed, 0))

    def draws(self) -> tuple[Tensor, Tensor, Tensor]:
        """19 signals of each case (n, 19, L), the parameters of their fits (n, 19, P), which are valid (n, 19)."""
        measured, _, _, y = self.case()
        shape, generator = (len(y), DRAWS, -1), stream(METHOD, self.seed, 0)
        if self.method == EXACT:
            theta = posterior_given(FAMILY, measured, y, SCHEDULE, DRAWS, generator)
            return FAMILY.render(theta.flatten(0, 1)).view(shape), theta, torch.ones(shape[:2], dtype=torch.bool)
        x = draw(self.method, measured, y.repeat_interleave(DRAWS, 0), generator)
        fits = fit_family(x, FAMILY, starts=2, cells=4096, iterations=12)
        return x.view(shape), fits.params.view(shape), fits.valid.view(shape[:2])

    def measure(self) -> dict[str, Any]:
        """Of the draws: valid, near to y, error of their mean; of each parameter: cover, width, rank of the truth.

        ``fit`` is the share of draws that miss y by no more than 999 of 1000 true draws do; errors are RMS a sample,
        beside those of the mean of 19 exact draws; widths are those of the intervals, over those of exact draws.
        """
        measured, x0, params, y = self.case()
        x, theta, valid = self.draws()
        best, exact, _ = (x, theta, valid) if self.method == EXACT else replace(self, method=EXACT).draws()
        missed = (measured(x.flatten(0, 1)[:, None]).view(*x.shape[:2], -1) - y[:, None]).square().sum(2)
        found: dict[str, Any] = {
            "cases": self.cases,
            "valid": float(valid.double().mean()),
            "fit": float((missed < measured.sigma**2 * stats.chi2.ppf(0.999, y.shape[1])).double().mean()),
            "rmse": float((x.mean(1) - x0).square().mean().sqrt()),
            "rmse_exact": float((best.mean(1) - x0).square().mean().sqrt()),
        }
        for k, name in enumerate(FAMILY.names):
            ranks = (params[:, None, k] > theta[..., k]).sum(1)
            width, narrow = (v[..., k].amax(1) - v[..., k].amin(1) for v in (theta, exact))
            found[f"cover_{name}"] = float(((ranks > 0) & (ranks < DRAWS)).double().mean())
            found[f"width_{name}"] = float((width / narrow).median())
            found[f"ranks_{name}"] = " ".join(map(str, torch.bincount(ranks, minlength=DRAWS + 1).tolist()))
        return found


class Coverage(Experiment):
    """The runner, with nothing to train."""

    def make(self, run: str, seed: int, recipe: Any) -> None:
        start, found = time.perf_counter(), recipe.measure()
        self.append(self.head(run, seed, recipe) | {"seconds": round(time.perf_counter() - start)} | found)


EXPERIMENT = Coverage(
    name="coverage",
    recipes={
        f"{measured}: {method}": Repair(measured, method, CASES.get(method, 24))
        for measured in MEASUREMENTS
        for method in (EXACT, *METHODS)
        if measured != "low pass" or method not in ("RePaint", "DPS")  # nothing to put back; the slow one
    },
    seeds=range(3),
    measure=lambda repair, _: repair.measure(),
)
