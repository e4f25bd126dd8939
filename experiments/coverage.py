"""How often intervals cover what they should: the exact posterior, and what passes for it, on measured wavelets.

Nothing is trained. A run is one way to draw signals given a measurement; a row is one seed of it, some fresh cases. Of
each case there are 19 draws. If they and the true signal come from one law, the rank of the truth among them is uniform
on 0…19, and it lies between the smallest and the largest in 18 of 20 cases: the interval between those two covers 90 %.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
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
    Guided,
    LinearCovariance,
    Measurement,
    dpmpp_2m_sde,
    dps,
    fit_family,
    linear,
    longer,
    posterior_given,
    pretrained,
    repaint,
    sample,
    stream,
)

from .runner import Experiment

FAMILY, SCHEDULE = BenchmarkMorlet(), linear(1000)
DRAWS = 19
TRUTH, INSTRUMENT, METHOD = 71_001, 71_002, 71_003  # seeds that no training run has
at = torch.arange(128)
HOLE = (at >= 54) & (at < 74)
MEASUREMENTS = {
    "a hole": Measurement.samples(~HOLE, 0.05),
    "every eighth": Measurement.samples(at % 8 == 0, 0.05),
    "low pass": Measurement.low_pass(128, 3.0, 0.05, stride=4),
}


@cache
def network() -> Denoiser:
    return pretrained()


@cache
def oracle() -> FamilyOracle:
    """The exact denoiser, from a coarser first grid: its covariance is a sum over all of it where the noise is large."""
    return FamilyOracle(FAMILY, SCHEDULE, cells=2048)


def by_repaint(measured: Measurement, y: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    step = partial(repaint, measurement=measured, y=y, rounds=10, generator=generator)
    return walk_from(network(), y, 20, generator, step)


def by_dps(measured: Measurement, y: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    return walk_from(network(), y, 250, generator, partial(dps, measurement=measured, y=y, zeta=0.3))


def by_pigdm(measured: Measurement, y: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    return walk_from(Guided(network(), measured, y), y, 80, generator)


def by_linear(measured: Measurement, y: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    return walk_from(Guided(LinearCovariance(network()), measured, y), y, 80, generator)


def by_kalman(measured: Measurement, y: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    return walk_from(Guided(oracle(), measured, y), y, 40, generator)


def walk_from(denoiser: Any, y: Tensor, steps: int, generator: torch.Generator, step: Any = dpmpp_2m_sde) -> Any:
    return sample(denoiser, (len(y), 1, FAMILY.length), steps, step, generator)


METHODS: dict[str, Callable[[Measurement, Tensor, torch.Generator], Iterator[Tensor]]] = {
    "RePaint": by_repaint,
    "DPS": by_dps,
    "ΠGDM": by_pigdm,
    "linear covariance": by_linear,
    "exact covariance": by_kalman,
}


@dataclass(frozen=True)
class Repair:
    """What a row is made of: a measurement and a method by name, how many cases, a seed. It stands where a recipe does."""

    measured: str
    method: str
    cases: int = 24
    seed: int = 0

    def fingerprint(self) -> str:
        """Of this, and of the network that ships."""
        return hashlib.sha256(f"{self!r} {longer().fingerprint()}".encode()).hexdigest()[:16]

    def case(self) -> tuple[Measurement, Tensor, Tensor, Tensor]:
        """The measurement, true signals (n, 1, L), their parameters (n, P) and what was measured, (n, M)."""
        measured = MEASUREMENTS[self.measured]
        x0, params = FAMILY.sample(self.cases, stream(TRUTH, self.seed, 0))
        return measured, x0, params, measured.observe(x0, stream(INSTRUMENT, self.seed, 0))

    def draws(self) -> tuple[Tensor, Tensor, Tensor]:
        """19 signals of each case (n, 19, L), the parameters of their fits (n, 19, P), which are valid (n, 19)."""
        measured, _, _, y = self.case()
        generator = stream(METHOD, self.seed, 0)
        if self.method == "exact posterior":
            theta = posterior_given(FAMILY, measured, y, SCHEDULE, DRAWS, generator)
            x = FAMILY.render(theta.flatten(0, 1))
            return x.view(*theta.shape[:2], -1), theta, torch.ones(theta.shape[:2], dtype=torch.bool)
        *_, x = METHODS[self.method](measured, y.repeat_interleave(DRAWS, 0), generator)
        fits = fit_family(x, FAMILY, starts=2, cells=4096, iterations=12)
        shape = len(y), DRAWS, -1
        return x.view(shape), fits.params.view(shape), fits.valid.view(shape[:2])

    def measure(self) -> dict[str, Any]:
        """Ranks of the truth, coverage, width of the intervals, errors of the mean, valid draws, draws that fit y."""
        measured, x0, params, y = self.case()
        x, theta, valid = self.draws()
        best, exact, _ = replace(self, method="exact posterior").draws()
        missed = (measured(x.flatten(0, 1)[:, None]).view(*x.shape[:2], -1) - y[:, None]).square().sum(2)
        # of true draws 999 of 1000 miss y by less
        fit = missed < measured.sigma**2 * float(stats.chi2.ppf(0.999, y.shape[1]))
        found: dict[str, Any] = {
            "cases": self.cases,
            "valid": float(valid.double().mean()),
            "fit": float(fit.double().mean()),
            "rmse": rmse(x.mean(1), x0[:, 0]),
            "rmse_exact": rmse(best.mean(1), x0[:, 0]),
        }
        for k, name in enumerate(FAMILY.names):
            ranks = (params[:, None, k] > theta[..., k]).sum(1)
            width, narrow = (v[..., k].amax(1) - v[..., k].amin(1) for v in (theta, exact))
            found |= {
                f"cover_{name}": float(((ranks > 0) & (ranks < DRAWS)).double().mean()),
                f"width_{name}": float((width / narrow).median()),
                f"ranks_{name}": " ".join(map(str, torch.bincount(ranks, minlength=DRAWS + 1).tolist())),
            }
        return found


def rmse(x: Tensor, y: Tensor) -> float:
    return float((x - y).double().square().mean().sqrt())


class Coverage(Experiment):
    """The runner, with nothing to train."""

    def make(self, run: str, seed: int, recipe: Any) -> None:
        start = time.perf_counter()
        found = recipe.measure()
        self.append(self.about(run, seed, recipe) | {"seconds": round(time.perf_counter() - start)} | found)


EXPERIMENT = Coverage(
    name="coverage",
    recipes={
        f"{measured}: {method}": Repair(measured, method, {"exact posterior": 400, "exact covariance": 12}.get(method, 24))
        for measured in MEASUREMENTS
        for method in ("exact posterior", *METHODS)
        if measured != "low pass" or method not in ("RePaint", "DPS")  # nothing to put back; and DPS is slow
    },
    seeds=range(3),
    measure=None,
)
CHAPTER = "21_repairing_signals"
CLAIMS = ()
